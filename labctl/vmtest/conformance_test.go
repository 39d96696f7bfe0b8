//go:build linux && amd64

package vmtest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/inventory"
	"github.com/native-routing/labctl/provision/machine"
	"github.com/native-routing/labctl/provision/providertest"
)

// standsFor maps the nodes of the suite's lab to the VMs that are cabled as it is.
var standsFor = map[string]string{"router": "router", "second": "k8s-w1", "a": "k8s-ctr", "b": "k8s-w0"}

// testConformance runs the suite of all providers on the VMs, as an inventory of
// machines: a VM for each case would take an hour, and what makes a machine a
// node is the same code whoever made the machine. Before, labctl's own lab is
// taken off them; the VMs themselves stay.
func testConformance(u user) {
	var hosts []provision.SSHHost
	u.read(&hosts, "ssh-config")
	at := map[string]provision.SSHHost{}
	machines := machine.New(machine.Options{DataDir: filepath.Join(u.dir, "data")})
	var all sync.WaitGroup
	for _, h := range hosts {
		at[h.Node] = h
		all.Go(func() {
			access := machine.Access{Host: h.HostName, Port: h.Port, User: h.User, KeyFile: h.IdentityFile}
			if _, err := machines.Clean(u.t.Context(), labName, h.Node, access); err != nil {
				u.t.Error(err)
			}
		})
	}
	all.Wait()
	if err := machines.Close(); err != nil {
		u.t.Error(err)
	}
	var file strings.Builder
	file.WriteString("providers:\n  ssh:\n    nodes:\n")
	for node, vm := range standsFor {
		h := at[vm]
		fmt.Fprintf(&file, "      %s: {host: %s, port: %d, user: %s, key: %s}\n", node, h.HostName, h.Port, h.User, h.IdentityFile)
	}
	u.t.Run("Suite", func(t *testing.T) {
		providertest.Run(t, providertest.Subject{
			New: func(t *testing.T) provision.Provider {
				return inventory.New(inventory.Options{DataDir: filepath.Join(bed.Dir, "inventory")})
			},
			Machines: true, Restarts: true, Fixed: true, Providers: file.String(),
			Residue: func(t *testing.T, lab string) []string { return residue(t, at) },
		})
	})
}

// findResidue lists what bears labctl's name on a machine, where it could be.
const findResidue = `find /etc /home /root /run /tmp /usr/local /var /sys/fs/bpf '(' -name '*labctl*' -o -name '*LABCTL*' ')' -print
ip -o link | grep labctl; nft list tables | grep labctl; grep -l labctl /etc/hosts /root/.ssh/* /home/vagrant/.ssh/*; systemctl list-units --all --no-legend '*labctl*'; true`

// residue looks at all machines at once, also when the test is over.
func residue(t *testing.T, at map[string]provision.SSHHost) []string {
	t.Helper()
	var mu sync.Mutex
	var left []string
	var all sync.WaitGroup
	for node, h := range at {
		all.Go(func() {
			out, err := tool(context.Background(), "ssh", "-i", h.IdentityFile, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
				h.User+"@"+h.HostName, "sudo sh -c '"+strings.ReplaceAll(findResidue, "'", `'\''`)+"' 2>/dev/null")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("look at %s: %v", node, err)
			}
			for line := range strings.Lines(out) {
				left = append(left, node+" "+strings.TrimSpace(line))
			}
		})
	}
	all.Wait()
	return left
}
