//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// enterMounts gives the calling thread mounts of its own, as ip-netns(8) does
// for its exec: /sys of the thread's network namespace, and the node's files
// over those in /etc. What was mounted below /sys moves along.
func enterMounts(at paths) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", permission(err))
	}
	// What happens on the machine later is still seen, and nothing goes back.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate the mounts: %w", err)
	}
	if err := renewSys(); err != nil {
		return fmt.Errorf("renew /sys: %w", err)
	}
	for _, b := range [][2]string{
		{filepath.Join(at.etc(), "hosts"), "/etc/hosts"},
		{filepath.Join(at.etc(), "resolv.conf"), "/etc/resolv.conf"},
		{"/proc/sys/kernel/hostname", "/etc/hostname"}, // the thread's own
		{filepath.Join(at.data, protocolsFile), protocolPath()},
	} {
		err := unix.Mount(b[0], b[1], "", unix.MS_BIND, "")
		// A machine without that file has nothing to bind over.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("bind %s: %w", b[1], err)
		}
	}
	return nil
}

// renewSys mounts a /sys that shows the thread's network namespace.
func renewSys() error {
	mounts, err := readMounts("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	sys, ok := topMount(mounts, "/sys")
	if !ok {
		return nil
	}
	type submount struct {
		path string
		tree int
	}
	var below []submount
	defer func() {
		for _, s := range below {
			unix.Close(s.tree)
		}
	}()
	for _, m := range mounts {
		if m.parent != sys.id {
			continue
		}
		tree, err := unix.OpenTree(unix.AT_FDCWD, m.path, unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open %s: %w", m.path, err)
		}
		below = append(below, submount{m.path, tree})
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for _, s := range below {
		err := unix.MoveMount(s.tree, "", unix.AT_FDCWD, s.path, unix.MOVE_MOUNT_F_EMPTY_PATH)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("move %s: %w", s.path, err)
		}
	}
	return nil
}

// mountPoint is one line of /proc/<pid>/mountinfo (proc(5)).
type mountPoint struct {
	id, parent int
	path       string
	kind       string
}

func readMounts(path string) ([]mountPoint, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseMounts(string(text)), nil
}

func parseMounts(text string) []mountPoint {
	var mounts []mountPoint
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 7 {
			continue
		}
		m := mountPoint{path: unescape(fields[4])}
		m.id, _ = strconv.Atoi(fields[0])
		m.parent, _ = strconv.Atoi(fields[1])
		for i, f := range fields {
			if f == "-" && i+1 < len(fields) {
				m.kind = fields[i+1]
				break
			}
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// unescape undoes the octal form of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// topMount is the last mount on path, which hides those before it.
func topMount(mounts []mountPoint, path string) (found mountPoint, ok bool) {
	for _, m := range mounts {
		if m.path == path {
			found, ok = m, true
		}
	}
	return found, ok
}
