//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/mounts"
)

const (
	// mountSource is the word in mountinfo that marks the provider's own mounts.
	mountSource = "labctl"

	// A process that was killed keeps its cgroup busy until it is through its exit.
	cgroupBusyLimit = 2 * time.Second
	cgroupBusyPoll  = 500 * time.Microsecond
)

// cgroupRoot is the directory of a cgroup2 mount in which the provider may make
// its own; empty where there is none. All mounts show one hierarchy, so it does
// not matter which one it is.
func (o Options) cgroupRoot() string {
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", o.ownCgroups()} {
		if usableCgroups(path) {
			return path
		}
	}
	points, err := mounts.Read("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for _, p := range points {
		if p.Kind == "cgroup2" && usableCgroups(p.Path) {
			return p.Path
		}
	}
	return ""
}

func usableCgroups(path string) bool {
	return isOn(path, unix.CGROUP2_SUPER_MAGIC) && unix.Access(path, unix.W_OK) == nil
}

// isOn says whether path is in a file system of that kind (statfs(2)).
func isOn(path string, magic int64) bool {
	var on unix.Statfs_t
	return unix.Statfs(path, &on) == nil && int64(on.Type) == magic
}

// labCgroup is empty where root is.
func labCgroup(root, lab string) string {
	if root == "" {
		return ""
	}
	return filepath.Join(root, namePrefix+lab)
}

// ensureCgroup makes the node's cgroup; on a machine that lets nobody make one
// it does nothing, which Preflight has said. No controller is enabled below
// the lab's, so processes may be in any of its cgroups (cgroups(7), "no internal
// processes").
func (p *Provider) ensureCgroup(at paths, node string) (made bool, err error) {
	for try := 0; ; try++ {
		root := p.cgroups()
		if root == "" {
			return false, nil
		}
		dir := filepath.Join(labCgroup(root, at.lab), node)
		made := !exists(dir)
		if err := makeDir(dir, 0o755); err != nil {
			return false, fmt.Errorf("make cgroup %s: %w", dir, err)
		}
		// Another lab's end may have taken away the mount that it was to be in.
		if isOn(dir, unix.CGROUP2_SUPER_MAGIC) {
			if !made {
				setFrozen(dir, "0") // by an end that was cut short
			}
			return made, nil
		}
		if try == maxTries {
			return false, fmt.Errorf("%s is in no cgroup2 hierarchy", dir)
		}
		_ = os.Remove(dir)
		_ = os.Remove(filepath.Dir(dir))
	}
}

// cgroups is cgroupRoot, with a mount of the provider's own where there is none.
func (p *Provider) cgroups() string {
	if root := p.options.cgroupRoot(); root != "" {
		return root
	}
	defer p.lock("", "@cgroup2")()
	own := p.options.ownCgroups()
	if usableCgroups(own) {
		return own
	}
	if makeDir(own, 0o755) != nil ||
		unix.Mount(mountSource, own, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") != nil || !usableCgroups(own) {
		return ""
	}
	return own
}

// dropCgroups takes the provider's own mount away with the last lab. One that
// comes at this very moment mounts it again.
func (p *Provider) dropCgroups(lab string) error {
	own := p.options.ownCgroups()
	others := slices.DeleteFunc(subdirectories(p.options.run()), func(name string) bool { return name == lab || name == cgroupsFile })
	if !exists(own) || len(others) > 0 {
		return nil
	}
	defer p.lock("", "@cgroup2")()
	points, err := mounts.Read("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for range points {
		if top, ok := mounts.Top(points, own); !ok || top.Source != mountSource || top.Kind != "cgroup2" {
			break
		}
		// Not detached: what somebody still uses stays.
		if err := unix.Unmount(own, unix.UMOUNT_NOFOLLOW); err != nil {
			if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
				return nil
			}
			return fmt.Errorf("unmount %s: %w", own, permission(err))
		}
		if points, err = mounts.Read("/proc/self/mountinfo"); err != nil {
			return err
		}
	}
	_ = unix.Rmdir(own)
	return nil
}

// cgroupMembers maps the processes in the lab's cgroups to the nodes that those
// belong to; what is in the lab's own has none.
func cgroupMembers(lab string, wanted func(node string) bool) map[int]string {
	members := map[int]string{}
	if lab == "" {
		return members
	}
	if wanted("") {
		addMembers(members, lab, "")
	}
	for _, node := range subdirectories(lab) {
		if wanted(node) {
			addTree(members, filepath.Join(lab, node), node)
		}
	}
	return members
}

func addTree(members map[int]string, dir, node string) {
	addMembers(members, dir, node)
	for _, name := range subdirectories(dir) {
		addTree(members, filepath.Join(dir, name), node)
	}
}

func addMembers(members map[int]string, dir, node string) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return // it has gone, and whoever was in it
	}
	for line := range strings.Lines(string(text)) {
		// One of another PID namespace is 0.
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
			members[pid] = node
		}
	}
}

// subdirectories is empty for a directory that is not there.
func subdirectories(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// cgroupNode is the node of the lab in whose cgroup the process is. The path in
// /proc begins at the reader's own root, which need not be the mount's.
func cgroupNode(pid int, lab string) (node string, ok bool) {
	text, err := os.ReadFile(procPath(pid, "cgroup"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(text)) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		_, below, ok := strings.Cut(path+"/", "/"+namePrefix+lab+"/")
		node, _, _ = strings.Cut(below, "/")
		return node, ok
	}
	return "", false
}

// leaveCgroup takes labctl itself out of the nodes that it is about to end: a
// person may have started it in a node's shell.
func (p paths) leaveCgroup(wanted func(node string) bool) error {
	if p.cgroup == "" {
		return nil
	}
	if node, in := cgroupNode(os.Getpid(), p.lab); !in || !wanted(node) {
		return nil
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(p.cgroup), "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("leave the cgroup of lab %s: %w (run it outside of the lab)", p.lab, err)
	}
	return nil
}

// freezeCgroups stops the nodes' processes where they are, so that none forks
// faster than it can be counted; SIGKILL ends them nevertheless. cgroup.kill
// would do both at once, but a process that is cloned into a cgroup which was
// ever killed so dies at its start (seen on Linux 6.18), and an end that was cut
// short would leave such a one to the next up.
func (p paths) freezeCgroups(wanted func(node string) bool) {
	for _, node := range subdirectories(p.cgroup) {
		if wanted(node) {
			setFrozen(filepath.Join(p.cgroup, node), "1")
		}
	}
}

// setFrozen does nothing to a cgroup that has gone, or on a kernel before 5.2.
func setFrozen(dir, value string) {
	_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte(value), 0)
}

// removeCgroup removes a node's cgroup; the lab's with no node named.
func (p paths) removeCgroup(ctx context.Context, node string) (bool, error) {
	if p.cgroup == "" {
		return false, nil
	}
	return removeCgroup(ctx, filepath.Join(p.cgroup, node))
}

// removeCgroup removes a cgroup with those below, the deepest first.
func removeCgroup(ctx context.Context, dir string) (bool, error) {
	for _, name := range subdirectories(dir) {
		if _, err := removeCgroup(ctx, filepath.Join(dir, name)); err != nil {
			return false, err
		}
	}
	for limit := time.Now().Add(cgroupBusyLimit); ; {
		err := unix.Rmdir(dir)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.ENOENT):
			return false, nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(limit):
			return false, fmt.Errorf("remove cgroup %s: %w", dir, permission(err))
		}
		if err := sleep(ctx, cgroupBusyPoll); err != nil {
			return false, err
		}
	}
}
