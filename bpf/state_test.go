//go:build linux

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// onNode runs work on a node of its own.
func onNode(t *testing.T, o Options, work func(n *node)) {
	t.Helper()
	inNamespace(t, func() {
		makeDevices(t)
		work(newNode(t, o))
	})
}

// send runs one frame and returns it as it came out; it must not be dropped.
func (n *node) send(t testing.TB, program, device, line string) []byte {
	t.Helper()
	f, err := parseFrame(line)
	if err != nil {
		t.Fatal(err)
	}
	verdict, out := n.run(t, program, device, f.bytes(outside[0], outside[1]), 0)
	if verdict == 2 {
		t.Fatalf("%s: dropped%s", line, n.lastDrop(t))
	}
	return out
}

func ends(frame []byte) (source, destination netip.AddrPort) {
	addr := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(frame[at : at+4])) }
	port := func(at int) uint16 { return binary.BigEndian.Uint16(frame[at:]) }
	return netip.AddrPortFrom(addr(26), port(34)), netip.AddrPortFrom(addr(30), port(36))
}

func TestLayouts(t *testing.T) {
	spec, err := Spec(testOptions)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]uint32{
		Frontends: {8, 20}, Slots: {4, 8}, Backends: {4, 8}, Flows: {8, 48}, MoreFlows: {16, 48}, NATs: {16, 16},
		Endpoints: {4, 28}, Addresses: {4, 4}, IPCache: {8, 12}, Sockets: {16, 8},
		Affinities: {16, 8}, Fragments: {12, 4}, Metrics: {4, 16}, Devices: {4, 4},
	} {
		if m := spec.Maps[name]; m.KeySize != want[0] || m.ValueSize != want[1] {
			t.Errorf("%s has keys of %d and values of %d bytes, want %v: pinned maps of before do not fit",
				name, m.KeySize, m.ValueSize, want)
		}
	}
}

func TestRandomSpreads(t *testing.T) {
	onNode(t, testOptions, func(n *node) {
		for id := 1; id <= 4; id++ {
			n.backend(t, strings.Fields(fmt.Sprintf("%d 172.20.1.%d:8080/tcp", id, id)))
		}
		n.service(t, strings.Fields("10.96.0.10:80/tcp 1 backends=1,2,3,4"))
		got := map[netip.AddrPort]int{}
		const flows = 4000
		for i := range flows {
			_, to := ends(n.send(t, FromPod, "lxc1", fmt.Sprintf("tcp 172.20.0.10:%d > 10.96.0.10:80 S", 20000+i)))
			got[to]++
		}
		// Seven standard deviations of a fair draw.
		for to, count := range got {
			if len(got) != 4 || count < flows/4-190 || count > flows/4+190 {
				t.Errorf("%v got %d of %d: %v", to, count, flows, got)
			}
		}
	})
}

// TestMaglev: every node sends a client's flow to the same backend, and when one
// backend of four leaves, few flows of the others move.
func TestMaglev(t *testing.T) {
	const flows = 1000
	choose := func(t *testing.T, n *node, backends string, first int) map[int]netip.AddrPort {
		n.reset(t)
		for id := 1; id <= 4; id++ {
			n.backend(t, strings.Fields(fmt.Sprintf("%d 172.20.1.%d:8080/tcp", id, id)))
		}
		n.service(t, strings.Fields("192.168.10.100:30080/tcp 1 nodeport maglev backends="+backends))
		got := map[int]netip.AddrPort{}
		for i := range flows {
			line := fmt.Sprintf("tcp 192.168.10.200:%d > 192.168.10.100:30080 S", 20000+(first+i)%flows)
			_, got[(first+i)%flows] = ends(n.send(t, FromNetdev, "eth1", line))
		}
		return got
	}
	onNode(t, testOptions, func(n *node) {
		all, again := choose(t, n, "1,2,3,4", 0), choose(t, n, "1,2,3,4", 500)
		three := choose(t, n, "1,2,4", 0)
		gone := netip.MustParseAddrPort("172.20.1.3:8080")
		moved, per := 0, map[netip.AddrPort]int{}
		for i := range flows {
			per[all[i]]++
			if all[i] != again[i] {
				t.Fatalf("flow %d went to %v, then to %v", i, all[i], again[i])
			}
			if three[i] == gone {
				t.Fatalf("flow %d goes to a backend that is gone", i)
			}
			if all[i] != gone && all[i] != three[i] {
				moved++
			}
		}
		if len(per) != 4 || moved > flows/10 {
			t.Errorf("%d of %d flows moved that need not; spread %v", moved, flows, per)
		}
	})
}

