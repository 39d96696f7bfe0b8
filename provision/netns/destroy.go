//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
)

const (
	// destroyGrace is between SIGTERM and SIGKILL for what runs in the lab.
	destroyGrace = 100 * time.Millisecond
	// maxRounds bounds how often new processes are looked for.
	maxRounds = 20
)

// Destroy removes the named nodes with their ports in the fabric; with none
// named, everything of the lab but state.json and lock in its data directory,
// which are the lab core's. Processes in the lab's namespaces and cgroups are
// ended first, and those that bear its mark.
// The kernel takes the links away a moment later, by itself.
func (p *Provider) Destroy(ctx context.Context, lab string, nodes ...string) ([]provision.Change, error) {
	at := p.options.paths(lab)
	at.cgroup = labCgroup(p.options.cgroupRoot(), lab)
	whole := len(nodes) == 0
	found, err := scan(at)
	if err != nil {
		return nil, fmt.Errorf("look at lab %s: %w", lab, err)
	}
	targets := nodes
	if whole {
		targets = found.names()
	}
	defer p.lock(lab, "")()
	changes, err := p.endLab(ctx, at, targets, whole)
	if err != nil {
		return changes, fmt.Errorf("end the processes of lab %s: %w", lab, err)
	}
	if !whole {
		if err := removePorts(at, targets); err != nil {
			return changes, fmt.Errorf("remove ports of lab %s: %w", lab, err)
		}
	}
	removed := make([][]provision.Change, len(targets))
	errs := make([]error, len(targets))
	var group errgroup.Group
	group.SetLimit(p.parallel())
	for i, node := range targets {
		group.Go(func() error {
			if errs[i] = ctx.Err(); errs[i] == nil {
				removed[i], errs[i] = p.removeNode(ctx, at, node)
			}
			return nil
		})
	}
	_ = group.Wait()
	changes = slices.Concat(append([][]provision.Change{changes}, removed...)...)
	if err := errors.Join(errs...); err != nil {
		return changes, err
	}
	if !whole {
		return changes, nil
	}
	rest, err := p.removeRest(ctx, at, found)
	return append(changes, rest...), err
}

// endLab ends what runs on the nodes, until nothing does.
func (p *Provider) endLab(ctx context.Context, at paths, nodes []string, whole bool) ([]provision.Change, error) {
	in := spaces{}
	if whole {
		in.add(at, "")
	}
	for _, node := range nodes {
		in.add(at, node)
	}
	wanted := func(node string) bool { return whole || slices.Contains(nodes, node) }
	if err := at.leaveCgroup(wanted); err != nil {
		return nil, err
	}
	search, err := newSearch(at.lab, in, at.cgroup, wanted)
	if err != nil {
		return nil, err
	}
	var changes []provision.Change
	for round := range maxRounds {
		if err := ctx.Err(); err != nil {
			return changes, err
		}
		found, err := search.processes()
		if err != nil || len(found) == 0 {
			return changes, err
		}
		grace := destroyGrace
		if round > 0 {
			// Who is new comes from one that was told to end.
			grace = 0
			at.freezeCgroups(wanted)
			if found, err = search.processes(); err != nil {
				return changes, err
			}
		}
		pids := make([]int, len(found))
		for i, f := range found {
			pids[i] = f.pid
			changes = append(changes, provision.Change{Verb: provision.Removed, Node: f.node,
				Object: fmt.Sprintf("process %d", f.pid), Detail: f.command})
		}
		if err := endProcesses(ctx, pids, grace, search.holds); err != nil {
			return changes, err
		}
	}
	return changes, errors.New("new processes keep appearing in its namespaces")
}

// add takes a namespace that is there; one that is not holds no process by name.
func (s spaces) add(at paths, node string) {
	f, err := openNS(at.net(node))
	if err != nil {
		return
	}
	defer f.Close()
	if ino, err := inode(f); err == nil {
		s[ino] = node
	}
}

// removePorts takes the nodes' ports out of the fabric.
func removePorts(at paths, nodes []string) error {
	f, err := openFabric(at)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for _, l := range f.list {
		if !slices.Contains(nodes, aliasNode(l.Alias)) {
			continue
		}
		w, err := f.write()
		if err != nil {
			return err
		}
		if err := w.deleteNow(l.Name); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) removeNode(ctx context.Context, at paths, node string) ([]provision.Change, error) {
	defer p.lock(at.lab, node)()
	// The names go first: what is half removed is still found by its directories.
	removed, err := removeAll(
		func() (bool, error) { return removeSymlink(at.netnsLink(node)) },
		func() (bool, error) { return removeSymlink(at.etcLink(node)) },
		func() (bool, error) { return unmountFile(at.net(node)) },
		func() (bool, error) { return unmountFile(at.uts(node)) },
		func() (bool, error) { return removePins(at, node) },
		func() (bool, error) { return at.removeCgroup(ctx, node) },
		func() (bool, error) { return removeTree(at.runNode(node)) },
		func() (bool, error) { return removeTree(at.dataNode(node)) },
	)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	if !removed {
		return nil, nil
	}
	return []provision.Change{{Verb: provision.Removed, Node: node, Object: "namespace " + at.name(node)}}, nil
}

// removeRest takes what belongs to no node.
func (p *Provider) removeRest(ctx context.Context, at paths, found leftovers) ([]provision.Change, error) {
	steps := []func() (bool, error){
		func() (bool, error) { return removeSymlink(at.netnsLink("")) },
		func() (bool, error) { return unmountFile(at.net("")) },
		func() (bool, error) { return removeBPF(at) },
		func() (bool, error) { return at.removeCgroup(ctx, "") },
		func() (bool, error) { return false, p.dropCgroups(at.lab) },
	}
	for _, m := range found.mounts {
		steps = append(steps, func() (bool, error) { return unmountFile(m) })
	}
	for _, path := range append(at.stored(), at.run) {
		steps = append(steps, func() (bool, error) { return removeTree(path) })
	}
	removed, err := removeAll(steps...)
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", at.lab, err)
	}
	// Directories that others may share go when they are empty.
	for _, dir := range []string{filepath.Dir(at.run), at.data, filepath.Dir(at.data), netnsDir, etcNetnsDir} {
		_ = unix.Rmdir(dir)
	}
	if !removed {
		return nil, nil
	}
	return []provision.Change{{Verb: provision.Removed, Object: "namespace " + at.name("")}}, nil
}

// removeAll does every step, whatever becomes of the others.
func removeAll(steps ...func() (bool, error)) (removed bool, err error) {
	for _, step := range steps {
		did, stepErr := step()
		removed = removed || did
		err = errors.Join(err, stepErr)
	}
	return removed, err
}

// removeSymlink leaves alone what is no symlink: it is not ours.
func removeSymlink(path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return removeFile(path)
}

func removeFile(path string) (bool, error) {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// unmountFile unmounts as often as something is mounted there, and removes the file.
func unmountFile(path string) (bool, error) {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return false, fmt.Errorf("unmount %s: %w", path, permission(err))
		}
	}
	return removeFile(path)
}

func removeTree(path string) (bool, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	err := os.RemoveAll(path)
	return err == nil, err
}
