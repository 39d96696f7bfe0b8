//go:build !linux

package netns

import (
	"context"
	"fmt"
	"runtime"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// Provider says that this system has no network namespaces.
type Provider struct{}

var _ provision.Provider = (*Provider)(nil)

// New returns a provider whose every answer is provision.ErrUnsupported.
func New(Options) *Provider { return &Provider{} }

// Name returns "netns".
func (*Provider) Name() string { return Name }

const cure = "run labctl on a Linux machine or in a Linux VM"

func unsupported() error {
	return fmt.Errorf("network namespaces on %s: %w (%s)", runtime.GOOS, provision.ErrUnsupported, cure)
}

// Preflight finds the one thing that is missing.
func (*Provider) Preflight(context.Context, *topo.Topology) []provision.Finding {
	return []provision.Finding{{Severity: provision.Missing, Subject: "network namespaces",
		Detail: "only Linux has them, and this is " + runtime.GOOS, Cure: cure, Err: provision.ErrUnsupported}}
}

// EnsureNode fails with provision.ErrUnsupported.
func (*Provider) EnsureNode(context.Context, *topo.Topology, string) ([]provision.Change, error) {
	return nil, unsupported()
}

// EnsureLinks fails with provision.ErrUnsupported.
func (*Provider) EnsureLinks(context.Context, *topo.Topology) ([]provision.Change, error) {
	return nil, unsupported()
}

// OpenNode fails with provision.ErrUnsupported.
func (*Provider) OpenNode(context.Context, string, string) (provision.Node, error) {
	return nil, unsupported()
}

// Observe fails with provision.ErrUnsupported.
func (*Provider) Observe(context.Context, string) (provision.Observation, error) {
	return provision.Observation{}, unsupported()
}

// Labs finds none: this provider never made any here.
func (*Provider) Labs(context.Context) ([]string, error) { return nil, nil }

// Destroy fails with provision.ErrUnsupported.
func (*Provider) Destroy(context.Context, string, ...string) ([]provision.Change, error) {
	return nil, unsupported()
}
