package machine

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/provision/providertest"
)

const threeLinks = `apiVersion: labctl/v1
kind: Topology
metadata: {name: LAB}
networks:
  left: {cidr: 192.168.10.0/24}
  right: {cidr: 192.168.20.0/24, mtu: 1400}
nodes:
  b:
    role: host
    interfaces: {eth1: {network: right, address: 192.168.20.1/24}}
  a:
    role: host
    interfaces:
      eth1: {network: left, address: 192.168.10.100/24}
      eth2: {network: right, address: 192.168.20.100/24}
    routes:
      - {to: 172.30.0.0/16, via: 192.168.20.1}
`

// lender is a lab of one box, whose devices eth1 and eth2 have work of their own
// when they are lent: eth2 as ens6.
func lender(t *testing.T) (p *pair, a *box) {
	t.Helper()
	p = &pair{t: t, dataDir: t.TempDir(), topology: providertest.Load(t, providertest.Name(), threeLinks), boxes: map[string]*box{}}
	p.topology.Nodes = p.topology.Nodes[1:]
	a = newBox(t, "a")
	p.boxes["a"] = a
	p.devices = map[string]map[string]string{"a": {"eth2": "ens6"}}
	p.machines = p.newMachines(p.dataDir)
	a.run("sh", "-ec", `
ip link add eth1 type veth peer name far1
ip link add ens6 type veth peer name far2
ip link set far1 up
ip link set far2 up
ip link set eth1 up
ip link set ens6 up
ip addr add 198.51.100.9/24 brd + dev eth1
ip addr add 198.51.101.9/24 brd + dev ens6
ip route add 203.0.113.0/24 via 198.51.100.1
ip route add 203.0.114.0/24 via 198.51.101.1 proto static`)
	return p, a
}

// TestLent gives devices back with the routes that they had.
func TestLent(t *testing.T) {
	p, a := lender(t)
	before := map[string]string{"a": a.snapshot()}
	p.mustEnsure()
	if got := p.mustEnsure(); got != "" {
		t.Errorf("the second time changed:\n%s", got)
	}
	if _, err := p.clean(t.Context(), p.machines); err != nil {
		t.Fatal(err)
	}
	p.wantAsFound(before)
}

// TestLaterDevice: what came after the machine was found goes back without the lab's address.
func TestLaterDevice(t *testing.T) {
	p, a := lender(t)
	p.devices = nil
	whole := p.topology
	p.topology = providertest.Load(t, whole.Metadata.Name, strings.Split(threeLinks, "      eth2:")[0])
	p.topology.Nodes = p.topology.Nodes[1:]
	p.mustEnsure()
	a.run("sh", "-ec", "ip link add eth2 type veth peer name far3; ip link set far3 up")
	p.topology = whole
	if got := p.mustEnsure(); !strings.Contains(got, "a: changed eth2 (MTU 1400, was 1500, 192.168.20.100/24, up, was down)") {
		t.Errorf("with eth2, up says\n%s", got)
	}
	if _, err := p.clean(t.Context(), p.machines); err != nil {
		t.Fatal(err)
	}
	if got := a.run("ip", "-4", "-o", "addr", "show", "dev", "eth2"); got != "" {
		t.Errorf("eth2 keeps %s", got)
	}
}

// TestInterfaceLeaves takes an interface out of the topology: its device is the
// machine's again, with the name, the addresses and the routes that it had.
func TestInterfaceLeaves(t *testing.T) {
	p, a := lender(t)
	const look = "ip -br -4 addr show dev ens6; ip route show dev ens6"
	before, device := map[string]string{"a": a.snapshot()}, a.run("sh", "-c", look)
	p.mustEnsure()
	whole := p.topology
	p.topology = providertest.Load(t, whole.Metadata.Name, strings.Split(threeLinks, "      eth2:")[0])
	p.topology.Nodes = p.topology.Nodes[1:]
	p.devices = nil
	want := "a: removed route 172.30.0.0/16 via 192.168.20.1\na: removed eth2 (the machine's own again)"
	if got := p.mustEnsure(); !strings.Contains(got, want) {
		t.Errorf("without eth2, up says\n%s\nwant\n%s", got, want)
	}
	if diff := cmp.Diff(device, a.run("sh", "-c", look)); diff != "" {
		t.Errorf("the device (-before +after):\n%s", diff)
	}
	if got := p.mustEnsure(); got != "" {
		t.Errorf("once more, up says\n%s", got)
	}
	if _, err := p.clean(t.Context(), p.machines); err != nil {
		t.Fatal(err)
	}
	p.wantAsFound(before)
}

