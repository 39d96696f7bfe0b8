//go:build linux

package inspect_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/dbg"
	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/agent/inspect/inspecttest"
	"github.com/native-routing/labctl/bpf"
)

// kernel is a bpffs of the test's own, with the datapath's maps pinned in it.
type kernel struct {
	dir  string
	maps map[string]*ebpf.Map
}

func newKernel(t testing.TB, sizes bpf.Sizes) *kernel {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	k := &kernel{dir: t.TempDir(), maps: map[string]*ebpf.Map{}}
	if err := unix.Mount("labctl-test", k.dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a bpffs: %v (this test needs root)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(k.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	pins := filepath.Join(k.dir, "maps")
	if err := os.Mkdir(pins, 0o700); err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.Spec(bpf.Options{Sizes: sizes})
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue
		}
		m.Pinning = ebpf.PinByName
		opened, err := ebpf.NewMapWithOptions(m, ebpf.MapOptions{PinPath: pins})
		if err != nil {
			t.Fatalf("make the map %s: %v", name, err)
		}
		t.Cleanup(func() { opened.Close() })
		k.maps[name] = opened
	}
	return k
}

func (k *kernel) put(t testing.TB, name string, key, value any) {
	t.Helper()
	if err := k.maps[name].Put(key, value); err != nil {
		t.Fatalf("put into %s: %v", name, err)
	}
}

func putAll[Key, Value any](t testing.TB, k *kernel, name string, entries []inspect.Entry[Key, Value]) {
	t.Helper()
	for _, entry := range entries {
		k.put(t, name, entry.Key, entry.Value)
	}
}

func fill(t testing.TB, k *kernel, d *inspect.Dump) {
	t.Helper()
	putAll(t, k, bpf.Frontends, d.Frontends)
	putAll(t, k, bpf.IPCache, d.IPCache)
	putAll(t, k, bpf.Flows, d.Flows)
	putAll(t, k, bpf.MoreFlows, d.MoreFlows)
	putAll(t, k, bpf.NATs, d.NATs)
	for index, slot := range d.Slots {
		k.put(t, bpf.Slots, index, slot)
	}
	for id, backend := range d.Backends {
		k.put(t, bpf.Backends, id, backend)
	}
	for id, endpoint := range d.Endpoints {
		k.put(t, bpf.Endpoints, id, endpoint)
	}
	for _, metric := range d.Metrics {
		values := make([]bpf.DatapathMetric, ebpf.MustPossibleCPU())
		values[0] = metric.Value
		values[len(values)-1].Packets++
		values[0].Packets--
		k.put(t, bpf.Metrics, metric.Key, values)
	}
}

const full = `
frontend 10.96.48.145:80/TCP id=20 first=1 count=2 qcount=1 flags=0x10
frontend 0.0.0.0:32050/TCP/i id=21 first=10 count=1 flags=0x2006 algorithm=2
slot 1 backend=1 service=20
slot 2 backend=2 service=20
slot 3 backend=900 service=20
slot 10 backend=1 service=21
backend 1 172.20.0.10:80/TCP
backend 2 172.20.1.219:80/TCP
backend 900 172.20.2.7:80/TCP state=1
endpoint 1 172.20.0.1 identity=1 flags=1
endpoint 16 172.20.0.10 identity=300 ifindex=8 mac=0a:00:00:00:00:01 hostmac=0a:00:00:00:00:02
ipcache 0.0.0.0/0 identity=2
ipcache 172.20.1.219/32 identity=2219 node=192.168.10.101 flags=2
flow TCP 172.20.0.10:40000 > 10.96.48.145:80 > 172.20.1.219:80 service=20 backend=2 client_ep=16 flags=8 tx=0x1a rx=0x12 identity=300
flow TCP 172.20.0.10:50000 > 10.96.48.145:80 > 172.20.1.219:80 service=20 backend=2 client_ep=16 flags=8 rx=0x12 identity=300 keyed=2
nat ICMP 172.20.0.10:77 > 10.10.1.200:0 as 192.168.10.100:77
metric 0 1 packets=12 bytes=1200
metric 151 1 packets=2 bytes=196
`

