package machine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/providertest"
	"github.com/native-routing/labctl/provision/remote"
	"github.com/native-routing/labctl/topologies/topo"
)

// twoNodes has no dummies: not every kernel that tests run on has them.
const twoNodes = `apiVersion: labctl/v1
kind: Topology
metadata: {name: LAB}
networks:
  left: {cidr: 192.168.10.0/24, mtu: 1400}
nodes:
  router:
    role: router
    interfaces:
      eth1: {network: left, address: 192.168.10.200/24}
  a:
    role: host
    interfaces:
      eth1: {network: left, address: 192.168.10.100/24}
    routes:
      - {to: 172.20.0.0/16, via: 192.168.10.200}
      - {to: 10.10.0.0/16, via: 192.168.10.200}
`

// pair is a lab of two boxes.
type pair struct {
	t        *testing.T
	topology *topo.Topology
	machines *Machines
	dataDir  string
	boxes    map[string]*box
	devices  map[string]map[string]string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, dataDir: t.TempDir(), topology: providertest.Load(t, providertest.Name(), twoNodes), boxes: map[string]*box{}}
	for _, node := range p.topology.Nodes.Names() {
		p.boxes[node] = newBox(t, node)
	}
	p.machines = p.newMachines(p.dataDir)
	return p
}

func (p *pair) newMachines(dataDir string) *Machines {
	m := New(Options{DataDir: dataDir})
	p.t.Cleanup(func() { m.Close() })
	return m
}

func (p *pair) access(node string) Access {
	a := p.boxes[node].access()
	a.Devices = p.devices[node]
	return a
}

func (p *pair) ensure(ctx context.Context, m *Machines) ([]string, error) {
	var texts []string
	accesses := map[string]Access{}
	add := func(changes []provision.Change) {
		for _, c := range changes {
			texts = append(texts, c.String())
		}
	}
	for _, node := range p.topology.Nodes.Names() {
		accesses[node] = p.access(node)
		changes, err := m.Ensure(ctx, p.topology, node, accesses[node])
		add(changes)
		if err != nil {
			return texts, err
		}
	}
	changes, err := m.EnsureLinks(ctx, p.topology, accesses)
	add(changes)
	return texts, err
}

func (p *pair) mustEnsure() string {
	p.t.Helper()
	texts, err := p.ensure(p.t.Context(), p.machines)
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Join(texts, "\n")
}

func (p *pair) clean(ctx context.Context, m *Machines) (changes []provision.Change, err error) {
	for _, node := range p.topology.Nodes.Names() {
		done, cleanErr := m.Clean(ctx, p.topology.Metadata.Name, node, p.access(node))
		changes = append(changes, done...)
		err = errors.Join(err, cleanErr)
	}
	return changes, err
}

func TestEnsureAndClean(t *testing.T) {
	p := newPair(t)
	a, router := p.boxes["a"], p.boxes["router"]
	wire(router, "eth1", a, "eth1")
	before := map[string]string{"a": a.snapshot(), "router": router.snapshot()}
	if got := p.mustEnsure(); !strings.Contains(got, "a: created route 10.10.0.0/16 via 192.168.10.200") {
		t.Errorf("the first time:\n%s", got)
	}
	if got := p.mustEnsure(); got != "" {
		t.Errorf("the second time changed:\n%s", got)
	}
	want := `10.0.2.0/24 dev eth0 proto kernel scope link src 10.0.2.15 
10.10.0.0/16 via 192.168.10.200 dev eth1 proto static 
172.20.0.0/16 via 192.168.10.200 dev eth1 proto static 
192.168.10.0/24 dev eth1 proto kernel scope link src 192.168.10.100 
`
	if got := strings.SplitAfterN(a.run("ip", "route"), "\n", 2)[1]; got != want {
		t.Errorf("routes of a:\n%swant:\n%s", got, want)
	}
	for name, address := range map[string]string{"router": "192.168.10.200", "a": "192.168.10.100"} {
		if got := a.run("getent", "ahostsv4", name); !strings.HasPrefix(got, address+" ") {
			t.Errorf("%s is %s", name, got)
		}
	}
	if got := a.run("hostname"); got != "a\n" {
		t.Errorf("the hostname is %q", got)
	}
	a.run("ip", "route", "add", "192.0.2.0/24", "dev", "eth1", "proto", "108")
	if got := a.run("ip", "route", "show", "192.0.2.0/24"); !strings.Contains(got, "proto labctl") {
		t.Errorf("the agent's route is shown as %q", got)
	}
	a.run("ping", "-c1", "-W5", "-q", "-M", "do", "-s", "1372", "router")
	p.login()
	p.mend()
	if changes, err := p.clean(t.Context(), p.machines); err != nil || len(changes) != 2 {
		t.Errorf("clean: %v, %v", changes, err)
	}
	p.wantAsFound(before)
	if changes, err := p.clean(t.Context(), p.machines); err != nil || len(changes) != 0 {
		t.Errorf("clean again: %v, %v", changes, err)
	}
}

