//go:build linux

package lb

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// loadMaps makes maps in the kernel, as the datapath has them.
func loadMaps(t testing.TB, sizes bpf.Sizes) map[string]*ebpf.Map {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.Spec(bpf.Options{Sizes: sizes})
	if err != nil {
		t.Fatal(err)
	}
	loaded := make(map[string]*ebpf.Map)
	for _, name := range []string{bpf.Frontends, bpf.Slots, bpf.Backends, bpf.Maglev, bpf.AffinityMatch} {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			t.Fatalf("make map %s: %v", name, err)
		}
		t.Cleanup(func() { _ = m.Close() })
		loaded[name] = m
	}
	return loaded
}

func kernelMaps(t testing.TB, sizes bpf.Sizes) Maps {
	t.Helper()
	maps, err := KernelMaps(loadMaps(t, sizes), bpf.Features{}.Clock())
	if err != nil {
		t.Fatal(err)
	}
	return maps
}

// copyOf is what the maps hold, in memory.
func copyOf(t *testing.T, m Maps) *kernel {
	t.Helper()
	k := newKernel(m.Frontends.Capacity(), m.Slots.Capacity(), m.Backends.Capacity()-1)
	k.size = m.MaglevSize
	fill(t, m.Frontends, k.frontends.entries)
	fill(t, m.Slots, k.slots.entries)
	fill(t, m.Backends, k.backends.entries)
	fill(t, m.Maglev, k.maglev.entries)
	fill(t, m.AffinityMatch, k.match.entries)
	return k
}

func fill[K comparable, V any](t *testing.T, table Table[K, V], into map[K]V) {
	t.Helper()
	if err := table.Dump(func(k K, v V) bool { into[k] = v; return true }); err != nil {
		t.Fatalf("dump %s: %v", table.Name(), err)
	}
}

// kernelWorld is a world on maps of the kernel.
func kernelWorld(t *testing.T, maps Maps) *world {
	w := newWorld(t, newKernel(1, 1, 1))
	w.manager.Use(maps)
	return w
}

func (w *world) agreeKernel(maps Maps) {
	w.t.Helper()
	w.settle()
	w.kernel = copyOf(w.t, maps)
	agree(w.t, w)
}

func TestKernelMaps(t *testing.T) {
	maps := kernelMaps(t, bpf.Sizes{Frontends: 4096, Slots: 8192, Backends: 2048, Maglev: 256, AffinityMatch: 8192})
	w := kernelWorld(t, maps)
	cluster := bigCluster(50, 3)
	cluster.Algorithm = "maglev"
	for i := range cluster.Services {
		s := &cluster.Services[i]
		if i%2 == 0 {
			s.Type, s.Ports[0].NodePort = api.NodePort, uint16(30000+i)
			s.ExternalLocal = i%4 == 0
		}
		if i%3 == 0 {
			s.Affinity = time.Hour
		}
	}
	w.ready = allReady(cluster)
	w.manager.SetReadiness(cloned(w.ready))
	w.set(cluster)
	w.agreeKernel(maps)

	names := w.manager.Names()
	w.manager = New(Config{Node: "k8s-ctr", Now: func() time.Time { return w.now }})
	w.manager.Use(maps)
	w.manager.SetReadiness(cloned(w.ready))
	w.set(cluster)
	w.agreeKernel(maps)
	if again := w.manager.Names(); fmt.Sprint(again) != fmt.Sprint(names) {
		t.Errorf("ids %v after a restart, before %v", again, names)
	}
	for op, n := range w.manager.Metrics().Operations {
		if op.Operation != "lookup" && n > 0 {
			t.Errorf("after a restart: %v: %d", op, n)
		}
	}

	for pod := range w.ready {
		w.ready[pod] = NotReady
		break
	}
	w.manager.SetReadiness(cloned(w.ready))
	w.set(&api.Cluster{KubeProxyReplacement: true, Nodes: cluster.Nodes, Pods: cluster.Pods, Services: cluster.Services[:20]})
	w.agreeKernel(maps)
	w.set(nil)
	w.settle()
	if dump := copyOf(t, maps).dump(); dump != "0 frontends, 0 maglev, 0 matches\n" {
		t.Errorf("left in the maps:\n%s", dump)
	}
}

