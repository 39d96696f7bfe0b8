package vagrant

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/machine"
	"github.com/native-routing/labctl/provision/remote"
	"github.com/native-routing/labctl/topologies/topo"
)

// ErrHalted is a node whose machine is there and does not run.
var ErrHalted = errors.New("its VM is halted")

// Provider makes labs of VMs by Vagrant.
type Provider struct {
	options    Options
	virsh      virsh
	vboxManage vboxManage

	mu   sync.Mutex
	labs map[string]*lab
}

var (
	_ provision.Provider     = (*Provider)(nil)
	_ provision.Powered      = (*Provider)(nil)
	_ provision.SSHReachable = (*Provider)(nil)
)

// New returns a provider that keeps its files where options say.
func New(options Options) *Provider { return &Provider{options: options, labs: map[string]*lab{}} }

// Name returns "vagrant".
func (p *Provider) Name() string { return Name }

func (p *Provider) runner(l *lab, provider string) runner {
	return runner{command: p.options.command(), at: l.at, provider: provider, grace: interruptGrace}
}

// EnsureNode boots the node's machine, together with all others that are asked
// for at the same time, and makes it a node as soon as it is up, while others
// may still be booting.
func (p *Provider) EnsureNode(ctx context.Context, t *topo.Topology, node string) ([]provision.Change, error) {
	if _, ok := t.Nodes.Get(node); !ok {
		return nil, fmt.Errorf("%s: %w in the topology of lab %s", node, provision.ErrNotFound, t.Metadata.Name)
	}
	if err := ctx.Err(); err != nil {
		return nil, ctx.Err()
	}
	l := p.lab(t.Metadata.Name)
	s, err := p.prepare(ctx, t)
	if err != nil {
		return nil, err
	}
	if changes, settled, err := p.ensureReached(ctx, l, s, t, node); settled || err != nil {
		return changes, err
	}
	var changes []provision.Change
	change, err := p.bringUp(ctx, t, node, func(ctx context.Context) error {
		at, err := p.lookUp(ctx, l, s.Provider, node)
		if err == nil {
			changes, err = p.ensure(ctx, t, s, node, at)
		}
		return err
	})
	if change != nil {
		changes = slices.Insert(changes, 0, *change)
	}
	return changes, err
}

// ensureReached works on a machine that takes connections where it was reached
// last: no vagrant is asked then, which would cost a second. It is not settled
// where the machine is not there, or may be another one by now.
func (p *Provider) ensureReached(ctx context.Context, l *lab, s settings, t *topo.Topology, node string) (changes []provision.Change, settled bool, err error) {
	at, ok := l.known(node, s.Provider)
	if !ok || !l.answers(ctx, at) {
		return nil, false, l.forget(node)
	}
	if err := s.outgrown(t, node); err != nil {
		return nil, true, err
	}
	changes, err = p.ensure(ctx, t, s, node, at)
	if err == nil || ctx.Err() != nil {
		return changes, true, err
	}
	moved, lookErr := p.moved(ctx, l, s, node, at)
	if lookErr != nil || !moved {
		return changes, true, err
	}
	return nil, false, nil
}

// moved says that a machine is not, or no longer, reached as it was.
func (p *Provider) moved(ctx context.Context, l *lab, s settings, node string, was machine.Access) (bool, error) {
	if err := l.forget(node); err != nil {
		return false, err
	}
	states, err := p.states(ctx, l, s)
	if err != nil {
		return false, err
	}
	if standing(stateOf(states, node)) != provision.NodeRunning {
		return true, nil
	}
	now, err := p.lookUp(ctx, l, s.Provider, node)
	return now.Host != was.Host || now.Port != was.Port || now.User != was.User || now.KeyFile != was.KeyFile, err
}

func (p *Provider) ensure(ctx context.Context, t *topo.Topology, s settings, node string, at machine.Access) ([]provision.Change, error) {
	at.Devices = devices(t, s.Provider, node)
	changes, err := p.options.Machines.Ensure(ctx, t, node, at)
	return changes, noAnswer(node, err)
}

// noAnswer adds to an error of SSH what is left to do where the machine runs.
func noAnswer(node string, err error) error {
	if !errors.Is(err, remote.ErrUnreachable) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w (its VM runs; if it hangs: labctl halt %s, then labctl up)", err, node)
}

// EnsureLinks brings the network of all nodes in line. A machine that is not
// there, or does not run, is an error: no machine is booted for it.
func (p *Provider) EnsureLinks(ctx context.Context, t *topo.Topology) ([]provision.Change, error) {
	l := p.lab(t.Metadata.Name)
	s, err := l.at.load()
	if err != nil && !errors.Is(err, errNoSettings) {
		return nil, err
	}
	names := t.Nodes.Names()
	found := make([]machine.Access, len(names))
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, node := range names {
		all.Go(func() { found[i], errs[i] = p.find(ctx, l, node) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	at := map[string]machine.Access{}
	for i, node := range names {
		found[i].Devices = devices(t, s.Provider, node)
		at[node] = found[i]
	}
	return p.options.Machines.EnsureLinks(ctx, t, at)
}

// OpenNode connects to a node whose machine runs. A machine that is not there
// is ErrNotFound, one that does not run [ErrHalted].
func (p *Provider) OpenNode(ctx context.Context, name, node string) (provision.Node, error) {
	l := p.lab(name)
	at, err := p.find(ctx, l, node)
	if err != nil {
		return nil, err
	}
	n, err := p.options.Machines.Open(ctx, name, node, at)
	if err == nil || ctx.Err() != nil {
		return n, err
	}
	s, loadErr := l.at.load()
	if loadErr != nil {
		return nil, err
	}
	if moved, lookErr := p.moved(ctx, l, s, node, at); lookErr != nil || !moved {
		return nil, noAnswer(node, err)
	}
	if at, err = p.find(ctx, l, node); err != nil {
		return nil, err
	}
	n, err = p.options.Machines.Open(ctx, name, node, at)
	return n, noAnswer(node, err)
}

// find says how a machine is reached, and never boots one.
func (p *Provider) find(ctx context.Context, l *lab, node string) (machine.Access, error) {
	missing := fmt.Errorf("%s: %w in lab %s (labctl up makes it)", node, provision.ErrNotFound, l.name)
	s, err := l.at.load()
	if errors.Is(err, errNoSettings) {
		return machine.Access{}, missing
	}
	if err != nil {
		return machine.Access{}, err
	}
	if at, ok := l.known(node, s.Provider); ok && answers(ctx, at) {
		return at, nil
	}
	states, err := p.states(ctx, l, s)
	if err != nil {
		return machine.Access{}, err
	}
	switch state := stateOf(states, node); standing(state) {
	case "":
		return machine.Access{}, missing
	case provision.NodeRunning:
		if err := l.forget(node); err != nil {
			return machine.Access{}, err
		}
		return p.lookUp(ctx, l, s.Provider, node)
	case provision.NodeStopped:
		return machine.Access{}, fmt.Errorf("%s: %w (labctl start %s)", node, ErrHalted, node)
	default:
		return machine.Access{}, &Fault{Node: node, Class: ErrState, Said: state, Cure: "labctl up mends it"}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