// login goes from one node to the other by name.
func (p *pair) login() {
	p.t.Helper()
	// The other's sshd is made to listen where the name leads to.
	p.boxes["router"].run("/usr/sbin/sshd", "-o", "ListenAddress=192.168.10.200", "-o", "PidFile=none", "-o", "UsePAM=no", "-o", "StrictModes=no")
	if got := p.boxes["a"].run("ssh", "-o", "BatchMode=yes", "root@router", "hostname"); got != "router\n" {
		p.t.Errorf("ssh root@router hostname: %q", got)
	}
}

// mend breaks what a student breaks, and wants it told and put right.
func (p *pair) mend() {
	p.t.Helper()
	a := p.boxes["a"]
	for _, test := range []struct{ fault, want string }{
		{"ip route del 10.10.0.0/16", "a: created route 10.10.0.0/16 via 192.168.10.200"},
		{"ip route replace 10.10.0.0/16 via 192.168.10.1", "a: changed route 10.10.0.0/16 (via 192.168.10.200, was via 192.168.10.1)"},
		{"ip route add 172.20.1.0/24 via 10.0.2.2", "a: removed route 172.20.1.0/24 via 10.0.2.2"},
		{"ip route add blackhole 172.20.2.0/24", "a: removed route 172.20.2.0/24 blackhole"},
		{"ip route del 192.168.10.0/24", "a: created route 192.168.10.0/24 dev eth1"},
		{"ip addr add 192.168.10.7/24 dev eth1", "a: changed eth1 (without 192.168.10.7/24)"},
		{"ip addr flush dev eth1", "a: changed eth1 (192.168.10.100/24)\na: created route 172.20.0.0/16 via 192.168.10.200\na: created route 10.10.0.0/16 via 192.168.10.200"},
		{"ip link set eth1 mtu 1280", "a: changed eth1 (MTU 1400, was 1280)"},
		{"echo 0 >/proc/sys/net/ipv4/ip_forward", "a: changed sysctl net/ipv4/ip_forward (1, was 0)"},
		{"hostname other", "a: changed hostname (was other)"},
		{"sed -i /router/d /etc/hosts", "a: changed /etc/hosts"},
		{"nft flush table netdev labctl", "a: created silence of eth0"},
		// What is the machine's own stays.
		{"ip route add 203.0.113.0/24 via 10.0.2.2", ""},
	} {
		a.run("sh", "-c", test.fault)
		if got := p.mustEnsure(); got != test.want {
			p.t.Errorf("%s: up says\n%s\nwant\n%s", test.fault, got, test.want)
		}
	}
	if got := p.mustEnsure(); got != "" {
		p.t.Errorf("mended, up says once more\n%s", got)
	}
	a.run("ip", "route", "del", "203.0.113.0/24")
}

func (p *pair) wantAsFound(before map[string]string) {
	p.t.Helper()
	for node, was := range before {
		if diff := cmp.Diff(was, p.boxes[node].snapshot()); diff != "" {
			p.t.Errorf("%s is not as it was found (-before +after):\n%s", node, diff)
		}
	}
}

// TestSilence has a gateway that answers whatever it gets, and wants nothing of it
// for the lab's addresses, and all of it for others.
func TestSilence(t *testing.T) {
	p := newPair(t)
	a := p.boxes["a"]
	wire(p.boxes["router"], "eth1", a, "eth1")
	gateway := newBox(t, "gateway")
	a.run("ip", "link", "del", "far")
	wire(a, "eth0", gateway, "gate")
	a.run("sh", "-c", "ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2 metric 100")
	gateway.run("sh", "-c", `ip addr flush dev eth0; ip addr add 10.0.2.2/24 dev gate; ip link set gate up promisc on
echo 1 >/proc/sys/net/ipv4/ip_forward; ip route del default; ip addr add 172.20.2.9/32 dev lo; ip addr add 198.51.100.1/32 dev lo; ip route add unreachable 172.20.3.0/24; ip route add unreachable 198.51.100.2`)
	p.mustEnsure()
	a.run("ip", "route", "del", "172.20.0.0/16")
	for to, want := range map[string]string{
		"172.20.2.9": "100% packet loss", "172.20.3.1": "100% packet loss", "198.51.100.1": " 0% packet loss", "198.51.100.2": "+1 errors",
	} {
		if out, _ := a.try("ping", "-n", "-c1", "-W1", to); !strings.Contains(out, want) || strings.HasPrefix(to, "172") && strings.Contains(out, "errors") {
			t.Errorf("ping %s, want %s:\n%s", to, want, out)
		}
	}
}