func TestAffinity(t *testing.T) {
	o := testOptions
	onNode(t, o, func(n *node) {
		for id := 1; id <= 8; id++ {
			n.backend(t, strings.Fields(fmt.Sprintf("%d 172.20.1.%d:8080/tcp", id, id)))
		}
		n.service(t, strings.Fields("10.96.0.10:80/tcp 1 backends=1,2,3,4,5,6,7,8 affinity=9999"))
		port := 20000
		next := func() netip.AddrPort {
			port++
			_, to := ends(n.send(t, FromPod, "lxc1", fmt.Sprintf("tcp 172.20.0.10:%d > 10.96.0.10:80 S", port)))
			return to
		}
		first := next()
		for range 50 {
			if to := next(); to != first {
				t.Fatalf("went to %v, then to %v", first, to)
			}
		}
		// Its backend takes no more: another one, and that one from then on.
		gone := uint32(first.Addr().As4()[3])
		if err := n.Maps[AffinityMatch].Delete(DatapathAffinityMatchKey{Backend: gone, Service: 1}); err != nil {
			t.Fatal(err)
		}
		ids := strings.ReplaceAll(",1,2,3,4,5,6,7,8", fmt.Sprintf(",%d", gone), "")[1:]
		n.service(t, strings.Fields("10.96.0.10:80/tcp 1 affinity=9999 backends="+ids))
		second := next()
		if second == first {
			t.Fatalf("still goes to %v", first)
		}
		for range 50 {
			if to := next(); to != second {
				t.Fatalf("went to %v, then to %v", second, to)
			}
		}
		// Too long ago: chosen anew, sooner or later another.
		var key DatapathAffinityKey
		var value DatapathAffinity
		changed := false
		for range 50 {
			for it := n.Maps[Affinities].Iterate(); it.Next(&key, &value); {
				value.Seen -= 10000
				n.put(t, Affinities, key, value)
			}
			changed = changed || next() != second
		}
		if !changed {
			t.Error("an affinity that has run out still holds")
		}
	})
}

// TestNATCollision: two pods and the node itself use one port to one server.
func TestNATCollision(t *testing.T) {
	onNode(t, testOptions, func(n *node) {
		server := "10.10.1.200:80"
		seen := map[uint16]string{}
		for _, from := range []struct{ device, addr string }{
			{"lxc1", "172.20.0.10"}, {"lxc2", "172.20.0.11"}, {"", "192.168.10.100"},
		} {
			source, _ := ends(n.send(t, ToNetdev, "eth1", "tcp "+from.addr+":40000 > "+server+" S"))
			if source.Addr() != netip.MustParseAddr("192.168.10.100") || source.Port() < 32768 || seen[source.Port()] != "" {
				t.Fatalf("%s leaves as %v; taken are %v", from.addr, source, seen)
			}
			seen[source.Port()] = from.addr
			again, _ := ends(n.send(t, ToNetdev, "eth1", "tcp "+from.addr+":40000 > "+server+" A"))
			if again != source {
				t.Fatalf("%s leaves as %v, then as %v", from.addr, source, again)
			}
		}
		for port, addr := range seen {
			_, to := ends(n.send(t, FromNetdev, "eth1", fmt.Sprintf("tcp %s > 192.168.10.100:%d SA", server, port)))
			if to != netip.MustParseAddrPort(addr+":40000") {
				t.Errorf("the reply to %d goes to %v, want %s", port, to, addr)
			}
		}
		// A low port is exchanged for a high one. An echo too, both ways.
		source, _ := ends(n.send(t, ToNetdev, "eth1", "udp 172.20.0.10:1000 > 10.10.1.200:53"))
		if source.Port() < 32768 {
			t.Errorf("a low port leaves as %v", source)
		}
		out := n.send(t, ToNetdev, "eth1", "echo 172.20.0.10 > 10.10.1.200 id=7")
		id := binary.BigEndian.Uint16(out[38:])
		if id < 32768 || sum(out[34:], 0) != 0 {
			t.Errorf("an echo leaves with id %d, sum %#x", id, sum(out[34:], 0))
		}
		in := n.send(t, FromNetdev, "eth1", fmt.Sprintf("reply 10.10.1.200 > 192.168.10.100 id=%d", id))
		if got := binary.BigEndian.Uint16(in[38:]); got != 7 || sum(in[34:], 0) != 0 {
			t.Errorf("its reply comes back with id %d, sum %#x", got, sum(in[34:], 0))
		}
		// Pushed out of the map, the way back is there again with the next
		// packet of the next second.
		clearMap(t, NATs, n.Maps[NATs])
		var key DatapathFlowKey
		var flow DatapathFlow
		for it := n.Maps[Flows].Iterate(); it.Next(&key, &flow); {
			flow.NatSeen--
			n.put(t, Flows, key, flow)
		}
		n.send(t, ToNetdev, "eth1", "udp 172.20.0.10:1000 > 10.10.1.200:53")
		_, to := ends(n.send(t, FromNetdev, "eth1", fmt.Sprintf("udp 10.10.1.200:53 > 192.168.10.100:%d", source.Port())))
		if to != netip.MustParseAddrPort("172.20.0.10:1000") {
			t.Errorf("after an eviction the reply goes to %v", to)
		}
	})
}

