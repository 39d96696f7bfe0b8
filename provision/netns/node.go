//go:build linux

package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// Node is one running node. It stays usable until Close, also where the node is
// destroyed meanwhile.
type Node struct {
	provider *Provider
	at       paths
	name     string
	net, uts *os.File
	// etc is what goes over /etc.
	etc string
	// cgroup is empty on a machine that has none for it.
	cgroup string
}

var _ provision.Node = (*Node)(nil)

// Name returns the node's name in the topology.
func (n *Node) Name() string { return n.name }

// Dir returns the node's directory on this machine, which the node's processes
// see under the same path.
func (n *Node) Dir() string { return n.at.dataNode(n.name) }

// RunDir returns where the node's services keep sockets and locks.
func (n *Node) RunDir() string { return n.at.runNode(n.name) }

// Uplink returns VirtualBox's, which every namespace is given.
func (n *Node) Uplink(context.Context) (topo.Uplink, error) { return topo.NATUplink(), nil }

// Arch returns this machine's architecture.
func (n *Node) Arch() string { return runtime.GOARCH }

// Close lets go of the namespaces.
func (n *Node) Close() error {
	for _, f := range []*os.File{n.net, n.uts} {
		if f != nil {
			f.Close()
		}
	}
	return nil
}

// Shell returns bash, or sh where there is none, with a prompt that names node and lab.
func (n *Node) Shell() provision.Command {
	start := filepath.Join(n.at.data, shellFile)
	if bash, err := exec.LookPath("bash"); err == nil {
		return provision.Command{Argv: []string{bash, "--rcfile", start, "-i"}, Interactive: true}
	}
	return provision.Command{Argv: []string{"sh", "-i"}, Env: []string{"ENV=" + start}, Interactive: true}
}

// environment is what every process of the node has; the marks say whose it is.
func (n *Node) environment() []string {
	return []string{"LABCTL_LAB=" + n.at.lab, "LABCTL_NODE=" + n.name}
}

// inNode runs start on a thread in the node's namespaces, with its mounts.
func (n *Node) inNode(start func() error) error {
	return onThread(func() error {
		if err := enter(n.net, n.uts); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		if err := n.enterMounts(); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		return start()
	})
}

// Dial connects to a unix socket by its path on this machine, or by TCP from
// within the node to a numeric address with a port.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	// Multipath sockets cannot go into a sockmap.
	d.SetMultipathTCP(false)
	switch network {
	case "unix":
		return d.DialContext(ctx, network, address)
	case "tcp", "tcp4":
		if _, err := netip.ParseAddrPort(address); err != nil {
			return nil, fmt.Errorf("%s: dial %s: want a numeric address and port: %w", n.name, address, err)
		}
	default:
		return nil, fmt.Errorf("%s: dial %s: %w", n.name, address, net.UnknownNetworkError(network))
	}
	var conn net.Conn
	err := onThread(func() (err error) {
		if err = enter(n.net); err != nil {
			return err
		}
		// With a numeric address the dialer makes its socket on this very thread.
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.name, err)
	}
	return conn, nil
}

// BPFDir returns the node's directory in the lab's BPF file system.
func (n *Node) BPFDir() string { return n.at.pins(n.name) }

// Cgroup returns the node's directory in the cgroup2 hierarchy; it is empty where
// this machine lets nobody make one, see Preflight.
func (n *Node) Cgroup() string { return n.cgroup }
