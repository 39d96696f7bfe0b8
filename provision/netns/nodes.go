//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// EnsureNode makes the node's namespaces, its names on the machine, and its
// files. A namespace that exists is taken as it is.
func (p *Provider) EnsureNode(ctx context.Context, t *topo.Topology, node string) ([]provision.Change, error) {
	if _, ok := t.Nodes.Get(node); !ok {
		return nil, fmt.Errorf("%s: not in the topology: %w", node, provision.ErrNotFound)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lab := t.Metadata.Name
	defer p.lock(lab, node)()
	at := p.options.paths(lab)
	if err := at.checkLengths(node); err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	changes, err := p.ensureFiles(at, t)
	if err != nil {
		return changes, fmt.Errorf("%s: %w", node, err)
	}
	made, err := p.ensureNode(at, t, node)
	changes = append(changes, made...)
	if err != nil {
		return changes, fmt.Errorf("%s: %w", node, err)
	}
	return changes, nil
}

// ensureFiles lets one node at a time look after the lab's files.
func (p *Provider) ensureFiles(at paths, t *topo.Topology) ([]provision.Change, error) {
	defer p.lock(at.lab, "@files")()
	return ensureFiles(at, t)
}

func (p *Provider) ensureNode(at paths, t *topo.Topology, node string) ([]provision.Change, error) {
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{{at.nsDir(), 0o755}, {at.runNode(node), 0o700}, {at.dataNode(node), 0o755}} {
		if err := makeDir(dir.path, dir.mode); err != nil {
			return nil, err
		}
	}
	missing, err := missingNamespaces(at, node)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		if err := makeNamespaces(missing, node); err != nil {
			return nil, err
		}
	}
	linked, err := ensureSymlinks(at, node, etcOf(at, t, node))
	if err != nil {
		return nil, err
	}
	n, _ := t.Nodes.Get(node)
	pinned, err := p.ensurePins(at, node, n.PodCIDR.IsValid())
	if err != nil {
		return nil, err
	}
	grouped, err := p.ensureCgroup(at, node)
	if err != nil {
		return nil, err
	}
	return nodeChanges(at, node, missing, linked, pinned, grouped), nil
}

// nodeChanges says what was made of a node that was there in part; a node that
// was not is one change.
func nodeChanges(at paths, node string, missing []nsType, linked, pinned, grouped bool) []provision.Change {
	change := provision.Change{Verb: provision.Created, Node: node, Object: "namespace " + at.name(node)}
	switch {
	case len(missing) == 2:
		return []provision.Change{change}
	case len(missing) == 1:
		change.Verb, change.Detail = provision.Changed, "was half made"
		return []provision.Change{change}
	}
	var changes []provision.Change
	if linked {
		change.Verb, change.Detail = provision.Changed, "its name was not there"
		changes = append(changes, change)
	}
	if pinned {
		changes = append(changes, provision.Change{Verb: provision.Created, Node: node, Object: "BPF directory"})
	}
	if grouped {
		changes = append(changes, provision.Change{Verb: provision.Created, Node: node, Object: "cgroup"})
	}
	return changes
}

// nsType is one of a node's namespaces.
type nsType struct {
	flag int    // CLONE_NEW…
	proc string // its name under /proc/<pid>/ns
	file string // where it is mounted
}

// missingNamespaces are those that are not mounted.
func missingNamespaces(at paths, node string) ([]nsType, error) {
	types := []nsType{{unix.CLONE_NEWNET, "net", at.net(node)}}
	if node != "" {
		types = append(types, nsType{unix.CLONE_NEWUTS, "uts", at.uts(node)})
	}
	var missing []nsType
	for _, t := range types {
		f, err := openNS(t.file)
		switch {
		case err == nil:
			f.Close()
		case absent(err):
			missing = append(missing, t)
		default:
			return nil, err
		}
	}
	return missing, nil
}

// makeNamespaces makes the namespaces, tunes them, and only then mounts them:
// one that is mounted is whole. The fabric's has no node's name.
func makeNamespaces(types []nsType, node string) error {
	return onThread(func() error {
		for _, t := range types {
			if err := unix.Unshare(t.flag); err != nil {
				return fmt.Errorf("make a %s namespace: %w", t.proc, permission(err))
			}
			if t.flag == unix.CLONE_NEWUTS {
				if err := unix.Sethostname([]byte(node)); err != nil {
					return fmt.Errorf("set the hostname: %w", err)
				}
			} else if err := tune(node != ""); err != nil {
				return err
			}
			if err := mountNamespace(t); err != nil {
				return err
			}
		}
		return nil
	})
}

