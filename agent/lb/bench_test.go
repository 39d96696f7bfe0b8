//go:build linux

package lb

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// bigCluster has n services with a number of backends each.
func bigCluster(n, backends int) *api.Cluster {
	c := &api.Cluster{KubeProxyReplacement: true, Algorithm: "random", Nodes: []api.Node{
		{Name: "k8s-ctr", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15"), netip.MustParseAddr("192.168.10.100")}},
	}}
	for i := range n {
		s := api.Service{
			Namespace: "default", Name: fmt.Sprintf("service-%05d", i), Type: api.ClusterIP,
			ClusterIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}),
			Ports:     []api.ServicePort{{Protocol: "TCP", Port: 80}},
		}
		for j := range backends {
			k := i*backends + j
			p := api.Pod{
				Namespace: "default", Name: fmt.Sprintf("pod-%06d", k), Node: []string{"k8s-ctr", "k8s-w1", "k8s-w0"}[j%3],
				Address: netip.AddrFrom4([4]byte{172, byte(16 + k>>16), byte(k >> 8), byte(k)}), Grace: 30 * time.Second,
			}
			c.Pods = append(c.Pods, p)
			s.Backends = append(s.Backends, api.Backend{Address: p.Address, Node: p.Node, Pod: p.Key(), Ports: []uint16{80}})
		}
		c.Services = append(c.Services, s)
	}
	return c
}

func allReady(c *api.Cluster) map[string]Readiness {
	ready := make(map[string]Readiness, len(c.Pods))
	for _, p := range c.Pods {
		ready[p.Key()] = Ready
	}
	return ready
}

// decoded is a cluster that shares nothing with another, as from the API.
func decoded(b testing.TB, c *api.Cluster) *api.Cluster {
	text, err := json.Marshal(c)
	if err != nil {
		b.Fatal(err)
	}
	again := &api.Cluster{}
	if err := json.Unmarshal(text, again); err != nil {
		b.Fatal(err)
	}
	return again
}

