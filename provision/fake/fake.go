// Package fake is a provider in memory, for tests of what stands on a provider.
// Its nodes run no commands and carry no packets; what they are asked is
// recorded, and a test says what fails.
package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// Name is what this provider is called.
const Name = "fake"

// Call is one call of a method of the provider or of one of its nodes.
type Call struct {
	// Method is the method's name, such as EnsureNode, or Node.Put.
	Method string
	Lab    string
	// Node is empty for methods that have none.
	Node string
	// Detail is a command, a file's path, a service's name, or an address.
	Detail string
}

// Fault makes calls fail. A field that is zero matches every call.
type Fault struct {
	// At is the number of the call, from 1, among those that the other fields match.
	At     int
	Method string
	Node   string
	// After lets the call do its work first, as when an answer gets lost.
	After bool
	// Err is what the call returns.
	Err error
}

// Provider is a provision.Provider. Its fields are set before it is used.
type Provider struct {
	// Findings is what Preflight returns.
	Findings []provision.Finding
	// Dial is what a node's Dial returns; without it, dialling fails.
	Dial func(ctx context.Context, lab, node, network, address string) (net.Conn, error)
	// Run is what a node's Run does; without it, commands do nothing and succeed.
	Run func(ctx context.Context, lab, node string, cmd provision.Command) error
	// Started is told of each service that starts.
	Started func(lab, node string, service provision.Service)

	mu     sync.Mutex
	faults []*fault
	calls  []Call
	labs   map[string]*lab
}

type fault struct {
	Fault
	seen int
}

type lab struct {
	nodes map[string]*machine
	order []string
	// networks is what EnsureLinks made last, as JSON.
	networks string
}

// machine is one node's state.
type machine struct {
	links    string // interfaces and routes, as JSON
	files    map[string]file
	services map[string]service
}

var _ provision.Provider = (*Provider)(nil)

// New returns a provider without labs.
func New() *Provider { return &Provider{labs: map[string]*lab{}} }

// Name returns "fake".
func (p *Provider) Name() string { return Name }

// KernelRelease returns nothing: no node runs, so none needs more time than this machine.
func (p *Provider) KernelRelease() string { return "" }

// Fail adds a fault to those that are there.
func (p *Provider) Fail(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, &fault{Fault: f})
}

// Heal removes all faults.
func (p *Provider) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}

// Calls returns what was called since the last time, in order.
func (p *Provider) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

// do records a call and carries it out under the lock, unless a fault is in the way.
func (p *Provider) do(ctx context.Context, c Call, work func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, c)
	if err := ctx.Err(); err != nil {
		return err
	}
	after := error(nil)
	for _, f := range p.faults {
		if f.Method != "" && f.Method != c.Method || f.Node != "" && f.Node != c.Node {
			continue
		}
		f.seen++
		switch {
		case f.At != 0 && f.At != f.seen:
		case f.After:
			after = f.Err
		default:
			return f.Err
		}
	}
	if err := work(); err != nil {
		return err
	}
	return after
}

// Preflight returns Findings.
func (p *Provider) Preflight(ctx context.Context, t *topo.Topology) []provision.Finding {
	_ = p.do(ctx, Call{Method: "Preflight", Lab: t.Metadata.Name}, func() error { return nil })
	return p.Findings
}

// EnsureNode remembers the node.
func (p *Provider) EnsureNode(ctx context.Context, t *topo.Topology, node string) (changes []provision.Change, err error) {
	name := t.Metadata.Name
	err = p.do(ctx, Call{Method: "EnsureNode", Lab: name, Node: node}, func() error {
		if _, ok := t.Nodes.Get(node); !ok {
			return fmt.Errorf("%s: not in the topology: %w", node, provision.ErrNotFound)
		}
		l := p.labs[name]
		if l == nil {
			l = &lab{nodes: map[string]*machine{}}
			p.labs[name] = l
		}
		if l.nodes[node] == nil {
			l.nodes[node] = &machine{files: map[string]file{}, services: map[string]service{}}
			l.order = append(l.order, node)
			changes = []provision.Change{{Verb: provision.Created, Node: node, Object: "node"}}
		}
		return nil
	})
	return changes, err
}

