//go:build linux

package netns_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/provision/providertest"
)

// TestMend breaks what is on the machine in ways that no command in a node can,
// looks at what Observe makes of it, and wants up and down to work.
func TestMend(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	const run, data = "/run/labctl/LAB", "/var/lib/labctl/LAB"
	for _, test := range []struct {
		name, command string
		state         provision.NodeState // of node a
	}{
		{"ip netns del", "ip netns del labctl.LAB.a", provision.NodeBroken},
		{"ip netns del of the fabric", "ip netns del labctl.LAB", provision.NodeRunning},
		{"namespaces unmounted", "umount " + run + "/ns/a.net " + run + "/ns/a.uts", provision.NodeBroken},
		{"hostname unmounted", "umount " + run + "/ns/a.uts", provision.NodeBroken},
		{"names removed", "rm /run/netns/labctl.LAB.a /etc/netns/labctl.LAB.a", provision.NodeBroken},
		{"names point elsewhere", "ln -sfn /nowhere /run/netns/labctl.LAB.a; ln -sfn /nowhere /etc/netns/labctl.LAB.a", provision.NodeRunning},
		{"data directory removed", "rm -r " + data + "/nodes/a", provision.NodeBroken},
		{"run directory removed", "rm -r " + run + "/nodes/a", provision.NodeBroken},
		{"files emptied", "for f in " + data + "/etc/*; do : >$f; done", provision.NodeRunning},
		{"mounted twice", "mount --bind " + run + "/ns/b.net " + run + "/ns/a.net", provision.NodeRunning},
		{"BPF file system unmounted", "umount " + run + "/bpf", provision.NodeBroken},
		{"BPF file system hidden", "mount -t tmpfs tmpfs " + run + "/bpf; mkdir " + run + "/bpf/foreign", provision.NodeBroken},
		{"BPF file system mounted twice", "mount -t bpf labctl " + run + "/bpf; mkdir -p " + run + "/bpf/a/maps", provision.NodeRunning},
		{"BPF directory removed", "rmdir " + run + "/bpf/a", provision.NodeBroken},
		{"cgroup removed", "cd $CGROUP; kill -KILL $(cat cgroup.procs); while ! rmdir $CGROUP; do :; done", provision.NodeBroken},
		{"cgroup frozen", "echo 1 >$CGROUP/cgroup.freeze", provision.NodeRunning},
		{"after a restart of the machine", "umount " + run + "/ns/* " + run + "/bpf; rm -r " + run + "; rm /run/netns/labctl.LAB*", provision.NodeStopped},
		{"a restart, without the names", "umount " + run + "/ns/* " + run + "/bpf; rm -r " + run + "; rm /run/netns/labctl.LAB* /etc/netns/labctl.LAB*", provision.NodeStopped},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) {
			for _, then := range []string{"up", "down"} {
				lab := providertest.Name()
				t.Cleanup(func() { _, _ = p.Destroy(context.Background(), lab) })
				top := providertest.Load(t, lab, providertest.Lab)
				if err := up(p, top); err != nil {
					t.Fatal(err)
				}
				script := strings.ReplaceAll(test.command, "LAB", lab)
				c := exec.Command("sh", "-ec", script)
				c.Env = append(os.Environ(), "CGROUP="+cgroupOf(t, p, lab))
				if out, err := c.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", script, err, out)
				}
				o, err := p.Observe(t.Context(), lab)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range o.Nodes {
					if n.Name == "a" && n.State != test.state {
						t.Errorf("a is %s (%s), want %s", n.State, n.Detail, test.state)
					}
				}
				if then == "up" && test.name != "mounted twice" {
					wantWhole(t, p, top)
				}
				wantGone(t, p, lab)
			}
		})
	}
}

// cgroupOf is that of node a.
func cgroupOf(t *testing.T, p *netns.Provider, lab string) string {
	t.Helper()
	n, err := p.OpenNode(t.Context(), lab, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	return n.Cgroup()
}

// TestForeign leaves alone what has a name like the lab's and is not labctl's,
// and the files of the lab core.
func TestForeign(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	lab := providertest.Name()
	top := providertest.Load(t, lab, providertest.Lab)
	foreign := "labctl." + lab + ".a"
	if out, err := exec.Command("ip", "netns", "add", foreign).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		_ = exec.Command("ip", "netns", "del", foreign).Run()
		// ip-netns(8) makes its directory a mount of its own, and leaves it so.
		_ = exec.Command("umount", "/run/netns").Run()
		_ = os.Remove("/run/netns")
	})
	_, err := p.EnsureNode(t.Context(), top, "a")
	if err == nil || !strings.Contains(err.Error(), "ip netns del "+foreign) {
		t.Errorf("ensure: %v, want the cure", err)
	}
	core := filepath.Join("/var/lib/labctl", lab)
	for _, name := range []string{"state.json", "lock"} {
		if err := os.WriteFile(filepath.Join(core, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.EnsureNode(t.Context(), top, "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Destroy(t.Context(), lab); err != nil {
		t.Fatal(err)
	}
	if o, err := p.Observe(t.Context(), lab); err != nil || !o.Empty() {
		t.Errorf("left: %+v, %v", o, err)
	}
	left := strings.Join(residue(t, lab), "\n")
	if left != core+"\n/run/netns/"+foreign {
		t.Errorf("left:\n%s", left)
	}
	entries, err := os.ReadDir(core)
	if err != nil || len(entries) != 2 {
		t.Errorf("the lab core's files: %v, %v", entries, err)
	}
	if err := os.RemoveAll(core); err != nil {
		t.Fatal(err)
	}
}

// TestProcessesAreFound wants a process gone that has no mark, in a namespace
// that still has its name, and one with the mark whose namespace lost its name.
func TestProcessesAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	lab := providertest.Name()
	t.Cleanup(func() { _, _ = p.Destroy(context.Background(), lab) })
	top := providertest.Load(t, lab, providertest.Lab)
	if err := up(p, top); err != nil {
		t.Fatal(err)
	}
	plain := exec.Command("ip", "netns", "exec", "labctl."+lab+".a", "sleep", "1005")
	if err := plain.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- plain.Wait() }()
	if out, err := exec.Command("ip", "netns", "del", "labctl."+lab+".b").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// ip needs a moment to get there.
	for !strings.Contains(objects(t, p, lab), "sleep 1005") {
	}
	wantGone(t, p, lab)
	if err := <-ended; err == nil {
		t.Error("the process of ip netns exec ended by itself")
	}
}

func objects(t *testing.T, p *netns.Provider, lab string) string {
	t.Helper()
	o, err := p.Observe(t.Context(), lab)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(o.Objects, "\n")
}