func TestKernelMapsFull(t *testing.T) {
	loaded := loadMaps(t, bpf.Sizes{Frontends: 8, Slots: 64, Backends: 16})
	maps, err := KernelMaps(loaded, bpf.Features{}.Clock())
	if err != nil {
		t.Fatal(err)
	}
	w := kernelWorld(t, maps)
	cluster := bigCluster(10, 1)
	w.manager.SetReadiness(allReady(cluster))
	w.set(cluster)
	w.manager.pass()
	objects, _ := w.manager.Objects()
	var refused []string
	for _, o := range objects {
		if o.Condition == api.Refused {
			refused = append(refused, o.Name+": "+o.Reason)
		}
	}
	want := []string{
		"default/service-00008: map frontends is full (8 entries): raise cluster.mapSizes.services in the topology",
		"default/service-00009: map frontends is full (8 entries): raise cluster.mapSizes.services in the topology",
	}
	if !slices.Equal(refused, want) {
		t.Errorf("refused %q, want %q", refused, want)
	}
	// The kernel says so too, in the middle of a batch.
	keys := make([]bpf.DatapathFrontendKey, 4)
	for i := range keys {
		keys[i] = bpf.DatapathFrontendKey{Addr: uint32(i), Proto: 17}
	}
	served := w.manager.catalog.services[0].frontends[0].key.wire()
	if _, err := maps.Frontends.Delete([]bpf.DatapathFrontendKey{served, keys[0]}); err != nil {
		t.Error(err)
	}
	done, err := maps.Frontends.Update(keys, make([]bpf.DatapathFrontend, 4))
	if done != 1 || !errors.Is(err, ErrFull) {
		t.Errorf("update of a map with one place: %d, %v", done, err)
	}
	if done, err := maps.Frontends.Delete(keys); done != 4 || err != nil {
		t.Errorf("delete of one that is there and three that are not: %d, %v", done, err)
	}
}

// TestKernelWithoutBatch uses a type of map for which kernels have no batches.
func TestKernelWithoutBatch(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.DevMapHash, KeySize: 4, ValueSize: 4, MaxEntries: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	table := &kernelTable[uint32, uint32]{name: "devices", kernel: m}
	const loopback = 1
	keys, values := []uint32{7, 8, 9, 10}, []uint32{loopback, loopback, loopback, loopback}
	if done, err := table.Update(keys, values); done != 3 || !errors.Is(err, ErrFull) {
		t.Errorf("update: %d, %v", done, err)
	}
	found := map[uint32]uint32{}
	fill(t, table, found)
	if len(found) != 3 || found[7] != loopback {
		t.Errorf("found %v", found)
	}
	if done, err := table.Delete([]uint32{7, 6, 8}); done != 3 || err != nil {
		t.Errorf("delete: %d, %v", done, err)
	}
	if _, err := table.Lookup(8); !errors.Is(err, ErrAbsent) {
		t.Errorf("lookup: %v", err)
	}
}

func TestKernelTable(t *testing.T) {
	loaded := loadMaps(t, bpf.Sizes{})
	maps, err := KernelMaps(loaded, bpf.Features{}.Clock())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Frontends.Lookup(bpf.DatapathFrontendKey{}); !errors.Is(err, ErrAbsent) {
		t.Errorf("lookup of nothing: %v", err)
	}
	table := make([]uint32, bpf.DefaultMaglevSize)
	for i := range table {
		table[i] = uint32(i)
	}
	if _, err := maps.Maglev.Update([]uint32{7}, [][]uint32{table}); err != nil {
		t.Fatal(err)
	}
	got, err := maps.Maglev.Lookup(7)
	if err != nil || !slices.Equal(got, table) {
		t.Errorf("table of %d entries, %v", len(got), err)
	}
	if _, err := KernelMaps(nil, bpf.Clock{}); err == nil || !strings.Contains(err.Error(), bpf.Frontends) {
		t.Errorf("no maps: %v", err)
	}
}