// EnsureLinks remembers the nodes' interfaces and routes, one change for each
// node where they differ from the last ones.
func (p *Provider) EnsureLinks(ctx context.Context, t *topo.Topology) (changes []provision.Change, err error) {
	err = p.do(ctx, Call{Method: "EnsureLinks", Lab: t.Metadata.Name}, func() error {
		l := p.labs[t.Metadata.Name]
		for name := range t.Nodes.All() {
			if l == nil || l.nodes[name] == nil {
				return fmt.Errorf("%s: %w", name, provision.ErrNotFound)
			}
		}
		networks, err := text(t.Networks)
		if err != nil {
			return err
		}
		if networks != l.networks {
			l.networks = networks
			changes = append(changes, provision.Change{Verb: provision.Changed, Object: "networks"})
		}
		for name, node := range t.Nodes.All() {
			links, err := text([]any{node.Interfaces, node.Routes})
			if err != nil {
				return err
			}
			if m := l.nodes[name]; m.links != links {
				m.links = links
				changes = append(changes, provision.Change{Verb: provision.Changed, Node: name, Object: "links"})
			}
		}
		return nil
	})
	return changes, err
}

func text(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// OpenNode opens a node that was ensured.
func (p *Provider) OpenNode(ctx context.Context, lab, node string) (n provision.Node, err error) {
	err = p.do(ctx, Call{Method: "OpenNode", Lab: lab, Node: node}, func() error {
		if p.machine(lab, node) == nil {
			return fmt.Errorf("%s: %w in lab %s", node, provision.ErrNotFound, lab)
		}
		n = &Node{provider: p, lab: lab, name: node}
		return nil
	})
	return n, err
}

// machine is nil where there is none; the lock is held.
func (p *Provider) machine(lab, node string) *machine {
	l := p.labs[lab]
	if l == nil {
		return nil
	}
	return l.nodes[node]
}

// Observe returns the nodes in the order in which they came, all running, and
// their services as objects.
func (p *Provider) Observe(ctx context.Context, lab string) (o provision.Observation, err error) {
	err = p.do(ctx, Call{Method: "Observe", Lab: lab}, func() error {
		l := p.labs[lab]
		if l == nil {
			return nil
		}
		for _, name := range l.order {
			o.Nodes = append(o.Nodes, provision.ObservedNode{Name: name, State: provision.NodeRunning})
			for service := range l.nodes[name].services {
				o.Objects = append(o.Objects, "service "+service+" on "+name)
			}
		}
		if l.networks != "" {
			o.Objects = append(o.Objects, "networks")
		}
		slices.Sort(o.Objects)
		return nil
	})
	return o, err
}

// Labs returns the labs with nodes or networks, by name.
func (p *Provider) Labs(ctx context.Context) (names []string, err error) {
	err = p.do(ctx, Call{Method: "Labs"}, func() error {
		for name, l := range p.labs {
			if len(l.order) > 0 || l.networks != "" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return nil
	})
	return names, err
}

// Destroy forgets the nodes, or the lab.
func (p *Provider) Destroy(ctx context.Context, lab string, nodes ...string) (changes []provision.Change, err error) {
	err = p.do(ctx, Call{Method: "Destroy", Lab: lab, Detail: fmt.Sprint(nodes)}, func() error {
		l := p.labs[lab]
		if l == nil {
			return nil
		}
		all := len(nodes) == 0
		if all {
			nodes = slices.Clone(l.order)
			delete(p.labs, lab)
		}
		for _, name := range nodes {
			if l.nodes[name] == nil {
				continue
			}
			delete(l.nodes, name)
			l.order = slices.DeleteFunc(l.order, func(n string) bool { return n == name })
			changes = append(changes, provision.Change{Verb: provision.Removed, Node: name, Object: "node"})
		}
		return nil
	})
	return changes, err
}
