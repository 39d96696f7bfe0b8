package lab

import (
	"context"

	"github.com/native-routing/labctl/labctl/check"
)

// Verify checks the lab as it was deployed: its routes, its services, or what
// the selection picks of both.
func (l *Lab) Verify(ctx context.Context, selection check.Selection) (check.Report, error) {
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return check.Report{}, err
	}
	staged, err := saved.Topology.Stage(saved.Stage)
	if err != nil {
		return check.Report{}, err
	}
	cluster, err := saved.Workloads.Cluster(staged, saved.Uplinks)
	if err != nil {
		return check.Report{}, err
	}
	agents := l.agents()
	defer agents.Close()
	report := check.RunAll(ctx, check.Subject{
		Topology: staged, Stage: saved.Stage, Exceptions: saved.Topology.Exceptions(saved.Stage), Uplinks: saved.Uplinks,
		Cluster: cluster, Say: l.Say,
	}, prober{agents}, selection)
	return report, ctx.Err()
}
