//go:build linux

package netns

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/mounts"
)

// ensurePins makes the node's directory in the lab's BPF file system. A node
// without pods pins nothing: where the kernel has no BPF an ordinary directory
// serves it.
func (p *Provider) ensurePins(at paths, node string, pods bool) (made bool, err error) {
	mounted, err := p.ensureBPF(at)
	if err != nil && pods {
		return false, err
	}
	dir := at.pins(node)
	made = mounted || !exists(dir)
	if err := makeDir(dir, 0o700); err != nil {
		return false, fmt.Errorf("make %s: %w", dir, err)
	}
	return made, nil
}

// ensureBPF mounts the lab's BPF file system, for one node at a time. What
// hides it is unmounted: the directory is the provider's own.
func (p *Provider) ensureBPF(at paths) (mounted bool, err error) {
	defer p.lock(at.lab, "@bpf")()
	dir := at.bpf()
	if isOn(dir, unix.BPF_FS_MAGIC) {
		return false, nil
	}
	if err := makeDir(dir, 0o700); err != nil {
		return false, err
	}
	points, err := mounts.Read("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	for _, point := range slices.Backward(points) {
		if point.Path != dir {
			continue
		}
		if point.Kind == "bpf" {
			return true, nil
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return false, fmt.Errorf("unmount what hides %s: %w", dir, permission(err))
		}
	}
	if err := unix.Mount(mountSource, dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return false, fmt.Errorf("mount a BPF file system on %s: %w", dir, permission(err))
	}
	return true, nil
}

// ownBPF says that what is at the lab's BPF directory is not somebody's mount
// over it, whose files are not the lab's.
func (p paths) ownBPF() bool {
	if isOn(p.bpf(), unix.BPF_FS_MAGIC) {
		return true
	}
	var here, above unix.Stat_t
	return unix.Lstat(p.bpf(), &here) == nil && unix.Lstat(p.run, &above) == nil && here.Dev == above.Dev
}

// removePins removes a node's directory with all that is pinned there. The
// kernel detaches programs of which that was the last hold.
func removePins(at paths, node string) (bool, error) {
	if !at.ownBPF() {
		return false, nil
	}
	return removeTree(at.pins(node))
}

// removeBPF unmounts the lab's BPF file system as often as it is mounted, and
// removes what is pinned there first: another mount namespace may hold it.
func removeBPF(at paths) (bool, error) {
	dir := at.bpf()
	points, err := mounts.Read("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	removed := false
	for _, point := range slices.Backward(points) {
		if point.Path != dir {
			continue
		}
		if point.Kind == "bpf" && point.Source == mountSource {
			// Beside the nodes' directories the kernel may have files of its own there.
			for _, node := range subdirectories(dir) {
				if _, err := removeTree(at.pins(node)); err != nil {
					return removed, err
				}
			}
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return removed, fmt.Errorf("unmount %s: %w", dir, permission(err))
		}
		removed = true
	}
	return removed, nil
}
