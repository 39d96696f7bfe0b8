//go:build linux && amd64

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/mounts"
)

// private are the directories of libvirt that are the bed's own.
var private = []string{"/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"}

// beInit is the first process of the bed: it makes the place, starts the
// program, and buries whoever dies, as an init must. All end with it.
func beInit(dir string) (int, error) {
	if err := furnish(dir); err != nil {
		return 0, err
	}
	cmd := executeAnew(context.Background(), roleInside)
	program, err := os.StartProcess(cmd.Path, cmd.Args, &os.ProcAttr{Env: cmd.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 0, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case pid == program.Pid && status.Signaled():
			return 0, fmt.Errorf("ended by signal: %s", status.Signal())
		case pid == program.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// furnish gives the process's fresh namespaces what belongs there.
func furnish(dir string) error {
	// Nothing of this goes back to the machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separate the mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := mounts.RenewSys(); err != nil {
		return err
	}
	// No socket of the machine is seen: neither of systemd, nor of D-Bus, nor of its libvirt.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, target := range private {
		own := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(target, "/"), "/", "-"))
		if err := os.Mkdir(own, 0o755); err != nil {
			return err
		}
		if err := mounts.Bind(own, target); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