// BenchmarkProgram is the way from the cluster to empty maps.
func BenchmarkProgram(b *testing.B) {
	for _, n := range []int{100, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			cluster := decoded(b, bigCluster(n, 3))
			ready := allReady(cluster)
			var used time.Duration // on a busy machine it says more than the time
			for b.Loop() {
				b.StopTimer()
				maps := kernelMaps(b, bpf.Sizes{})
				m := New(Config{Node: "k8s-ctr"})
				m.SetReadiness(cloned(ready))
				runtime.GC()
				used -= processTime(b)
				b.StartTimer()
				m.Use(maps)
				m.Set(api.State{Cluster: cluster})
				m.pass()
				b.StopTimer()
				used += processTime(b)
				if n := m.Metrics().Frontends; n != len(cluster.Services) {
					b.Fatal(n)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// processTime is what this process used of the processors.
func processTime(b *testing.B) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// programmed is a Manager that has programmed 10,000 services.
func programmed(b testing.TB) (*Manager, *api.Cluster, Maps) {
	cluster := decoded(b, bigCluster(10000, 3))
	maps := kernelMaps(b, bpf.Sizes{})
	m := New(Config{Node: "k8s-ctr"})
	m.SetReadiness(allReady(cluster))
	m.Use(maps)
	m.Set(api.State{Cluster: cluster})
	m.pass()
	return m, cluster, maps
}

// BenchmarkChange is one change among 10,000 services.
func BenchmarkChange(b *testing.B) {
	b.Run("readiness", func(b *testing.B) {
		m, _, _ := programmed(b)
		i := 0
		m.ChangeReadiness(map[string]Readiness{"default/pod-015000": NotReady})
		m.pass()
		for b.Loop() {
			i++
			m.ChangeReadiness(map[string]Readiness{"default/pod-015000": Ready + Readiness(i%2)})
			m.pass()
		}
	})
	b.Run("all-readiness", func(b *testing.B) {
		m, cluster, _ := programmed(b)
		all := [2]map[string]Readiness{allReady(cluster), allReady(cluster)}
		all[1]["default/pod-015000"] = NotReady
		m.SetReadiness(all[1])
		m.pass()
		i := 0
		for b.Loop() {
			i++
			m.SetReadiness(all[i%2])
			m.pass()
		}
	})
	b.Run("service", func(b *testing.B) {
		m, cluster, _ := programmed(b)
		benchmarkSet(b, m, [2]*api.Cluster{changed(*cluster, 1), changed(*cluster, 2)})
	})
	b.Run("service-decoded", func(b *testing.B) {
		m, cluster, _ := programmed(b)
		benchmarkSet(b, m, [2]*api.Cluster{decoded(b, changed(*cluster, 1)), decoded(b, changed(*cluster, 2))})
	})
	b.Run("nothing", func(b *testing.B) {
		m, _, _ := programmed(b)
		for b.Loop() {
			m.pass()
		}
	})
}

func benchmarkSet(b *testing.B, m *Manager, states [2]*api.Cluster) {
	i := 0
	for b.Loop() {
		i++
		m.Set(api.State{Cluster: states[i%2]})
		m.pass()
	}
}

// changed leaves out one backend of a service in the middle.
func changed(c api.Cluster, backends int) *api.Cluster {
	c.Services = slices.Clone(c.Services)
	c.Services[5000].Backends = c.Services[5000].Backends[:backends]
	return &c
}

// BenchmarkRestart is what an agent does that finds 10,000 services in the maps.
func BenchmarkRestart(b *testing.B) {
	_, cluster, maps := programmed(b)
	ready := allReady(cluster)
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := restore(maps, 30000); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			m := New(Config{Node: "k8s-ctr"})
			m.SetReadiness(ready)
			m.Use(maps)
			m.Set(api.State{Cluster: cluster})
			m.pass()
		}
	})
}

// BenchmarkFloor is the kernel's part of BenchmarkProgram: the same entries, by
// nothing but the system calls.
func BenchmarkFloor(b *testing.B) {
	const services, backends = 10000, 30000
	ids := make([]uint32, backends)
	for i := range ids {
		ids[i] = uint32(i + 1)
	}
	keys := make([]bpf.DatapathFrontendKey, services)
	for i := range keys {
		keys[i] = bpf.DatapathFrontendKey{Addr: wireAddr(uint32(10<<24 | 96<<16 | i)), Port: bpf.Port(80), Proto: 6}
	}
	for b.Loop() {
		b.StopTimer()
		maps := kernelMaps(b, bpf.Sizes{})
		b.StartTimer()
		if _, err := maps.Backends.Update(ids, make([]bpf.DatapathBackend, backends)); err != nil {
			b.Fatal(err)
		}
		if _, err := maps.Slots.Update(ids, make([]bpf.DatapathSlot, backends)); err != nil {
			b.Fatal(err)
		}
		if _, err := maps.Frontends.Update(keys, make([]bpf.DatapathFrontend, services)); err != nil {
			b.Fatal(err)
		}
	}
}

// TestMemory bounds what is held for 10,000 services beyond the state itself.
func TestMemory(t *testing.T) {
	heap := func() float64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return float64(s.HeapAlloc) / (1 << 20)
	}
	cluster := decoded(t, bigCluster(10000, 3))
	ready := allReady(cluster)
	maps := kernelMaps(t, bpf.Sizes{})
	before := heap()
	m := New(Config{Node: "k8s-ctr"})
	m.SetReadiness(ready)
	m.Use(maps)
	m.Set(api.State{Cluster: cluster})
	m.pass()
	held := heap() - before
	m.ChangeReadiness(map[string]Readiness{"default/pod-000001": NotReady})
	m.pass()
	indexed := heap() - before
	t.Logf("%.1f MiB, %.1f MiB once readiness has changed", held, indexed)
	if indexed > 12 {
		t.Errorf("%.1f MiB are held for 10,000 services", indexed)
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(cluster)
}
