//go:build linux

package lb

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

func conditions(m *Manager) (all []string, settled bool) {
	objects, settled := m.Objects()
	for _, o := range objects {
		all = append(all, o.Name+" "+string(o.Condition)+": "+o.Reason)
	}
	return all, settled
}

func expect(t *testing.T, m *Manager, settled bool, want ...string) {
	t.Helper()
	got, is := conditions(m)
	if !slices.Equal(got, want) || is != settled {
		t.Errorf("objects %q, settled %v; want %q, %v", got, is, want, settled)
	}
}

// TestRun is the life of a Manager by the clock: it waits for maps and a state,
// works, and does by itself what is due later.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(64, 256, 64)
		removed := make(chan []Address, 1)
		m := New(Config{Node: "k8s-ctr", OnRemoved: func(all []Address) { removed <- all }})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); m.Run(ctx) }()
		synctest.Wait()
		expect(t, m, false)

		cluster := bigCluster(1, 3)
		m.Set(api.State{Cluster: cluster})
		synctest.Wait()
		expect(t, m, false, "default/service-00000 pending: waits for the datapath's maps")
		m.SetReadiness(allReady(cluster))
		m.Use(k.maps())
		synctest.Wait()
		expect(t, m, true, "default/service-00000 in place: 3 backends active")
		if names := m.Names(); len(names) != 1 || names[1] != "default/service-00000" {
			t.Errorf("names %v", names)
		}

		left := bigCluster(1, 2)
		m.Set(api.State{Cluster: left})
		synctest.Wait()
		expect(t, m, true, "default/service-00000 in place: 2 backends active, 1 terminating")
		began := time.Now()
		gone := <-removed
		if took := time.Since(began); took != 31*time.Second {
			t.Errorf("%v was removed after %v: its grace is 30 s, and that of programs 1 s", gone, took)
		}
		m.ChangeReadiness(map[string]Readiness{"default/pod-000000": NotReady})
		synctest.Wait()
		expect(t, m, true, "default/service-00000 in place: 1 backend active, 1 not ready")
		metrics := m.Metrics()
		if metrics.Frontends != 1 || metrics.Backends[Active] != 1 || metrics.Backends[Quarantined] != 1 ||
			metrics.Operations[Operation{bpf.Frontends, "update", "success"}] != 4 {
			t.Errorf("metrics %+v", metrics)
		}
		stop()
		<-ended
		if len(k.frontends.entries) != 1 {
			t.Error("an agent that ends takes services with it")
		}
	})
}

// broken is a table that takes nothing for a while.
type broken struct {
	Table[bpf.DatapathFrontendKey, bpf.DatapathFrontend]
	calls int
	until time.Time
}

func (b *broken) Update(keys []bpf.DatapathFrontendKey, values []bpf.DatapathFrontend) (int, error) {
	if b.calls++; time.Now().Before(b.until) {
		return 0, errInjected
	}
	return b.Table.Update(keys, values)
}

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(64, 256, 64)
		maps := k.maps()
		table := &broken{Table: maps.Frontends, until: time.Now().Add(10 * time.Minute)}
		maps.Frontends = table
		m := New(Config{Node: "k8s-ctr"})
		go m.Run(t.Context())
		cluster := bigCluster(1, 1)
		m.SetReadiness(allReady(cluster))
		m.Use(maps)
		m.Set(api.State{Cluster: cluster})
		synctest.Wait()
		expect(t, m, false, "default/service-00000 failed: write of 10.96.0.0:80/TCP: injected")
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if table.calls < 20 || table.calls > 40 {
			t.Errorf("%d tries in nine minutes", table.calls)
		}
		table.until = time.Now()
		m.Wake()
		synctest.Wait()
		expect(t, m, true, "default/service-00000 in place: 1 backend active")
	})
}

// TestReadFails has maps that cannot be read at first.
func TestReadFails(t *testing.T) {
	k := newKernel(64, 256, 64)
	var told []error
	m := New(Config{Node: "k8s-ctr", Report: func(err error) { told = append(told, err) }})
	cluster := bigCluster(2, 1)
	m.SetReadiness(allReady(cluster))
	m.Use(k.maps())
	m.Set(api.State{Cluster: cluster})
	k.faults(rand.New(rand.NewPCG(3, 3)))
	for range 100 {
		if m.pass(); m.opened {
			break
		}
		expect(t, m, false, "default/service-00000 pending: waits for the datapath's maps", "default/service-00001 pending: waits for the datapath's maps")
	}
	if !m.opened || len(told) == 0 {
		t.Fatalf("opened %v, told %v", m.opened, told)
	}
}

// TestForeign has maps in which somebody else wrote: all is as wanted in the end.
func TestForeign(t *testing.T) {
	dice := rand.New(rand.NewPCG(5, 5))
	for range 300 {
		w := newWorld(t, newKernel(64, 256, 64))
		k := w.kernel
		for range 1 + dice.IntN(6) {
			b := func(n int) uint32 { return uint32(dice.IntN(n)) }
			address := Address(10<<56 | 96<<48 | Address(b(8))<<32 | 80<<16 | 6<<8)
			k.frontends.entries[address.scoped(bpf.DatapathScope(b(2))).wire()] = bpf.DatapathFrontend{
				First: b(300), Count: uint16(b(5)), Qcount: uint16(b(3)), Id: uint16(b(4)), Algorithm: uint8(b(3)), Flags: uint16(b(1 << 16)),
			}
			k.slots.entries[b(20)] = bpf.DatapathSlot{Backend: b(90), Service: uint16(b(4))}
			k.backends.entries[1+b(60)] = Address(172<<56 | 20<<48 | Address(b(4))<<32 | 80<<16 | 6<<8).backend(uint8(b(4)))
			k.match.entries[bpf.DatapathAffinityMatchKey{Backend: b(64), Service: uint16(1 + b(5))}] = 1
			k.maglev.entries[1+b(5)] = []uint32{b(64), b(64), b(64)}
		}
		cluster := bigCluster(5, 2)
		cluster.Services[1].Affinity = time.Hour
		w.ready = allReady(cluster)
		w.manager.SetReadiness(cloned(w.ready))
		w.set(cluster)
		w.settle()
		w.now = w.now.Add(adoptFor)
		w.settle()
		agree(t, w)
		if t.Failed() {
			t.Fatal(k.dump())
		}
	}
}
