package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/remote"
	"github.com/native-routing/labctl/topologies/topo"
)

// Machines makes machines into nodes. It keeps one connection to each, until
// Close. Its methods are safe for concurrent use.
type Machines struct {
	options Options
	// connect is remote.New; tests put another in its place.
	connect func(remote.Config) (host, error)

	keys  sync.Mutex // held by who makes a lab's key pair
	mu    sync.Mutex
	hosts map[hostKey]host
}

// host is what a machine is worked on by.
type host interface {
	Run(ctx context.Context, cmd provision.Command) error
	Put(ctx context.Context, file provision.File) (changed bool, err error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	io.Closer
}

// hostKey tells connections apart.
type hostKey struct {
	lab, node, host string
	port            int
	user, keyFile   string
}

// New returns a Machines that has no connection yet.
func New(options Options) *Machines {
	return &Machines{
		options: options,
		connect: func(c remote.Config) (host, error) { return remote.New(c) },
		hosts:   map[hostKey]host{},
	}
}

// Close drops every connection.
func (m *Machines) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, h := range m.hosts {
		_ = h.Close() // nothing was written that could be lost
		delete(m.hosts, key)
	}
	return nil
}

// host returns the connection to a machine, which its first call makes.
func (m *Machines) host(lab, node string, a Access) (host, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := hostKey{lab, node, a.Host, a.Port, a.User, a.KeyFile}
	if h := m.hosts[key]; h != nil {
		return h, nil
	}
	h, err := m.connect(remote.Config{
		Node: node, Host: a.Host, Port: a.Port, User: a.User, KeyFile: a.KeyFile, KnownHosts: m.options.knownHosts(lab),
		Bridge: []string{dir + "/agent", "join"},
		Retry:  func(err error, _ time.Duration) { m.tell(node, "connect: "+err.Error()) },
	})
	if err != nil {
		return nil, err
	}
	m.hosts[key] = h
	return h, nil
}

// Forget drops what is kept of nodes whose machines are no more: connections and
// pinned host keys. With no node named it is all that is kept of the lab.
func (m *Machines) Forget(ctx context.Context, lab string, nodes ...string) error {
	m.mu.Lock()
	for key, h := range m.hosts {
		if key.lab == lab && (len(nodes) == 0 || slices.Contains(nodes, key.node)) {
			_ = h.Close()
			delete(m.hosts, key)
		}
	}
	m.mu.Unlock()
	if len(nodes) == 0 {
		return os.RemoveAll(m.options.labDir(lab))
	}
	return remote.Forget(ctx, m.options.knownHosts(lab), nodes...)
}

func (m *Machines) tell(node, what string) {
	if m.options.Tell != nil {
		m.options.Tell(node, what)
	}
}

// want is what one node is to be.
type want struct {
	topology  *topo.Topology
	lab, name string
	node      topo.Node
	access    Access
	key       keyPair
	hostKeys  map[string][]string // of all nodes; only where they are known
}

// phase compares a machine with what is wanted, and says what to do. It is pure.
type phase struct {
	name string
	plan func(want, seen) (todo, error)
}

// phases are the way from a machine to a node, after connecting and looking.
func phases() []phase {
	return []phase{
		{"packages", planPackages},
		{"network", planPossible},
		{"claim", planClaim},
		{"names", planNames},
		{"network", planNetwork},
	}
}

// Ensure makes the machine into the node: connects, looks at it, marks it,
// installs the commands that are missing, and gives it its names and its network,
// which come back by themselves when it boots. What is as it should be is left
// alone. A machine that is another node's is [ErrForeign].
func (m *Machines) Ensure(ctx context.Context, t *topo.Topology, node string, access Access) ([]provision.Change, error) {
	w, err := m.want(t, node, access)
	if err != nil {
		return nil, err
	}
	m.tell(node, "connect")
	h, s, err := m.see(ctx, w.lab, node, access, lookAll)
	if err != nil {
		return nil, err
	}
	changes, err := m.carryOut(ctx, h, w, s, phases())
	if err != nil {
		return changes, fmt.Errorf("%s: %w", node, err)
	}
	return changes, nil
}

func (m *Machines) want(t *topo.Topology, node string, access Access) (want, error) {
	n, ok := t.Nodes.Get(node)
	if !ok {
		return want{}, fmt.Errorf("%s: not in the topology: %w", node, provision.ErrNotFound)
	}
	key, err := m.keyPair(t.Metadata.Name)
	if err != nil {
		return want{}, err
	}
	return want{topology: t, lab: t.Metadata.Name, name: node, node: n, access: access, key: key}, nil
}

