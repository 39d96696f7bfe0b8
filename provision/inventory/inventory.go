// Package inventory is the provider whose nodes are machines that exist already:
// hardware, or in a cloud. The topology says how SSH reaches each of them.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/machine"
	"github.com/native-routing/labctl/provision/remote"
	"github.com/native-routing/labctl/topologies/topo"
)

// Name is what this provider is called on the command line.
const Name = "ssh"

// observeTime is how long a machine may take to say how it stands. It may be off.
const observeTime = 20 * time.Second

// Options are where the provider keeps what it must remember.
type Options struct {
	// DataDir holds a directory for each lab; what is kept of lab L lies in
	// DataDir/L/ssh: its inventory, its key pair, and the machines' pinned host keys.
	DataDir string
	// Tell is told what is under way on a node; nil where nobody listens.
	Tell func(node, what string)
}

// Provider makes labs of existing machines.
type Provider struct {
	options  Options
	machines *machine.Machines
	records  sync.Mutex // held by who changes one
}

var (
	_ provision.Provider     = (*Provider)(nil)
	_ provision.SSHReachable = (*Provider)(nil)
)

// New returns a provider that keeps its files where options say.
func New(options Options) *Provider {
	return &Provider{options: options, machines: machine.New(machine.Options{DataDir: options.DataDir, Tell: options.Tell})}
}

// Name returns "ssh".
func (p *Provider) Name() string { return Name }

// errNoInventory is a topology that names no machines.
var errNoInventory = errors.New("the topology has no inventory of machines (write providers.ssh into its file)")

// access is how the node's machine is reached.
func access(t *topo.Topology, node string) (machine.Access, error) {
	if t.Providers.SSH == nil {
		return machine.Access{}, errNoInventory
	}
	m, ok := t.Providers.SSH.Nodes.Get(node)
	if !ok {
		return machine.Access{}, fmt.Errorf("%s: %w: the inventory has no machine for it", node, provision.ErrNotFound)
	}
	key, err := expand(m.Key)
	if err != nil {
		return machine.Access{}, fmt.Errorf("%s: %w", node, err)
	}
	a := machine.Access{Host: m.Host, Port: m.Port, User: m.User, KeyFile: key}
	for name, device := range m.Interfaces.All() {
		if a.Devices == nil {
			a.Devices = map[string]string{}
		}
		a.Devices[name] = string(device)
	}
	return a, nil
}

// expand puts the user's home directory in the place of ~.
func expand(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("key %s: %w", path, err)
	}
	return filepath.Join(home, filepath.FromSlash(rest)), nil
}