// TestNATExhausted takes all that 32 tries can hit.
func TestNATExhausted(t *testing.T) {
	o := testOptions
	o.Sizes.NATs = 1 << 18
	onNode(t, o, func(n *node) {
		keys, values := make([]DatapathNatKey, 32768), make([]DatapathNat, 32768)
		for i := range keys {
			keys[i] = DatapathNatKey{Remote: ip("10.10.1.200"), Local: ip("192.168.10.100"),
				RemotePort: Port(80), LocalPort: Port(uint16(32768 + i)), Proto: 6}
			values[i] = DatapathNat{Addr: ip("172.20.0.11"), Port: Port(1)}
		}
		if _, err := n.Maps[NATs].BatchUpdate(keys, values, nil); err != nil {
			t.Fatal(err)
		}
		if err := n.step(t, "to_netdev eth1 tcp 172.20.0.10:40000 > 10.10.1.200:80 S", "drop 167", 0); err != nil {
			t.Error(err)
		}
	})
}

// TestFlowKeeps: what a flow entry tells after a connection.
func TestFlowKeeps(t *testing.T) {
	onNode(t, testOptions, func(n *node) {
		n.backend(t, strings.Fields("1 172.20.1.20:8080/tcp"))
		n.service(t, strings.Fields("10.96.0.10:80/tcp 5 backends=1"))
		n.send(t, FromPod, "lxc1", "tcp 172.20.0.10:40000 > 10.96.0.10:80 S")
		n.send(t, FromNetdev, "eth1", "tcp 172.20.1.20:8080 > 172.20.0.10:40000 SA")
		n.send(t, FromPod, "lxc1", "tcp 172.20.0.10:40000 > 10.96.0.10:80 FA")
		var got DatapathFlow
		key := DatapathFlowKey{Client: ip("172.20.0.10"), ClientPort: Port(40000), Proto: 6}
		if err := n.Maps[Flows].Lookup(key, &got); err != nil {
			t.Fatal(err)
		}
		now, err := testOptions.Features.Clock().Now()
		if err != nil {
			t.Fatal(err)
		}
		if off := int32(now - got.Seen); off < -1 || off > 1 {
			t.Errorf("seen at tick %d, now is %d", got.Seen, now)
		}
		got.Seen, got.Born = 0, 0
		want := DatapathFlow{Frontend: ip("10.96.0.10"), FrontendPort: Port(80),
			Backend: ip("172.20.1.20"), BackendPort: Port(8080), Service: 5, BackendId: 1,
			ClientEp: 1, Identity: 1001, Flags: uint16(DatapathFlowFlagFLOW_SEEN_NON_SYN),
			TxFlags: 0x13, RxFlags: 0x12}
		if got != want {
			t.Errorf("flow\n got %+v\nwant %+v", got, want)
		}
		if n := countEntries(t, n.Maps[Flows]); n != 1 {
			t.Errorf("%d entries for one connection, want 1", n)
		}
	})
}

