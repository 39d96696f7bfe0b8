package inventory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/remote"
	"github.com/native-routing/labctl/topologies/topo"
)

// Preflight looks whether every machine of the inventory can be reached and be
// its node. It pins the host keys of machines that it meets for the first time.
func (p *Provider) Preflight(ctx context.Context, t *topo.Topology) []provision.Finding {
	if t.Providers.SSH == nil {
		return []provision.Finding{{Severity: provision.Missing, Subject: "inventory", Detail: errNoInventory.Error(), Err: errNoInventory}}
	}
	nodes := t.Nodes.Names()
	findings := make([][]provision.Finding, len(nodes))
	var group errgroup.Group
	for i, node := range nodes {
		group.Go(func() error {
			findings[i] = p.preflight(ctx, t, node)
			return nil
		})
	}
	_ = group.Wait() // what is wrong is a finding
	return slices.Concat(findings...)
}

func (p *Provider) preflight(ctx context.Context, t *topo.Topology, node string) []provision.Finding {
	a, err := access(t, node)
	if err != nil {
		return []provision.Finding{{Severity: provision.Missing, Subject: node, Detail: err.Error(), Err: err}}
	}
	subject := fmt.Sprintf("%s (%s)", node, a.Host)
	if a.KeyFile != "" {
		file, err := os.Open(a.KeyFile)
		if err != nil {
			return []provision.Finding{{Severity: provision.Missing, Subject: subject, Detail: "its key: " + err.Error(), Err: err}}
		}
		file.Close()
	}
	state, err := p.machines.Look(ctx, t.Metadata.Name, node, a)
	if err != nil {
		return []provision.Finding{{Severity: provision.Missing, Subject: subject, Detail: err.Error(), Err: class(err)}}
	}
	findings := []provision.Finding{{Severity: provision.Fine, Subject: subject, Detail: state.System}}
	for _, remark := range state.Remarks {
		findings = append(findings, provision.Finding{Severity: provision.Warning, Subject: subject, Detail: remark})
	}
	return findings
}

// class lets errors.Is find provision.ErrPermission where a login or sudo is refused.
func class(err error) error {
	if errors.Is(err, remote.ErrAuth) || errors.Is(err, remote.ErrBecome) {
		return fmt.Errorf("%w: %w", provision.ErrPermission, err)
	}
	return err
}