// see looks at a machine, and refuses one that cannot be the node or is another's.
func (m *Machines) see(ctx context.Context, lab, node string, access Access, how depth) (host, seen, error) {
	h, err := m.host(lab, node, access)
	if err != nil {
		return nil, seen{}, err
	}
	s, err := look(ctx, h, access.user(), how)
	if err == nil {
		err = s.fit()
	}
	if err == nil {
		err = s.foreign(lab, node)
	}
	if err != nil {
		return nil, s, fmt.Errorf("%s: %w", node, err)
	}
	return h, s, nil
}

func (a Access) user() string {
	if a.User == "" {
		return "root"
	}
	return a.User
}

// carryOut goes through phases. A machine that is changed by one in a way that
// others have to know of is looked at again.
func (m *Machines) carryOut(ctx context.Context, h host, w want, s seen, phases []phase) ([]provision.Change, error) {
	var changes []provision.Change
	for _, p := range phases {
		t, err := p.plan(w, s)
		if err != nil {
			return changes, fmt.Errorf("%s: %w", p.name, err)
		}
		if len(t.steps) == 0 {
			continue
		}
		m.tell(w.name, p.name)
		if err := act(ctx, h, t); err != nil {
			return changes, fmt.Errorf("%s: %w", p.name, err)
		}
		changes = append(changes, t.changes...)
		if !t.again {
			continue
		}
		before := s
		if s, err = look(ctx, h, w.access.user(), lookAll); err != nil {
			return changes, fmt.Errorf("%s: %w", p.name, err)
		}
		changes = append(changes, installed(w.name, before, s)...)
	}
	return changes, nil
}

// EnsureLinks brings the network of all nodes of t in line, and tells each the
// host keys of the others. A machine that is not made into its node yet is
// provision.ErrNotFound.
func (m *Machines) EnsureLinks(ctx context.Context, t *topo.Topology, accesses map[string]Access) ([]provision.Change, error) {
	names := t.Nodes.Names()
	hosts := make([]host, len(names))
	looks := make([]seen, len(names))
	err := each(names, func(i int, node string) (err error) {
		if hosts[i], looks[i], err = m.see(ctx, t.Metadata.Name, node, accesses[node], lookAll); err != nil {
			return err
		}
		if _, _, made := looks[i].owner(); !made {
			return fmt.Errorf("%s: %w in lab %s (labctl up makes it)", node, provision.ErrNotFound, t.Metadata.Name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	hostKeys := map[string][]string{}
	for i, node := range names {
		hostKeys[node] = looks[i].hostKeys()
	}
	changes := make([][]provision.Change, len(names))
	err = each(names, func(i int, node string) error {
		w, err := m.want(t, node, accesses[node])
		if err != nil {
			return err
		}
		w.hostKeys = hostKeys
		changes[i], err = m.carryOut(ctx, hosts[i], w, looks[i], []phase{{"network", planNetwork}, {"known hosts", planKnown}})
		if err != nil {
			return fmt.Errorf("%s: %w", node, err)
		}
		return nil
	})
	return slices.Concat(changes...), err
}

// each works on all nodes at once, and joins their errors. Machines are slow, and
// their number is small.
func each(names []string, do func(i int, node string) error) error {
	errs := make([]error, len(names))
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() error {
			errs[i] = do(i, name)
			return nil
		})
	}
	_ = group.Wait() // the errors are joined below
	return errors.Join(errs...)
}

// State is how a machine stands as a node.
type State struct {
	// Made says that it bears the node's mark.
	Made bool
	// System is what runs on it, in a few words.
	System string
	// Remarks are what it lacks, and the lab works without.
	Remarks []string
	// Missing are commands that it lacks, which Ensure tries to install.
	Missing []string
}

// Look says how a machine stands, and changes nothing on it. [ErrUnfit] and
// [ErrForeign] are machines that cannot be the node.
func (m *Machines) Look(ctx context.Context, lab, node string, access Access) (State, error) {
	_, s, err := m.see(ctx, lab, node, access, lookAll)
	if err != nil {
		return State{}, err
	}
	_, _, made := s.owner()
	return State{
		Made: made, System: fmt.Sprintf("%s, %s, Linux %s", s.OS, s.goArch(), s.Kernel), Remarks: s.remarks(), Missing: s.missing(),
	}, nil
}

// KnownHosts is the file with the pinned host keys of a lab's machines, each under
// its node's name.
func (m *Machines) KnownHosts(lab string) string { return m.options.knownHosts(lab) }