// TestReadsWhatIsThere writes a dump into the kernel and reads it back whole.
func TestReadsWhatIsThere(t *testing.T) {
	k := newKernel(t, bpf.Sizes{})
	want := inspecttest.Parse(t, full)
	fill(t, k, want)
	table, err := ebpf.NewMap(bpf.MaglevTable(bpf.DefaultMaglevSize))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	for _, id := range []uint32{20, 21} {
		k.put(t, bpf.Maglev, id, table)
	}
	k.put(t, bpf.Affinities, bpf.DatapathAffinityKey{Client: 1}, bpf.DatapathAffinity{Backend: 1})
	k.put(t, bpf.AffinityMatch, bpf.DatapathAffinityMatchKey{Backend: 1, Service: 20}, uint8(1))
	k.put(t, bpf.Devices, uint32(2), bpf.DatapathDevice{Addr: 1})
	k.put(t, bpf.Fragments, bpf.DatapathFragmentKey{Id: 1}, bpf.DatapathFragment{Sport: 1})
	k.put(t, bpf.Sockets, bpf.DatapathSocketKey{Cookie: 1}, bpf.DatapathSocketPeer{Service: 20})

	maps, err := inspect.Open(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := maps.Read()
	if err != nil {
		t.Fatal(err)
	}
	if got.Time.Since < time.Second || got.Time.Tick == 0 {
		t.Errorf("time %+v", got.Time)
	}
	want.Time, got.Time = inspect.Time{}, inspect.Time{}
	for name, pair := range map[string][2]any{
		"services": {want.FrontendList(), got.FrontendList()}, "backends": {want.BackendList(), got.BackendList()},
		"reverse NAT": {want.RevNATs(), got.RevNATs()}, "addresses": {want.AddressList(), got.AddressList()},
		"endpoints": {want.EndpointList(), got.EndpointList()}, "metrics": {want.MetricList(), got.MetricList()},
		"maglev": {[]uint32{20, 21}, got.Maglev}, "slots": {len(want.Slots), len(got.Slots)},
	} {
		if diff := cmp.Diff(fmt.Sprintf("%+v", pair[0]), fmt.Sprintf("%+v", pair[1])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got := len(got.ConnectionList()); got != 4 {
		t.Errorf("%d connections", got)
	}
	if got := len(got.NATList()); got != 2 {
		t.Errorf("%d NAT entries", got)
	}
	counts := map[string]int{}
	for _, m := range got.MapList() {
		counts[m.Name] = m.Entries
	}
	if diff := cmp.Diff(map[string]int{
		"cilium_ct4_global": 4, "cilium_ct_any4_global": 0, "cilium_ipcache_v2": 2, "cilium_ipmasq_v4": 0,
		"cilium_ipv4_frag_datagrams": 1, "cilium_lb4_affinity": 1, "cilium_lb4_backends_v3": 3, "cilium_lb4_maglev": 2,
		"cilium_lb4_reverse_nat": 2, "cilium_lb4_reverse_sk": 1, "cilium_lb4_services_v2": 6, "cilium_lb_affinity_match": 1,
		"cilium_lxc": 2, "cilium_metrics": 2, "cilium_snat_v4_external": 2, "labctl_devices": 1,
	}, counts); diff != "" {
		t.Errorf("map list (-want +got):\n%s", diff)
	}
	sizes, err := maps.ReadSizes()
	if err != nil || !slices.Contains(sizes, inspect.Size{Name: inspect.LBBackends, Size: 65537}) {
		t.Errorf("sizes %v, error %v", sizes, err)
	}
	services, err := maps.ServiceTable(map[uint16]string{20: "default/webpod"})
	if err != nil || len(services.Frontends) != 2 || services.Frontends[0].Service != "default/webpod" || services.Frontends[0].Usable != 2 {
		t.Errorf("services %+v, error %v", services, err)
	}
}

// TestCommandsReadTheKernel: every list can be had without an agent.
func TestCommandsReadTheKernel(t *testing.T) {
	k := newKernel(t, bpf.Sizes{})
	fill(t, k, inspecttest.Parse(t, full))
	config := dbg.Config{PinDir: k.dir, RunDir: "/nowhere", DataDir: t.TempDir()}
	for command, want := range map[string]string{
		"service list":                      "20   10.96.48.145:80/TCP   ClusterIP      1 => 172.20.0.10:80/TCP (active)       \n",
		"bpf lb list":                       "10.96.48.145:80/TCP (2)   172.20.1.219:80/TCP (20) (2)                                      \n",
		"bpf lb list --frontends":           "10.96.48.145:80/TCP (0)   0 2[1] (20) [0x10 0x0]    \n",
		"bpf ct list global":                "TCP SVC 172.20.0.10:40000 -> 10.96.48.145:80 expires=",
		"bpf nat list":                      "ICMP OUT 172.20.0.10:77 -> 10.10.1.200:0 XLATE_SRC 192.168.10.100:77 Created=",
		"bpf ipcache list":                  "172.20.1.219/32     identity=2219 encryptkey=0 tunnelendpoint=192.168.10.101 flags=hastunnel   \n",
		"bpf metrics list":                  "Stale or unroutable IP   INGRESS     2         196     0      unknown(0)\n",
		"ip list":                           "0.0.0.0/0         reserved:world   \n",
		"endpoint list":                     "16         Disabled           Disabled          300        no labels",
		"map list":                          "cilium_lb4_services_v2       6             0            true\n",
		"map get cilium_lb4_backends_v3":    "900   TCP://172.20.2.7             \n",
		"map get cilium_lxc":                "172.20.0.1:0    (localhost)",
		"map get cilium_lb4_services_v2":    "10.96.48.145:80/TCP (3)   900 0[0] (20) [0x0 0x0]           \n",
		"map get cilium_lb4_reverse_nat":    "20    10.96.48.145:80           \n",
		"map get cilium_ipcache_v2 -o json": "\"key\": \"172.20.1.219/32\"",
		"bpf lb list --backends":            "900   TCP://172.20.2.7     \n",
		"bpf lb list --revnat":              "20   10.96.48.145:80   \n",
	} {
		var stdout, stderr bytes.Buffer
		code := dbg.Main(t.Context(), config, strings.Fields(command), &stdout, &stderr)
		if code != dbg.ExitOK || !strings.Contains(stdout.String(), want) {
			t.Errorf("%s: exit %d, no %q in\n%s%s", command, code, want, stdout.String(), stderr.String())
		}
	}
}

func TestNoDatapath(t *testing.T) {
	if _, err := inspect.Open(t.TempDir()); !errors.Is(err, inspect.ErrNoDatapath) {
		t.Errorf("error %v", err)
	}
}

// TestConsistent changes a service all the time, as the agent does it: backends,
// then slots that nobody uses, then the frontend. Whoever reads sees either.
func TestConsistent(t *testing.T) {
	k := newKernel(t, bpf.Sizes{})
	d := inspecttest.Parse(t, `
frontend 10.96.0.1:80/TCP id=1 first=1 count=2
slot 1 backend=1 service=1
slot 2 backend=2 service=1
backend 1 172.20.0.1:80/TCP
backend 2 172.20.0.2:80/TCP
backend 3 172.20.0.3:80/TCP
backend 4 172.20.0.4:80/TCP`)
	fill(t, k, d)
	maps, err := inspect.Open(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan error)
	go func() {
		entry := d.Frontends[0]
		for turn := uint32(0); !stop.Load(); turn++ {
			base := turn % 2 * 2
			entry.Value.First = 1 + base*50
			for i := range uint32(2) {
				if err := k.maps[bpf.Slots].Put(entry.Value.First+i, bpf.DatapathSlot{Backend: 1 + base + i, Service: 1}); err != nil {
					done <- err
					return
				}
			}
			if err := k.maps[bpf.Frontends].Put(entry.Key, entry.Value); err != nil {
				done <- err
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
		done <- nil
	}()
	seen := map[string]bool{}
	for end, reads := time.Now().Add(20*time.Second), 0; (reads < 30 || len(seen) < 2) && time.Now().Before(end); reads++ {
		table, err := maps.ServiceTable(nil)
		if err != nil {
			t.Error(err)
			break
		}
		var ids []string
		for _, b := range table.Frontends[0].Backends {
			ids = append(ids, fmt.Sprint(b.ID))
		}
		seen[strings.Join(ids, " ")] = true
	}
	stop.Store(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]bool{"1 2": true, "3 4": true}, seen); diff != "" {
		t.Errorf("backends seen (-want +got):\n%s", diff)
	}
}

// TestReadWhileEntriesChange keeps a thousand flows and adds and removes others.
func TestReadWhileEntriesChange(t *testing.T) {
	k := newKernel(t, bpf.Sizes{})
	key := func(n uint32) bpf.DatapathFlowKey { return bpf.DatapathFlowKey{Client: n, Proto: 6} }
	for n := range uint32(1000) {
		k.put(t, bpf.Flows, key(n), bpf.DatapathFlow{})
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := uint32(0); !stop.Load(); n++ {
			_ = k.maps[bpf.Flows].Put(key(10000+n%500), bpf.DatapathFlow{})
			_ = k.maps[bpf.Flows].Delete(key(10000 + (n+250)%500))
			if n%1000 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	maps, err := inspect.Open(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		d, err := maps.Read(bpf.Flows)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[bpf.DatapathFlowKey]int{}
		for _, flow := range d.Flows {
			seen[flow.Key]++
		}
		for n := range uint32(1000) {
			if seen[key(n)] != 1 {
				t.Fatalf("flow %d seen %d times", n, seen[key(n)])
			}
		}
	}
	stop.Store(true)
	<-done
}

// BenchmarkRead reads 10,000 services of three backends, and the flows that one CPU can have.
func BenchmarkRead(b *testing.B) {
	k := newKernel(b, bpf.Sizes{})
	for n := range uint32(10000) {
		k.put(b, bpf.Frontends, bpf.DatapathFrontendKey{Addr: n, Port: 80, Proto: 6},
			bpf.DatapathFrontend{First: 1 + 3*n, Count: 3, Id: uint16(n + 1), Flags: 0x40})
		for i := range uint32(3) {
			k.put(b, bpf.Slots, 1+3*n+i, bpf.DatapathSlot{Backend: 1 + 3*n + i, Service: uint16(n + 1)})
			k.put(b, bpf.Backends, 1+3*n+i, bpf.DatapathBackend{Addr: 1 + 3*n + i, Port: 80, Proto: 6})
		}
	}
	for n := range uint32(100000) {
		k.put(b, bpf.Flows, bpf.DatapathFlowKey{Client: n, Proto: 6}, bpf.DatapathFlow{Service: 1, ClientEp: 1})
	}
	maps, err := inspect.Open(k.dir)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("10000 services", func(b *testing.B) {
		for b.Loop() {
			if table, err := maps.ServiceTable(nil); err != nil || len(table.Frontends) != 10000 {
				b.Fatal(len(table.Frontends), err)
			}
		}
	})
	b.Run("flows", func(b *testing.B) {
		for b.Loop() {
			if d, err := maps.Read(bpf.Flows); err != nil || len(d.ConnectionList()) < 2*50000 {
				b.Fatal(err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			if _, err := maps.Read(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("clock", func(b *testing.B) {
		for b.Loop() {
			if _, err := bpf.Probe(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
