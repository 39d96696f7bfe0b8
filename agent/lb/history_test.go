//go:build linux

package lb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// history makes random changes to a cluster, and checks after every single write
// that whoever calls a service gets where he may.
type history struct {
	*world
	dice     *rand.Rand
	cluster  api.Cluster
	tight    bool // maps may be full
	seed     uint64
	trace    []string
	pass     uint64
	checked  uint64
	versions []Contents // that programs may still see a part of
	// readers are programs that have a frontend in hand, and when they looked it up.
	readers map[bpf.DatapathFrontend]time.Time
}

func newHistory(t *testing.T, seed uint64, tight bool) *history {
	k := newKernel(512, 4096, 256)
	if tight {
		k = newKernel(40, 60, 8)
	}
	h := &history{dice: rand.New(rand.NewPCG(seed, 1)), seed: seed, tight: tight, readers: map[bpf.DatapathFrontend]time.Time{}}
	h.cluster = api.Cluster{KubeProxyReplacement: true, Algorithm: "random", Nodes: []api.Node{
		{Name: "k8s-ctr", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15"), netip.MustParseAddr("192.168.10.100")}},
	}}
	h.world = newWorld(t, k)
	k.watch(h.check)
	k.faults(h.dice)
	return h
}

// check is called after every write.
func (h *history) check() {
	if h.checked != h.pass {
		h.checked = h.pass
		h.versions = append(h.versions, Compile(h.input()))
	}
	h.checkReaders()
	for _, inCluster := range []bool{false, true} {
		known := h.known(inCluster)
		for key := range h.kernel.frontends.entries {
			if address := keyOf(key).Address(); known[address] == nil {
				h.fail("%v is in the map and was never wanted", address)
			}
		}
		for address, c := range known {
			h.call(address, c, inCluster)
		}
	}
}

// calls is what may become of those who call one address.
type calls struct {
	present  int // versions that have it
	allowed  []Address
	refusing bool
	scopes   bool      // there are two
	changes  bool      // there are two in one version and one in another
	others   []Address // of the other scope
}

// known are the addresses of all versions.
func (h *history) known(inCluster bool) map[Address]*calls {
	known := map[Address]*calls{}
	for _, v := range h.versions {
		two := map[Address]bool{}
		for _, f := range v.Frontends {
			two[f.Key.Address()] = two[f.Key.Address()] || f.Key.Internal()
		}
		for _, f := range v.Frontends {
			address := f.Key.Address()
			if known[address] == nil {
				known[address] = &calls{scopes: two[address]}
			}
			c := known[address]
			c.changes = c.changes || c.scopes != two[address]
			into := &c.allowed
			if two[address] && f.Key.Internal() != inCluster {
				into = &c.others
			} else {
				c.present++
				c.refusing = c.refusing || f.Count == 0
			}
			usable := f.Backends[:f.Count]
			if h.tight { // terminating ones too, if there is no room for an active one
				usable = f.Backends
			}
			for _, b := range usable {
				*into = append(*into, b.Address)
			}
		}
	}
	return known
}

// call checks where one gets who calls an address now.
func (h *history) call(address Address, c *calls, inCluster bool) {
	f, ok := h.kernel.find(address, inCluster)
	if !ok {
		if c.present == len(h.versions) && len(h.versions) > 1 && !h.tight {
			h.fail("%v is not found (in cluster: %v)", address, inCluster)
		}
		return
	}
	reached := h.kernel.reachable(f)
	if c.changes { // the Maglev table of one scope may be there before the other scope is
		c.allowed = append(c.allowed, c.others...)
	}
	if len(reached) == 0 && !c.refusing && !h.tight {
		h.fail("%v refuses", address)
	}
	for _, backend := range reached {
		if backend == 0 || !slices.Contains(c.allowed, backend) {
			h.fail("%v leads to %v, allowed are %v", address, backend, c.allowed)
		}
	}
}

// checkReaders checks that programs which looked up a frontend just before find
// slots and backends yet.
func (h *history) checkReaders() {
	for f, at := range h.readers {
		if !h.now.Before(at.Add(grace)) {
			delete(h.readers, f)
		} else if reached := h.kernel.reachable(f); slices.Contains(reached, 0) {
			h.fail("who read %+v is led astray to %v", f, reached)
		}
	}
	for _, f := range h.kernel.frontends.entries {
		h.readers[f] = h.now
	}
}

func (h *history) fail(format string, args ...any) {
	h.t.Helper()
	h.t.Logf("seed %d: %v", h.seed, h.trace)
	h.t.Fatalf(format+"\n%s", append(args, h.kernel.dump())...)
}

func (h *history) step() {
	h.pass++
	h.manager.pass()
}

// settle runs passes until the maps are as wanted.
func (h *history) settle() {
	h.t.Helper()
	for range 300 {
		h.step()
		if h.manager.opened && !h.manager.verify {
			e := h.manager.catalog.engine
			if len(e.limbo)+len(e.idle)+len(e.unwritten) == 0 && (len(e.work) == 0 || h.tight && h.refused()) {
				h.versions = []Contents{Compile(h.input())}
				h.checked = h.pass
				return
			}
		}
		h.now = h.now.Add(grace)
	}
	for _, f := range h.manager.catalog.work {
		h.t.Logf("%v owner %v want %+v err %v waiting %v", f.key, f.owner != nil, f.want, f.err, f.waiting)
	}
	h.t.Fatalf("does not converge")
}

func (h *history) refused() bool {
	for _, f := range h.manager.catalog.work {
		if !refused(f.err) && !f.waiting {
			return false
		}
	}
	return true
}

func TestHistories(t *testing.T) {
	count := 1000
	if testing.Short() {
		count = 50
	}
	for seed := range count {
		playHistory(newHistory(t, uint64(seed), false), true)
	}
}

func TestHistoriesOfFullMaps(t *testing.T) {
	for seed := range 300 {
		playHistory(newHistory(t, uint64(seed), true), false)
	}
}

func playHistory(h *history, exact bool) {
	h.t.Helper()
	h.set(h.snapshot())
	h.settle()
	for i := range 12 {
		what := h.change()
		h.trace = append(h.trace, what)
		if h.t.Failed() {
			h.t.Fatalf("seed %d, step %d: %v", h.seed, i, h.trace)
		}
		for range h.dice.IntN(3) {
			h.trace = append(h.trace, "pass")
			h.step()
		}
		if h.dice.IntN(3) > 0 {
			continue
		}
		h.settle()
		if exact {
			agree(h.t, h.world)
		}
	}
	h.settle()
	if exact {
		agree(h.t, h.world)
	}
	h.kernel.faults(nil)
	writes := h.kernel.writes
	h.set(h.snapshot())
	h.settle()
	if exact && h.kernel.writes != writes {
		h.t.Errorf("the same again: %d writes", h.kernel.writes-writes)
	}
}

// snapshot is the cluster with slices of its own.
func (h *history) snapshot() *api.Cluster {
	c := h.cluster
	c.Pods, c.Services = slices.Clone(c.Pods), slices.Clone(c.Services)
	for i := range c.Services {
		s := &c.Services[i]
		s.Backends = nil
		for j, p := range c.Pods {
			if (j+len(s.Name)+int(s.Name[0]))%3 == 0 {
				continue // not selected
			}
			b := api.Backend{Address: p.Address, Node: p.Node, Pod: p.Key()}
			for range s.Ports {
				b.Ports = append(b.Ports, 8080)
			}
			s.Backends = append(s.Backends, b)
		}
	}
	return &c
}

// change is one random event.
func (h *history) change() string {
	switch h.dice.IntN(12) {
	case 0, 1, 2:
		return h.changePods()
	case 3, 4, 5, 6:
		h.changeServices()
		h.set(h.snapshot())
		return "services"
	case 7, 8, 9:
		for range 1 + h.dice.IntN(3) {
			h.ready[fmt.Sprintf("default/pod-%d", h.dice.IntN(10))] = Readiness(h.dice.IntN(5))
		}
		h.manager.SetReadiness(cloned(h.ready))
		return "readiness"
	case 10:
		h.now = h.now.Add(time.Duration(h.dice.IntN(20)) * time.Second)
		return "time"
	}
	h.start()
	clear(h.readers) // an agent takes longer to start than a program to run
	return "restart"
}

func cloned(m map[string]Readiness) map[string]Readiness {
	c := make(map[string]Readiness, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func (h *history) changePods() string {
	n := h.dice.IntN(10)
	name := fmt.Sprintf("pod-%d", n)
	at := slices.IndexFunc(h.cluster.Pods, func(p api.Pod) bool { return p.Name == name })
	if at >= 0 && h.dice.IntN(2) == 0 {
		h.cluster.Pods = slices.Delete(slices.Clone(h.cluster.Pods), at, at+1)
	} else {
		node := []string{"k8s-ctr", "k8s-w1"}[n%2]
		p := api.Pod{Namespace: "default", Name: name, Node: node, Address: netip.AddrFrom4([4]byte{172, 20, byte(n % 2), byte(10 + n + 100*h.dice.IntN(2))}), Grace: 5 * time.Second}
		p.BackendState = []string{"", "", "", "active", "quarantined", "maintenance"}[h.dice.IntN(6)]
		if h.cluster.Pods = slices.Clone(h.cluster.Pods); at >= 0 {
			h.cluster.Pods[at] = p
		} else {
			h.cluster.Pods = append(h.cluster.Pods, p)
		}
		h.ready["default/"+name] = Ready
		h.manager.SetReadiness(cloned(h.ready))
	}
	h.set(h.snapshot())
	return "pods"
}

func (h *history) changeServices() {
	h.cluster.Services = slices.Clone(h.cluster.Services)
	n := h.dice.IntN(6)
	name := string(rune('a' + n))
	at := slices.IndexFunc(h.cluster.Services, func(s api.Service) bool { return s.Name == name })
	if at >= 0 && h.dice.IntN(3) == 0 {
		h.cluster.Services = slices.Delete(h.cluster.Services, at, at+1)
		return
	}
	flip := func() bool { return h.dice.IntN(2) == 0 }
	s := api.Service{
		Namespace: "default", Name: name, Type: api.ClusterIP, ClusterIP: netip.AddrFrom4([4]byte{10, 96, 0, byte(n)}),
		Ports:         []api.ServicePort{{Protocol: "TCP", Port: 80, NodePort: uint16(30000 + n)}},
		InternalLocal: flip(), ExternalLocal: flip(),
	}
	if flip() {
		s.Type = api.NodePort
	}
	if flip() {
		s.Ports = append(s.Ports, api.ServicePort{Protocol: "UDP", Port: 80, NodePort: uint16(30000 + n)})
	}
	if flip() {
		s.ExternalIPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 10, byte(240 + h.dice.IntN(3))})} // of others too
	}
	if flip() {
		s.Affinity = time.Hour
	}
	if flip() {
		s.Algorithm = "maglev"
	}
	if at >= 0 {
		h.cluster.Services[at] = s
	} else {
		h.cluster.Services = slices.Insert(h.cluster.Services, h.dice.IntN(len(h.cluster.Services)+1), s)
	}
}
