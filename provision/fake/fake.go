// Package fake is a provider in memory, for tests of what stands on providers.
// It makes nothing and can fail at any call.
package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// Name is the provider's.
const Name = "fake"

// Provider keeps labs in memory. Its fields are set before the first call.
type Provider struct {
	// Dir holds the directories that nodes say are theirs; Dial connects there.
	Dir string
	// Fail is asked before every call, with its number from 1 and its name, such
	// as "EnsureNode router"; an error is what the call returns, half done.
	Fail func(number int, call string) error
	// Started is told of a service that a node starts.
	Started func(lab, node string)

	mu    sync.Mutex
	calls int
	labs  map[string]*lab
}

type lab struct {
	nodes map[string]*node
	links string // the topology that the links were made from
}

type node struct {
	service string
	files   map[string]string
}

// Calls returns how many calls there were.
func (p *Provider) Calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// call counts a call and lets it fail. The caller holds the lock.
func (p *Provider) call(ctx context.Context, format string, args ...any) error {
	p.calls++
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.Fail == nil {
		return nil
	}
	return p.Fail(p.calls, fmt.Sprintf(format, args...))
}

func (p *Provider) lab(name string) *lab {
	if p.labs == nil {
		p.labs = map[string]*lab{}
	}
	if p.labs[name] == nil {
		p.labs[name] = &lab{nodes: map[string]*node{}}
	}
	return p.labs[name]
}

// Name is the provider's own.
func (p *Provider) Name() string { return Name }

// Preflight finds nothing wrong.
func (p *Provider) Preflight(context.Context, *topo.Topology) []provision.Finding { return nil }

// EnsureNode remembers the node.
func (p *Provider) EnsureNode(ctx context.Context, t *topo.Topology, name string) ([]provision.Change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.call(ctx, "EnsureNode %s", name); err != nil {
		return nil, err
	}
	l := p.lab(t.Metadata.Name)
	if l.nodes[name] != nil {
		return nil, nil
	}
	l.nodes[name] = &node{files: map[string]string{}}
	return []provision.Change{{Verb: provision.Created, Node: name, Object: "node"}}, nil
}

// EnsureLinks remembers what the links were made from.
func (p *Provider) EnsureLinks(ctx context.Context, t *topo.Topology) ([]provision.Change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.call(ctx, "EnsureLinks"); err != nil {
		return nil, err
	}
	wanted, err := json.Marshal(t.Nodes)
	if err != nil {
		return nil, err
	}
	l := p.lab(t.Metadata.Name)
	if l.links == string(wanted) {
		return nil, nil
	}
	l.links = string(wanted)
	return []provision.Change{{Verb: provision.Created, Object: "links"}}, nil
}

// OpenNode opens a node that was made.
func (p *Provider) OpenNode(ctx context.Context, labName, name string) (provision.Node, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.call(ctx, "OpenNode %s", name); err != nil {
		return nil, err
	}
	if p.lab(labName).nodes[name] == nil {
		return nil, fmt.Errorf("%s: %w", name, provision.ErrNotFound)
	}
	return &Node{provider: p, lab: labName, name: name}, nil
}

// Observe lists the nodes that were made.
func (p *Provider) Observe(ctx context.Context, labName string) (provision.Observation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var o provision.Observation
	if err := p.call(ctx, "Observe"); err != nil {
		return o, err
	}
	for name := range p.lab(labName).nodes {
		o.Nodes = append(o.Nodes, provision.ObservedNode{Name: name, State: provision.NodeRunning})
	}
	slices.SortFunc(o.Nodes, func(a, b provision.ObservedNode) int { return len(a.Name) - len(b.Name) })
	if p.lab(labName).links != "" {
		o.Objects = []string{"links"}
	}
	return o, nil
}

// Destroy forgets the named nodes, or the whole lab. A failing one forgets half.
func (p *Provider) Destroy(ctx context.Context, labName string, nodes ...string) ([]provision.Change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lab(labName)
	if len(nodes) == 0 {
		for name := range l.nodes {
			nodes = append(nodes, name)
		}
		l.links = ""
	}
	var changes []provision.Change
	for i, name := range nodes {
		if i == len(nodes)/2 {
			if err := p.call(ctx, "Destroy"); err != nil {
				return changes, err
			}
		}
		if l.nodes[name] != nil {
			delete(l.nodes, name)
			changes = append(changes, provision.Change{Verb: provision.Removed, Node: name, Object: "node"})
		}
	}
	return changes, nil
}

// Node is a node in memory.
type Node struct {
	provider  *Provider
	lab, name string
}

// with works on what is remembered of the node.
func (n *Node) with(ctx context.Context, call string, do func(*node)) error {
	n.provider.mu.Lock()
	defer n.provider.mu.Unlock()
	if err := n.provider.call(ctx, "%s %s", call, n.name); err != nil {
		return err
	}
	if state := n.provider.lab(n.lab).nodes[n.name]; state != nil {
		do(state)
		return nil
	}
	return fmt.Errorf("%s: %w", n.name, provision.ErrNotFound)
}

// Name is the node's.
func (n *Node) Name() string { return n.name }

// Run does nothing.
func (n *Node) Run(ctx context.Context, _ provision.Command) error {
	return n.with(ctx, "Run", func(*node) {})
}

// Put remembers the file.
func (n *Node) Put(ctx context.Context, f provision.File) (changed bool, err error) {
	err = n.with(ctx, "Put", func(state *node) {
		changed = state.files[f.Path] != string(f.Content)
		state.files[f.Path] = string(f.Content)
	})
	return changed, err
}

// Dir is a directory of the node's own; it need not exist.
func (n *Node) Dir() string { return filepath.Join(n.provider.Dir, n.name) }

// RunDir is the same.
func (n *Node) RunDir() string { return n.Dir() }

// EnsureService starts what the test gives as Started.
func (n *Node) EnsureService(ctx context.Context, s provision.Service) ([]provision.Change, error) {
	var changes []provision.Change
	err := n.with(ctx, "EnsureService", func(state *node) {
		if state.service != s.Name {
			state.service = s.Name
			changes = []provision.Change{{Verb: provision.Started, Node: n.name, Object: s.Name}}
		}
	})
	if len(changes) > 0 && n.provider.Started != nil {
		n.provider.Started(n.lab, n.name)
	}
	return changes, err
}

// Shell does nothing when it is run.
func (n *Node) Shell() provision.Command { return provision.Command{Argv: []string{"sh"}} }

// Arch is amd64.
func (n *Node) Arch() string { return "amd64" }

// Dial connects to a unix socket of this machine.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := n.with(ctx, "Dial", func(*node) {}); err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Close does nothing.
func (n *Node) Close() error { return nil }