func mountNamespace(t nsType) error {
	f, err := os.OpenFile(t.file, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount("/proc/thread-self/ns/"+t.proc, t.file, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the %s namespace on %s: %w", t.proc, t.file, permission(err))
	}
	return nil
}

// permission lets errors.Is find provision.ErrPermission.
func permission(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w (%s)", provision.ErrPermission, err, rightsCure())
	}
	return err
}

// ensureFabric makes the namespace that holds the networks.
func (p *Provider) ensureFabric(ctx context.Context, at paths) ([]provision.Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := makeDir(at.nsDir(), 0o755); err != nil {
		return nil, err
	}
	missing, err := missingNamespaces(at, "")
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		if err := makeNamespaces(missing, ""); err != nil {
			return nil, fmt.Errorf("fabric: %w", err)
		}
	}
	if _, err := ensureSymlink(at.net(""), at.netnsLink("")); err != nil {
		return nil, fmt.Errorf("fabric: %w", err)
	}
	if len(missing) > 0 {
		return []provision.Change{{Verb: provision.Created, Object: "namespace " + at.name("")}}, nil
	}
	return nil, nil
}

// ensureSymlinks gives the node its names for ip netns.
func ensureSymlinks(at paths, node, etc string) (changed bool, err error) {
	named, err := ensureSymlink(at.net(node), at.netnsLink(node))
	if err != nil {
		return false, err
	}
	filed, err := ensureSymlink(etc, at.etcLink(node))
	return named || filed, err
}

// ensureSymlink makes path a symlink to target. A name of ours that is no
// symlink was made by somebody else, and is not taken away.
func ensureSymlink(target, path string) (changed bool, err error) {
	for try := 0; ; try++ {
		if now, err := os.Readlink(path); err == nil && now == target {
			return false, nil
		}
		info, err := os.Lstat(path)
		switch {
		case err == nil && info.Mode()&fs.ModeSymlink == 0:
			return false, fmt.Errorf("%s is there and is not labctl's (ip netns del %s)", path, filepath.Base(path))
		case err == nil:
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if err := makeDir(filepath.Dir(path), 0o755); err != nil {
			return false, err
		}
		err = os.Symlink(target, path)
		if err == nil {
			return true, nil
		}
		// Another lab's end may have taken the directory away meanwhile.
		if try == maxTries || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return false, err
		}
	}
}

// maxTries bounds how often a directory that another lab took away is made again.
const maxTries = 10

// makeDir makes a directory of that mode and its parents.
func makeDir(path string, mode fs.FileMode) error {
	for try := 0; ; try++ {
		err := os.Mkdir(path, mode)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return nil
		}
		if try == maxTries || !errors.Is(err, fs.ErrNotExist) {
			return permission(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return permission(err)
		}
	}
}

// OpenNode opens a node that runs.
func (p *Provider) OpenNode(_ context.Context, lab, node string) (provision.Node, error) {
	at := p.options.paths(lab)
	if node == "" || strings.ContainsAny(node, "/@") {
		return nil, fmt.Errorf("%q: %w", node, provision.ErrNotFound)
	}
	n := &Node{provider: p, at: at, name: node, etc: at.etc()}
	if pointsTo(at.etcLink(node), at.etcPods()) {
		n.etc = at.etcPods()
	}
	for path, file := range map[string]**os.File{at.net(node): &n.net, at.uts(node): &n.uts} {
		f, err := openNS(path)
		if absent(err) {
			n.Close()
			return nil, fmt.Errorf("%s: %w in lab %s (labctl up makes it)", node, provision.ErrNotFound, lab)
		}
		if err != nil {
			n.Close()
			return nil, fmt.Errorf("%s: %w", node, err)
		}
		*file = f
	}
	if dir := filepath.Join(labCgroup(p.options.cgroupRoot(), lab), node); isDirectory(dir) {
		n.cgroup = dir
	}
	return n, nil
}
