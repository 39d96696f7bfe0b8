package vagrant

import (
	"context"
	"fmt"
	"net"
	"os/exec"

	"github.com/native-routing/labctl/provision"
)

// lookAtLibvirt connects to the daemon's socket; either the one of all of
// libvirt or, where it is split up, the one for QEMU.
func (p *Provider) lookAtLibvirt(ctx context.Context) []provision.Finding {
	return append(judgeLibvirt(ctx, "/var/run/libvirt/libvirt-sock", "/var/run/libvirt/virtqemud-sock"), lookAtKVM(), lookAtVirsh())
}

func judgeLibvirt(ctx context.Context, sockets ...string) []provision.Finding {
	var last error
	for _, socket := range sockets {
		c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			c.Close()
			return []provision.Finding{fine("libvirt", socket)}
		}
		if isPermission(err) {
			return []provision.Finding{missing("libvirt", permission{ErrLibvirt}, fmt.Sprintf("no right to connect to %s", socket), cureGroup)}
		}
		if last == nil {
			last = err
		}
	}
	return []provision.Finding{missing("libvirt", ErrLibvirt, last.Error(), cureLibvirt)}
}

func lookAtVirsh() provision.Finding {
	if path, err := exec.LookPath("virsh"); err == nil {
		return fine("virsh", path)
	}
	return missing("virsh", errNoVirsh, "without it what vagrant leaves in libvirt is neither seen nor removed", cureVirsh)
}