func countEntries(t *testing.T, m *ebpf.Map) (n int) {
	t.Helper()
	it := m.Iterate()
	for key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize()); it.Next(&key, &value); {
		n++
	}
	return n
}

// TestHostile: what no sane sender makes. Each is dropped
// and counted for its reason.
func TestHostile(t *testing.T) {
	onNode(t, testOptions, func(n *node) { sendHostile(t, n) })
}

func sendHostile(t *testing.T, n *node) {
	t.Helper()
	good := func(line string) []byte {
		f, err := parseFrame(line)
		if err != nil {
			t.Fatal(err)
		}
		return f.bytes(outside[0], outside[1])
	}
	tcp := "tcp 172.20.0.10:40000 > 172.20.1.20:80 S"
	edit := func(line string, at int, value ...byte) []byte {
		b := good(line)
		copy(b[at:], value)
		return b
	}
	for _, c := range []struct {
		name   string
		frame  []byte
		reason DatapathReason
	}{
		{"header of 16 bytes", edit(tcp, 14, 0x44), 135},
		{"version 6 in IPv4", edit(tcp, 14, 0x65), 135},
		{"options beyond the end", edit(tcp, 14, 0x4f)[:60], 134},
		{"length beyond the end", edit(tcp, 16, 0xff, 0xff), 134},
		{"length less than the header", edit(tcp, 16, 0, 19), 134},
		{"length of 0 without segments", edit(tcp, 16, 0, 0), 134},
		{"TCP header cut off", edit(tcp, 16, 0, 30)[:44], 135},
		{"TCP first fragment of 8 bytes", append(append(edit(tcp, 16, 0, 28)[:20], 0x20, 0), good(tcp)[22:42]...), 135},
		{"error that quotes nothing", edit("unreach 172.20.0.10 > 172.20.1.20 size=0", 16, 0, 28), 135},
		{"error that quotes half a header", good("unreach 172.20.0.10 > 172.20.1.20 size=12"), 135},
		{"IPv6", edit(tcp, 12, 0x86, 0xdd), 139},
		{"unknown protocol", edit(tcp, 23, 47), 137},
	} {
		before := n.counted(t, c.reason)
		if verdict, _ := n.run(t, FromPod, "lxc1", c.frame, 0); verdict != 2 {
			t.Errorf("%s: verdict %d, want a drop", c.name, verdict)
		} else if n.counted(t, c.reason) != before+1 {
			t.Errorf("%s: not counted for reason %d%s", c.name, c.reason, n.lastDrop(t))
		}
	}
}

func TestClock(t *testing.T) {
	for _, hz := range []uint32{0, 100, 250, 300, 1000} {
		clock := Features{HZ: hz}.Clock()
		if tick := clock.Tick(); tick < 700*time.Millisecond || tick > 1500*time.Millisecond {
			t.Errorf("HZ %d: a tick is %v", hz, tick)
		}
		if got := clock.Age(5, 7); got != 0 {
			t.Errorf("an entry newer than the clock is %v old", got)
		}
		if hz == 0 {
			continue
		}
		uptime := 12345 * time.Second
		jiffies := uint32(12345*uint64(hz) - 300*uint64(hz))
		if got, sure := nearestHZ(jiffies+3, uptime); got != hz || !sure {
			t.Errorf("HZ %d: found %d, sure %t", hz, got, sure)
		}
	}
	if _, sure := nearestHZ(2, 300*time.Second); sure {
		t.Error("sure of HZ when all predict the same")
	}
}

func TestProbe(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	found, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", found)
	// Without any of it the programs load all the same.
	load(t, Options{}).Close()
	load(t, Options{Features: found}).Close()
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{PodCIDR: netip.MustParsePrefix("fd00::/64")},
		{NodePortMin: 2, NodePortMax: 1},
		{Loopback: netip.MustParseAddr("::1")},
	} {
		if _, err := Spec(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if got := ringSize(5000); got%uint32(unix.Getpagesize()) != 0 || got < 5000 {
		t.Errorf("ring of %d", got)
	}
}
