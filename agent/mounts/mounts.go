//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Private gives the calling thread mounts of its own. What happens on the
// machine later is still seen there, and nothing goes back.
func Private() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate the mounts: %w", err)
	}
	return nil
}

// Bind mounts the file from over the file to. Where there is no file to, there
// is nothing to hide, which is no error.
func Bind(from, to string) error {
	err := unix.Mount(from, to, "", unix.MS_BIND, "")
	if errors.Is(err, unix.ENOENT) {
		if _, missing := os.Stat(to); errors.Is(missing, os.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}

// RenewSys mounts a /sys that shows the calling thread's network namespace; its
// mounts must be its own. What was mounted below /sys moves along.
func RenewSys() error {
	if err := renewSys(); err != nil {
		return fmt.Errorf("renew /sys: %w", err)
	}
	return nil
}

func renewSys() error {
	points, err := Read("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	sys, ok := Top(points, "/sys")
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
	for _, p := range points {
		if p.Parent != sys.ID {
			continue
		}
		tree, err := unix.OpenTree(unix.AT_FDCWD, p.Path, unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open %s: %w", p.Path, err)
		}
		below = append(below, submount{p.Path, tree})
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

// Read reads a mountinfo file, such as /proc/self/mountinfo.
func Read(path string) ([]Point, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(string(text)), nil
}
