package lab

import (
	"context"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
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
	patience := l.slowness(ctx, agents, staged.Nodes.Names())
	report := check.RunAll(ctx, check.Subject{
		Topology: staged, Stage: saved.Stage, Exceptions: saved.Topology.Exceptions(saved.Stage), Uplinks: saved.Uplinks,
		Cluster: cluster, Patience: patience, Say: l.Say,
	}, prober{agents}, selection)
	return report, ctx.Err()
}

const (
	// briskAnswer is the most that an agent on a machine of its own takes to say
	// its version when nothing is amiss: what takes longer is emulated, or busy.
	// The second that an echo is waited for then is fifty times as long.
	briskAnswer = 20 * time.Millisecond
	// ownPatience is how many times as long as a namespace any machine of its own
	// is waited for: one that has just answered at once may be busy the next moment.
	ownPatience = 3
	// versions are asked so often because one alone may be lucky.
	versions = 5
)

// slowness is how many times as long as a namespace the slowest of the nodes
// takes, as far as their agents answer.
func (l *Lab) slowness(ctx context.Context, agents *agents, nodes []string) int {
	if l.sharesKernel() {
		return 1
	}
	var mu sync.Mutex
	var slowest time.Duration
	var all sync.WaitGroup
	for _, node := range nodes {
		all.Go(func() {
			for i := range versions {
				start := time.Now()
				if _, err := call(ctx, agents, node, api.GetVersion, api.None{}); err != nil {
					return // the checks will tell
				}
				if i == 0 {
					continue // it opened the connection
				}
				mu.Lock()
				slowest = max(slowest, time.Since(start))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return int(min(max(slowest/briskAnswer, ownPatience), ownKernel))
}
