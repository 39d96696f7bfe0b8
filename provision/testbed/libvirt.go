//go:build linux && amd64

package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// qemuConf is for a machine without systemd, D-Bus and KVM. Run as another user
// than root, or with a security driver, a domain without KVM takes minutes to
// start: the probe of QEMU never agrees with itself.
const qemuConf = `user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
`

const libvirtdConf = `auth_unix_rw = "none"
`

// timeToStart is generous: the first start asks QEMU for all that it can.
const timeToStart = 3 * time.Minute

// boxName is the test box's name, in Vagrant's fashion.
const boxName = "labctl/testbox"

// beInside starts what belongs to the bed, and then the program's own work.
func beInside(bed Bed, box string, inside func(Bed) int) (int, error) {
	for name, value := range map[string]string{
		"VAGRANT_HOME":               filepath.Join(bed.Dir, "vagrant.d"),
		"VAGRANT_DEFAULT_PROVIDER":   "libvirt",
		"VAGRANT_CHECKPOINT_DISABLE": "1",
		"LIBVIRT_DEFAULT_URI":        "qemu:///system",
	} {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	for _, name := range []string{roleVariable, dirVariable, boxVariable} {
		if err := os.Unsetenv(name); err != nil {
			return 0, err
		}
	}
	if err := startLibvirt(bed); err != nil {
		return 0, fmt.Errorf("start libvirt: %w", err)
	}
	if out, err := exec.Command("vagrant", "box", "add", "--name", bed.Box, box).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("make the box known: %w\n%s", err, out)
	}
	return inside(bed), nil
}

// startLibvirt returns when the daemon answers. It ends with the bed.
func startLibvirt(bed Bed) error {
	for file, text := range map[string]string{"/etc/libvirt/qemu.conf": qemuConf, "/etc/libvirt/libvirtd.conf": libvirtdConf} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	log, err := os.Create(filepath.Join(bed.Dir, "libvirtd.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	daemon := exec.Command("libvirtd")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	ctx, cancel := context.WithTimeout(context.Background(), timeToStart)
	defer cancel()
	for {
		out, err := exec.CommandContext(ctx, "virsh", "list").CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case err := <-ended:
			text, _ := os.ReadFile(log.Name()) // without it the error stands alone
			return fmt.Errorf("libvirtd ended: %w\n%s", errors.Join(err), bytes.TrimSpace(text))
		case <-ctx.Done():
			return fmt.Errorf("libvirtd does not answer: %s", bytes.TrimSpace(out))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