func TestForeign(t *testing.T) {
	p := newPair(t)
	wire(p.boxes["router"], "eth1", p.boxes["a"], "eth1")
	p.mustEnsure()
	other := providertest.Load(t, providertest.Name(), twoNodes)
	if _, err := p.newMachines(t.TempDir()).Ensure(t.Context(), other, "a", p.access("a")); !errors.Is(err, ErrForeign) {
		t.Errorf("a machine of another lab: %v, want ErrForeign", err)
	}
	if _, err := p.machines.Ensure(t.Context(), p.topology, "router", p.access("a")); !errors.Is(err, ErrForeign) && !errors.Is(err, remote.ErrHostKey) {
		t.Errorf("the machine of another node: %v, want ErrForeign or ErrHostKey", err)
	}
	if changes, err := p.newMachines(t.TempDir()).Clean(t.Context(), other.Metadata.Name, "a", p.access("a")); err != nil || len(changes) > 0 {
		t.Errorf("clean another lab's machine: %v, %v", changes, err)
	}
	if got := p.mustEnsure(); got != "" {
		t.Errorf("the other lab changed:\n%s", got)
	}
	if _, err := p.machines.Open(t.Context(), other.Metadata.Name, "a", p.access("a")); err == nil {
		t.Error("a node of another lab was opened")
	}
}

// TestRename takes devices by their names and addresses, also where two have each
// other's name.
func TestRename(t *testing.T) {
	p := newPair(t)
	a, router := p.boxes["a"], p.boxes["router"]
	wire(router, "ens5", a, "eth2")
	wire(router, "ens6", a, "eth1") // the wrong one
	before := map[string]string{"a": a.snapshot(), "router": router.snapshot()}
	mac := strings.TrimSpace(a.run("cat", "/sys/class/net/eth2/address"))
	p.devices = map[string]map[string]string{"router": {"eth1": "ens5"}, "a": {"eth1": strings.ToUpper(mac)}}
	if got := p.mustEnsure(); !strings.Contains(got, "a: changed eth1 (was eth2)") || !strings.Contains(got, "router: changed eth1 (was ens5)") {
		t.Errorf("changes:\n%s", got)
	}
	if got := p.mustEnsure(); got != "" {
		t.Errorf("the second time changed:\n%s", got)
	}
	a.run("ping", "-c1", "-W5", "-q", "router")
	if _, err := p.clean(t.Context(), p.machines); err != nil {
		t.Fatal(err)
	}
	p.wantAsFound(before)
	p.devices["a"]["eth1"] = "52:54:00:00:00:99"
	if _, err := p.ensure(t.Context(), p.machines); err == nil || !strings.Contains(err.Error(), "there is no device 52:54:00:00:00:99 to become eth1") {
		t.Errorf("a device that is not there: %v", err)
	}
	p.devices["a"]["eth1"] = "eth0"
	if _, err := p.ensure(t.Context(), p.machines); err == nil || !strings.Contains(err.Error(), "the machine is reached by it") {
		t.Errorf("the uplink as a device of the lab: %v", err)
	}
}

// faulty fails at one of its calls, before or after it has done its work.
type faulty struct {
	host
	left  *int
	after bool
}

var errFault = errors.New("fault")

func (f faulty) Run(ctx context.Context, cmd provision.Command) error {
	*f.left--
	if *f.left == 0 && !f.after {
		return errFault
	}
	err := f.host.Run(ctx, cmd)
	if *f.left == 0 && err == nil {
		return errFault
	}
	return err
}

// TestFaults breaks off at every call in turn; the next time goes on from there.
func TestFaults(t *testing.T) {
	p := newPair(t)
	wire(p.boxes["router"], "eth1", p.boxes["a"], "eth1")
	p.topology.Nodes = p.topology.Nodes[1:] // one is enough
	before := map[string]string{"a": p.boxes["a"].snapshot()}
	for _, after := range []bool{false, true} {
		for at, met := 1, true; met; at++ {
			left := at
			m := p.newMachines(p.dataDir)
			m.connect = func(c remote.Config) (host, error) {
				h, err := remote.New(c)
				return faulty{h, &left, after}, err
			}
			_, upErr := p.ensure(t.Context(), m)
			if errors.Is(upErr, errFault) {
				p.mustEnsure()
				if again := p.mustEnsure(); again != "" {
					t.Errorf("fault at call %d, after it %t: up once more:\n%s", at, after, again)
				}
			}
			_, cleanErr := p.clean(t.Context(), m)
			met = errors.Is(upErr, errFault) || errors.Is(cleanErr, errFault)
			what := fmt.Sprintf("fault at call %d, after it %t", at, after)
			if !met && (upErr != nil || cleanErr != nil) {
				t.Fatalf("%s: %v, %v", what, upErr, cleanErr)
			}
			m.Close()
			if _, err := p.clean(t.Context(), p.machines); err != nil {
				t.Fatalf("%s: clean: %v", what, err)
			}
			p.wantAsFound(before)
		}
	}
}
