package machine

import (
	"context"
	"fmt"
	"net"
	"path"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// Node is a machine that is a node of a lab.
type Node struct {
	lab, name string
	user      string
	host      host
	arch      string
	pins      string
	cgroup    string
}

var _ provision.Node = (*Node)(nil)

// Open opens a machine that was made into the node: provision.ErrNotFound where it
// was not, [ErrForeign] where it is another's.
func (m *Machines) Open(ctx context.Context, lab, node string, access Access) (provision.Node, error) {
	h, s, err := m.see(ctx, lab, node, access, lookOwner)
	if err != nil {
		return nil, err
	}
	if _, _, made := s.owner(); !made {
		return nil, fmt.Errorf("%s: %w in lab %s (labctl up makes it)", node, provision.ErrNotFound, lab)
	}
	return &Node{lab: lab, name: node, user: access.user(), host: h, arch: s.goArch(), pins: s.pins(), cgroup: s.Cgroup}, nil
}

// Name returns the node's name in the topology.
func (n *Node) Name() string { return n.name }

// Dir returns the node's directory on its machine.
func (n *Node) Dir() string { return dir }

// RunDir returns where the node's services keep sockets and locks.
func (n *Node) RunDir() string { return runDir }

// BPFDir returns the node's directory in the machine's BPF file system.
func (n *Node) BPFDir() string { return n.pins }

// Cgroup returns the root of the machine's cgroup2 hierarchy: the whole machine is
// the node's. It is empty where there is none.
func (n *Node) Cgroup() string { return n.cgroup }

// Arch returns the machine's architecture.
func (n *Node) Arch() string { return n.arch }

// Close leaves the connection to the machine as it is: it is the Machines'.
func (n *Node) Close() error { return nil }

// environment is what every process of the node has that labctl starts; the marks
// say whose it is.
func (n *Node) environment() []string {
	return []string{"LABCTL_LAB=" + n.lab, "LABCTL_NODE=" + n.name}
}

// Run runs a command on the machine, as root; see [remote.Client.Run].
func (n *Node) Run(ctx context.Context, cmd provision.Command) error {
	cmd.Env = append(n.environment(), cmd.Env...)
	return n.host.Run(ctx, cmd)
}

// Put writes a file, as root; see [remote.Client.Put].
func (n *Node) Put(ctx context.Context, file provision.File) (changed bool, err error) {
	if !path.IsAbs(file.Path) {
		file.Path = path.Join(dir, file.Path)
	}
	return n.host.Put(ctx, file)
}

// Shell returns the login shell of the user who logs in, whose prompt has the
// node's name from the machine's hostname.
func (n *Node) Shell() provision.Command {
	return provision.Command{Argv: []string{"su", "-l", n.user}, Interactive: true}
}

// Dial connects from the machine; see [remote.Client.DialContext].
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.host.DialContext(ctx, network, address)
}

// Uplink returns the interface of the machine's default route, as it stands now;
// where there is none, the one by which SSH reaches it.
func (n *Node) Uplink(ctx context.Context) (topo.Uplink, error) {
	s, err := look(ctx, n.host, n.user, lookUplink)
	if err != nil {
		return topo.Uplink{}, fmt.Errorf("%s: %w", n.name, err)
	}
	u := s.uplink()
	if u.Interface == "" {
		return u, fmt.Errorf("%s: it has no default route, and none of its interfaces has the address that SSH reaches it by", n.name)
	}
	return u, nil
}
