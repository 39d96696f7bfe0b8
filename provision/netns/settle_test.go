//go:build linux

package netns_test

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/provision/providertest"
)

// TestWorksAtOnce breaks what a host needs to be reached, by hand and in ways
// that leave something behind elsewhere, and wants the first packet after
// EnsureLinks to come through. Before each fault all hosts know one another.
func TestWorksAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	lab := providertest.Name()
	t.Cleanup(func() { wantGoneAtEnd(t, p, lab) })
	top := providertest.Load(t, lab, providertest.Lab)
	if err := up(p, top); err != nil {
		t.Fatal(err)
	}
	const reach = "ip netns exec LAB.router ping -q -c 1 -W 0.5 192.168.10.100"
	// The second router's Ethernet address, as whoever asked it first learns it.
	const learn = `mac=$(ip -n LAB.second -br link show eth1 | awk '{print $3}'); ` +
		"ip -n LAB.router neigh replace 192.168.10.100 lladdr $mac dev eth1 nud reachable"
	for _, fault := range []string{
		// An ARP request that got lost is repeated a second later.
		"ip -n LAB link set a.eth1 down; ip -n LAB.router neigh flush all; ! ip netns exec LAB.router ping -q -c 1 -W 0.1 192.168.10.100",
		// Where both ends have one number, the kernel may pass a change of carrier
		// on late.
		"ip -n LAB link del a.eth1; ip -n LAB link add a.eth1 index 77 type veth peer name eth1 index 77 netns LAB.a",
		"ip -n LAB link set a.eth1 down; sleep 0.1",
		"ip -n LAB.a link set eth1 down; sleep 0.1",
		"ip -n LAB link set a.eth1 down; sleep 0.01",
		"ip -n LAB link set a.eth1 down; ip -n LAB link set a.eth1 up; ip -n LAB link set a.eth1 down; sleep 0.2",
		"ip -n LAB link set a.eth1 nomaster",
		"ip -n LAB link set br-left down",
		"ip -n LAB link del a.eth1",
		"ip -n LAB.a link set eth1 down",
		"ip -n LAB.a link set eth1 address 02:00:00:00:00:99; ! " + reach + "; ip -n LAB.router neigh flush all; " + reach,
		"ip -n LAB.second addr add 192.168.10.100/24 dev eth1; " + learn,
		"ip -n LAB.second addr add 192.168.10.100/24 dev eth1; ip -n LAB.a addr del 192.168.10.100/24 dev eth1; ip -n LAB.router neigh flush all; " + reach,
	} {
		run(t, lab, reach)
		if out, err := exec.Command("sh", "-c", strings.ReplaceAll(fault, "LAB", "labctl."+lab)).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", fault, err, out)
		}
		start := time.Now()
		if changes, err := p.EnsureLinks(t.Context(), top); err != nil || len(changes) == 0 {
			t.Errorf("%s: %v, %v", fault, changes, err)
		}
		took := time.Since(start)
		ports := run(t, lab, "bridge -n LAB link")
		run(t, lab, reach)
		if strings.Count(ports, "\n") != strings.Count(ports, " state forwarding ") {
			t.Errorf("%s: ports:\n%s", fault, ports)
		}
		t.Logf("%s\n  mended in %s", fault, took)
	}
}

func run(t *testing.T, lab, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", strings.ReplaceAll(script, "LAB", "labctl."+lab)).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// TestForgetsOnlyWhatIsWrong wants entries kept that are right or permanent.
func TestForgetsOnlyWhatIsWrong(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	lab := providertest.Name()
	t.Cleanup(func() { wantGoneAtEnd(t, p, lab) })
	top := providertest.Load(t, lab, providertest.Lab)
	if err := up(p, top); err != nil {
		t.Fatal(err)
	}
	const entries = "ip -n LAB.router neigh show dev eth1 | awk '{print $1}' | sort"
	run(t, lab, "ip netns exec LAB.router ping -q -c 1 -W 1 192.168.10.201; ip -n LAB.router neigh add 192.168.10.7 lladdr 02:00:00:00:00:07 dev eth1; "+
		"ip -n LAB.router neigh add 192.168.10.8 lladdr 02:00:00:00:00:08 dev eth1 nud reachable; ip -n LAB.second addr add 192.168.10.8/24 dev eth1")
	if _, err := p.EnsureLinks(t.Context(), top); err != nil {
		t.Fatal(err)
	}
	if got := run(t, lab, entries); got != "192.168.10.201\n192.168.10.7\n" {
		t.Errorf("left on the router:\n%s", got)
	}
}

func TestLabs(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	elsewhere := netns.Options{RunDir: t.TempDir(), DataDir: t.TempDir()}
	for _, test := range []struct{ name, command string }{
		{"whole", "true"},
		{"after a restart of the machine", "umount RUN/LAB/ns/* RUN/LAB/bpf; rm -r RUN/LAB; rm /run/netns/labctl.LAB*"},
		{"names only", "umount RUN/LAB/ns/* RUN/LAB/bpf; rm -r RUN/LAB DATA/LAB"},
		{"run directory only", "rm -r DATA/LAB /run/netns/labctl.LAB* /etc/netns/labctl.LAB*"},
	} {
		lab := providertest.Name()
		p, other := netns.New(elsewhere), netns.New(netns.Options{})
		t.Cleanup(func() { wantGoneAtEnd(t, p, lab) })
		if err := up(p, providertest.Load(t, lab, providertest.Lab)); err != nil {
			t.Fatal(err)
		}
		script := strings.NewReplacer("RUN", elsewhere.RunDir, "DATA", elsewhere.DataDir, "LAB", lab).Replace(
			"mkdir DATA/t-core; touch DATA/t-core/state.json DATA/LAB/lock RUN/file; mkdir -p RUN/Not_a_lab; " + test.command)
		if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		if got, err := p.Labs(t.Context()); err != nil || strings.Join(got, " ") != lab {
			t.Errorf("%s: %q, %v; want %s", test.name, got, err, lab)
		}
		if got, err := other.Labs(t.Context()); err != nil || strings.Contains(strings.Join(got, " ")+" ", lab+" ") {
			t.Errorf("%s: the provider of other directories says %q, %v", test.name, got, err)
		}
		if _, err := p.Destroy(t.Context(), lab); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Labs(t.Context()); err != nil || len(got) > 0 {
			t.Errorf("%s: after Destroy: %q, %v", test.name, got, err)
		}
		run(t, lab, "rm -r "+elsewhere.DataDir+"/t-core")
	}
}

// TestTrap wants a command that is cut short to end in its own way.
func TestTrap(t *testing.T) {
	_, n := oneNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	_ = n.Run(ctx, provision.Command{Stdout: &out, Argv: []string{"sh", "-c",
		"trap 'echo hung up; exit 1' HUP; trap 'echo ended in order; exit 3' TERM; sleep 60 & wait"}})
	if out.String() != "ended in order\n" {
		t.Errorf("the command said %q", out.String())
	}
}