// EnsureNode makes the machine of a node into that node.
func (p *Provider) EnsureNode(ctx context.Context, t *topo.Topology, node string) ([]provision.Change, error) {
	if _, ok := t.Nodes.Get(node); !ok {
		return nil, fmt.Errorf("%s: not in the topology: %w", node, provision.ErrNotFound)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a, err := access(t, node)
	if err != nil {
		return nil, err
	}
	// Written before the first change: Destroy knows the lab by it.
	if err := p.remember(t.Metadata.Name, node, a); err != nil {
		return nil, err
	}
	return p.machines.Ensure(ctx, t, node, a)
}

// Borrowed says that the machines are not the lab's own: see [provision.Borrower].
func (p *Provider) Borrowed() {}

// EnsureLinks brings the network of all machines in line.
func (p *Provider) EnsureLinks(ctx context.Context, t *topo.Topology) ([]provision.Change, error) {
	accesses := map[string]machine.Access{}
	for _, node := range t.Nodes.Names() {
		a, err := access(t, node)
		if err != nil {
			return nil, err
		}
		accesses[node] = a
	}
	return p.machines.EnsureLinks(ctx, t, accesses)
}

// OpenNode opens a machine that was made into the node.
func (p *Provider) OpenNode(ctx context.Context, lab, node string) (provision.Node, error) {
	r, err := p.record(lab)
	if err != nil {
		return nil, err
	}
	e, ok := r.entry(node)
	if !ok {
		return nil, fmt.Errorf("%q: %w in lab %s (labctl up makes it)", node, provision.ErrNotFound, lab)
	}
	return p.machines.Open(ctx, lab, node, e.Access)
}

// Labs names the labs that have an inventory on this machine.
func (p *Provider) Labs(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(p.recordFile("*"))
	if err != nil {
		return nil, err
	}
	var labs []string
	for _, path := range paths {
		lab := filepath.Base(filepath.Dir(filepath.Dir(path)))
		if topo.CheckName(lab) == nil {
			labs = append(labs, lab)
		}
	}
	slices.Sort(labs)
	return labs, nil
}

// Observe asks every machine of the lab's inventory whose it is.
func (p *Provider) Observe(ctx context.Context, lab string) (provision.Observation, error) {
	var o provision.Observation
	if err := ctx.Err(); err != nil {
		return o, err
	}
	r, err := p.record(lab)
	if err != nil {
		return o, err
	}
	o.Nodes = make([]provision.ObservedNode, len(r.Nodes))
	remarks := make([][]string, len(r.Nodes))
	var group errgroup.Group
	for i, e := range r.Nodes {
		group.Go(func() error {
			within, cancel := context.WithTimeout(ctx, observeTime)
			defer cancel()
			state, err := p.machines.Look(within, lab, e.Node, e.Access)
			o.Nodes[i] = observed(e.Node, state, err)
			for _, remark := range state.Remarks {
				remarks[i] = append(remarks[i], e.Node+": "+remark)
			}
			if state.Made && len(state.Missing) > 0 {
				remarks[i] = append(remarks[i], fmt.Sprintf("%s: it has no %s, and no package could be installed (install them, or give it a way to its distribution's; %s on it says why)",
					e.Node, strings.Join(state.Missing, ", "), machine.PackagesLog))
			}
			return nil
		})
	}
	_ = group.Wait() // a machine that cannot be asked is a finding
	o.Remarks = slices.Concat(remarks...)
	return o, ctx.Err()
}

func observed(node string, state machine.State, err error) provision.ObservedNode {
	switch {
	case errors.Is(err, remote.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return provision.ObservedNode{Name: node, State: provision.NodeStopped, Detail: err.Error()}
	case err != nil:
		return provision.ObservedNode{Name: node, State: provision.NodeBroken, Detail: err.Error()}
	case !state.Made:
		return provision.ObservedNode{Name: node, State: provision.NodeBroken, Detail: "its machine is not a node yet"}
	}
	return provision.ObservedNode{Name: node, State: provision.NodeRunning}
}

// Destroy makes the named nodes into the machines that they were; with none
// named, all of the lab. A machine that cannot be reached stays in the inventory,
// and is an error.
func (p *Provider) Destroy(ctx context.Context, lab string, nodes ...string) ([]provision.Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := p.record(lab)
	if err != nil {
		return nil, err
	}
	var targets []entry
	for _, e := range r.Nodes {
		if len(nodes) == 0 || slices.Contains(nodes, e.Node) {
			targets = append(targets, e)
		}
	}
	changes := make([][]provision.Change, len(targets))
	errs := make([]error, len(targets))
	var group errgroup.Group
	for i, e := range targets {
		group.Go(func() error {
			changes[i], errs[i] = p.machines.Clean(ctx, lab, e.Node, e.Access)
			if errs[i] == nil {
				errs[i] = p.forget(lab, e.Node)
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are joined below
	err = errors.Join(errs...)
	if err == nil && len(nodes) == 0 {
		err = p.machines.Forget(ctx, lab)
		_ = os.Remove(filepath.Join(p.options.DataDir, lab)) // where nobody else has something in it
	}
	return slices.Concat(changes...), err
}

// SSHHosts says how ssh(1) reaches the machines.
func (p *Provider) SSHHosts(_ context.Context, lab string) ([]provision.SSHHost, error) {
	r, err := p.record(lab)
	if err != nil {
		return nil, err
	}
	hosts := make([]provision.SSHHost, len(r.Nodes))
	for i, e := range r.Nodes {
		hosts[i] = provision.SSHHost{Node: e.Node, HostName: e.Access.Host, Port: e.Access.Port, User: e.Access.User,
			IdentityFile: e.Access.KeyFile, KnownHosts: p.machines.KnownHosts(lab)}
	}
	return hosts, nil
}