// TestCutInBatch has ip(8) stop in the middle: the second device does not take its
// MTU. All that was done before is undone.
func TestCutInBatch(t *testing.T) {
	p, a := lender(t)
	a.run("sh", "-ec", "ip link del ens6; ip link add low type dummy 2>/dev/null || ip link add low type ifb; ip link set low mtu 1300; ip link add ens6 link low type macvlan")
	before := map[string]string{"a": a.snapshot()}
	texts, err := p.ensure(t.Context(), p.machines)
	if err == nil || !strings.Contains(err.Error(), "network: ") {
		t.Fatalf("an MTU that cannot be: %v, %q", err, texts)
	}
	if got := a.run("ip", "-br", "-4", "addr", "show", "dev", "eth1"); !strings.Contains(got, "192.168.10.100") {
		t.Fatalf("nothing was done before: %s", got)
	}
	if _, err := p.clean(t.Context(), p.machines); err != nil {
		t.Fatal(err)
	}
	p.wantAsFound(before)
}

// TestRefusedBeforeClaim leaves a machine as it is whose own routes are in the lab's way.
func TestRefusedBeforeClaim(t *testing.T) {
	p, a := lender(t)
	a.run("ip", "route", "add", "192.168.10.128/25", "via", "10.0.2.2")
	before := map[string]string{"a": a.snapshot()}
	want := "a: network: the machine's route 192.168.10.128/25 via 10.0.2.2 lies in one of the lab's networks"
	if _, err := p.ensure(t.Context(), p.machines); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	p.wantAsFound(before)
}

// TestCleanSparesAnotherLab has processes of two labs of one name on the machine:
// one is the machine's, the other one's are of namespaces, in cgroups of their own.
func TestCleanSparesAnotherLab(t *testing.T) {
	p, a := lender(t)
	lab := p.topology.Metadata.Name
	p.mustEnsure()
	a.sleeper(lab, "", "3002")
	a.sleeper(lab, "labctl."+lab, "3001")
	if _, err := p.clean(t.Context(), p.machines); err != nil {
		t.Fatal(err)
	}
	ps := a.run("ps", "-e", "-o", "args")
	if strings.Contains(ps, "sleep 3002") || !strings.Contains(ps, "sleep 3001") {
		t.Errorf("3002 is the node's own, 3001 another lab's; what runs:\n%s", ps)
	}
}

// sleeper runs a process of the lab in the box, in a cgroup below the one that is
// named. The cgroup is the host's, but no mount of it is left there.
func (b *box) sleeper(lab, cgroup, seconds string) {
	b.t.Helper()
	const enter = `mount -t cgroup2 none "$1"; cd "$1"
if [ "$2" ]; then mkdir -p "$2/a"; echo $$ >"$2/a/cgroup.procs"; fi
shift 2; cd /; exec nsenter "$@"`
	const leave = `mount -t cgroup2 none "$1"; until rmdir "$1/$2/a" "$1/$2" || [ ! -d "$1/$2" ]; do sleep 0.1; done 2>/dev/null`
	dir := b.t.TempDir()
	inside := b.inside("env", "LABCTL_LAB="+lab, "sh", "-c", "echo; exec sleep "+seconds)
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-ec", enter, "sh", dir, cgroup}, inside...)...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = out.Read(make([]byte, 1)) // it runs
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_, _ = b.try("pkill", "-f", "sleep "+seconds)
		_ = cmd.Wait() // it was killed
		if cgroup != "" {
			_ = exec.Command("unshare", "--mount", "sh", "-c", leave, "sh", dir, cgroup).Run()
		}
	})
}
