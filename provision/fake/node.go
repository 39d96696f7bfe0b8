package fake

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

type file struct {
	mode fs.FileMode
	sum  [sha256.Size]byte
	size int
}

type service struct {
	argv       []string
	executable file
}

// Node is a provision.Node. It fails with provision.ErrNotFound once it is destroyed.
type Node struct {
	provider  *Provider
	lab, name string
}

var _ provision.Node = (*Node)(nil)

// Name returns the node's name.
func (n *Node) Name() string { return n.name }

// Dir returns a path that exists nowhere.
func (n *Node) Dir() string { return path.Join("/fake/data", n.lab, n.name) }

// RunDir returns a path that exists nowhere.
func (n *Node) RunDir() string { return path.Join("/fake/run", n.lab, n.name) }

// Uplink returns VirtualBox's.
func (n *Node) Uplink(context.Context) (topo.Uplink, error) { return topo.NATUplink(), nil }

// Arch returns this machine's architecture.
func (n *Node) Arch() string { return runtime.GOARCH }

// Shell returns sh.
func (n *Node) Shell() provision.Command {
	return provision.Command{Argv: []string{"sh", "-i"}, Interactive: true}
}

// Close does nothing.
func (n *Node) Close() error { return nil }

// do is for calls that need the node to be there.
func (n *Node) do(ctx context.Context, method, detail string, work func(*machine) error) error {
	call := Call{Method: "Node." + method, Lab: n.lab, Node: n.name, Detail: detail}
	return n.provider.do(ctx, call, func() error {
		m := n.provider.machine(n.lab, n.name)
		if m == nil {
			return fmt.Errorf("%s: %w", n.name, provision.ErrNotFound)
		}
		return work(m)
	})
}

// Run calls the provider's Run.
func (n *Node) Run(ctx context.Context, cmd provision.Command) error {
	err := n.do(ctx, "Run", strings.Join(cmd.Argv, " "), func(*machine) error { return nil })
	if err != nil || n.provider.Run == nil {
		return err
	}
	return n.provider.Run(ctx, n.lab, n.name, cmd)
}

// Put remembers the file.
func (n *Node) Put(ctx context.Context, put provision.File) (changed bool, err error) {
	err = n.do(ctx, "Put", put.Path, func(m *machine) error {
		now := file{mode: put.Mode, sum: sha256.Sum256(put.Content), size: len(put.Content)}
		at := n.path(put.Path)
		was, there := m.files[at]
		changed = !there || was != now
		m.files[at] = now
		return nil
	})
	return changed, err
}

func (n *Node) path(name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join(n.Dir(), name)
}

// EnsureService remembers the service with the executable that Put gave it.
func (n *Node) EnsureService(ctx context.Context, wanted provision.Service) (changes []provision.Change, err error) {
	err = n.do(ctx, "EnsureService", wanted.Name, func(m *machine) error {
		if len(wanted.Argv) == 0 {
			return fmt.Errorf("service %q: no command", wanted.Name)
		}
		now := service{argv: slices.Clone(wanted.Argv), executable: m.files[n.path(wanted.Argv[0])]}
		was, there := m.services[wanted.Name]
		if there && wanted.Restart == "" && was.executable == now.executable && slices.Equal(was.argv, now.argv) {
			return nil
		}
		m.services[wanted.Name] = now
		changes = []provision.Change{{Verb: provision.Started, Node: n.name, Object: wanted.Name}}
		return nil
	})
	if len(changes) > 0 && n.provider.Started != nil {
		n.provider.Started(n.lab, n.name, wanted)
	}
	return changes, err
}

// Dial calls the provider's Dial.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	err := n.do(ctx, "Dial", network+" "+address, func(*machine) error { return nil })
	if err != nil {
		return nil, err
	}
	if n.provider.Dial == nil {
		return nil, fmt.Errorf("%s: dial %s: %w", n.name, address, errors.ErrUnsupported)
	}
	return n.provider.Dial(ctx, n.lab, n.name, network, address)
}

// BPFDir returns a directory that the provider does not make.
func (n *Node) BPFDir() string { return n.RunDir() + "/bpf" }

// Cgroup returns a directory that the provider does not make.
func (n *Node) Cgroup() string { return n.RunDir() + "/cgroup" }
