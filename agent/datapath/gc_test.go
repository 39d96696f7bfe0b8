//go:build linux

package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// TestCollect ages entries by their protocol and state, and takes translations
// only when nothing goes by them.
func TestCollect(t *testing.T) {
	w := newWorld(t)
	w.a.start()
	maps := w.a.maps()
	now, err := maps.Clock.Now()
	if err != nil {
		t.Fatal(err)
	}
	ago := func(age time.Duration) uint32 { return now - maps.Clock.Ticks(age) }
	const fin, ack = 1, 16
	seen := uint16(bpf.DatapathFlowFlagFLOW_SEEN_NON_SYN)
	flows := []struct {
		name  string
		proto uint8
		flow  bpf.DatapathFlow
		gone  bool
	}{
		{"TCP that goes on", protocolTCP, bpf.DatapathFlow{Seen: ago(7000 * time.Second), Flags: seen, TxFlags: ack}, false},
		{"TCP that was forgotten", protocolTCP, bpf.DatapathFlow{Seen: ago(8100 * time.Second), Flags: seen}, true},
		{"TCP that never began", protocolTCP, bpf.DatapathFlow{Seen: ago(70 * time.Second)}, true},
		{"TCP that has just begun", protocolTCP, bpf.DatapathFlow{Seen: ago(30 * time.Second)}, false},
		{"TCP that has ended", protocolTCP, bpf.DatapathFlow{Seen: ago(15 * time.Second), Flags: seen, RxFlags: fin}, true},
		{"TCP that ends", protocolTCP, bpf.DatapathFlow{Seen: ago(5 * time.Second), Flags: seen, RxFlags: fin}, false},
		{"UDP that goes on", protocolUDP, bpf.DatapathFlow{Seen: ago(40 * time.Second)}, false},
		{"UDP that has ended", protocolUDP, bpf.DatapathFlow{Seen: ago(70 * time.Second)}, true},
		{"ICMP that has ended", 1, bpf.DatapathFlow{Seen: ago(70 * time.Second)}, true},
	}
	key := func(i int, proto uint8) bpf.DatapathFlowKey {
		return bpf.DatapathFlowKey{Client: wire(netip.MustParseAddr("172.20.0.10")), ClientPort: uint16(i + 1), Proto: proto}
	}
	for i, f := range flows {
		f.flow.Backend, f.flow.BackendPort, f.flow.NatAddr, f.flow.NatPort = 9, 80, 7, uint16(i+1)
		k := key(i, f.proto)
		if err := maps.Map(bpf.Flows).Put(k, f.flow); err != nil {
			t.Fatal(err)
		}
		nat := bpf.DatapathNatKey{Remote: 9, RemotePort: 80, Local: 7, LocalPort: uint16(i + 1), Proto: f.proto}
		if err := maps.Map(bpf.NATs).Put(nat, bpf.DatapathNat{Addr: k.Client, Port: k.ClientPort, Seen: f.flow.Seen, RxFlags: ack}); err != nil {
			t.Fatal(err)
		}
	}
	// A reply keeps a translation whose flow was pushed out.
	orphans := map[uint16]bool{1000: false, 1001: true}
	for port, gone := range orphans {
		age := 100 * time.Second
		if gone {
			age = 9000 * time.Second
		}
		nat := bpf.DatapathNatKey{Remote: 9, RemotePort: 80, Local: 7, LocalPort: port, Proto: protocolTCP}
		if err := maps.Map(bpf.NATs).Put(nat, bpf.DatapathNat{Addr: 5, Port: port, Seen: ago(age), RxFlags: ack}); err != nil {
			t.Fatal(err)
		}
	}
	var stats GCStats
	if err := maps.collect(&stats); err != nil {
		t.Fatal(err)
	}
	has := func(name string, key any) bool {
		_, err := maps.Map(name).LookupBytes(key)
		if err != nil {
			t.Fatal(err)
		}
		value, _ := maps.Map(name).LookupBytes(key)
		return value != nil
	}
	for i, f := range flows {
		if has(bpf.Flows, key(i, f.proto)) == f.gone {
			t.Errorf("%s: gone is not %t", f.name, f.gone)
		}
		nat := bpf.DatapathNatKey{Remote: 9, RemotePort: 80, Local: 7, LocalPort: uint16(i + 1), Proto: f.proto}
		if has(bpf.NATs, nat) == f.gone {
			t.Errorf("translation of %s: gone is not %t", f.name, f.gone)
		}
	}
	for port, gone := range orphans {
		nat := bpf.DatapathNatKey{Remote: 9, RemotePort: 80, Local: 7, LocalPort: port, Proto: protocolTCP}
		if has(bpf.NATs, nat) == gone {
			t.Errorf("translation %d without a flow: gone is not %t", port, gone)
		}
	}
	if stats.FlowsRemoved != 5 || stats.NATsRemoved != 6 || stats.Flows != 4 || stats.NATs != 5 || stats.Runs != 1 {
		t.Errorf("counted %+v", stats)
	}
}

func TestNextGC(t *testing.T) {
	for _, c := range []struct {
		last          time.Duration
		removed, left uint64
		want          time.Duration
	}{
		{0, 0, 0, 45 * time.Second},
		{40 * time.Second, 50, 50, 20 * time.Second},
		{11 * time.Second, 50, 50, 10 * time.Second},
		{40 * time.Second, 10, 90, 40 * time.Second},
		{40 * time.Second, 1, 99, time.Minute},
		{4 * time.Minute, 0, 99, 5 * time.Minute},
	} {
		if got := nextGC(c.last, c.removed, c.left); got != c.want {
			t.Errorf("nextGC(%v, %d, %d) = %v, want %v", c.last, c.removed, c.left, got, c.want)
		}
	}
}

// TestForget: a new pod does not inherit the connections of the one that had
// its address; others keep theirs.
func TestForget(t *testing.T) {
	w := newWorld(t)
	w.a.start()
	serve(t, w.a.pods["pod2"], "172.20.0.11:8080")
	serve(t, w.outside, "10.10.1.200:8080")
	dial(t, w.a.pods["pod1"], "172.20.0.11:8080")
	dial(t, w.a.pods["pod1"], "10.10.1.200:8080")
	stays := dial(t, w.a.pods["pod2"], "10.10.1.200:8080")
	if flows, nats := w.a.count(bpf.Flows), w.a.count(bpf.NATs); flows != 3 || nats != 2 {
		t.Fatalf("%d flows and %d translations, want 3 and 2", flows, nats)
	}
	w.a.SetPods(w.a.status) // the same: nothing happens
	w.a.settle()
	if flows := w.a.count(bpf.Flows); flows != 3 {
		t.Fatalf("%d flows after the same pods again", flows)
	}
	next := w.a.status[0]
	w.a.addPod("pod3", "172.20.0.10", 20)
	w.a.status = append(w.a.status[1:2:2], w.a.status[2])
	w.a.SetPods(w.a.status)
	w.a.settle()
	if flows, nats := w.a.count(bpf.Flows), w.a.count(bpf.NATs); flows != 1 || nats != 1 {
		t.Errorf("%d flows and %d translations are left, want 1 and 1", flows, nats)
	}
	stays.say()
	dial(t, w.a.pods["pod3"], "172.20.0.11:8080")
	var e bpf.DatapathEndpoint
	if err := w.a.maps().Map(bpf.Endpoints).Lookup(next.Endpoint, &e); err != nil || e.Addr != 0 {
		t.Errorf("the endpoint of the pod that is gone: %+v, %v", e, err)
	}
	if n, err := w.a.maps().DeleteFlows(ToFrontend(protocolTCP, netip.MustParseAddrPort("0.0.0.0:8080"))); err != nil || n != 2 {
		t.Errorf("DeleteFlows: %d, %v", n, err)
	}
	if flows, nats := w.a.count(bpf.Flows), w.a.count(bpf.NATs); flows != 0 || nats != 0 {
		t.Errorf("%d flows and %d translations are left, want none", flows, nats)
	}
}

// TestPodsUnknown: an agent that has just started touches no pod before it is
// told of them.
func TestPodsUnknown(t *testing.T) {
	w := newWorld(t)
	w.a.start()
	serve(t, w.a.pods["pod2"], "172.20.0.11:8080")
	open := dial(t, w.a.pods["pod1"], "172.20.0.11:8080")
	w.a.stop()
	d, err := New(w.a.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); d.Run(ctx) }()
	d.Set(w.a.state)
	eventually(t, func() error {
		if _, settled := d.Objects(); !settled {
			return context.DeadlineExceeded
		}
		return nil
	})
	open.say()
	dial(t, w.a.pods["pod1"], "172.20.0.11:8080")
	if links, _ := d.pins.list(linksDir); len(links) != 13 {
		t.Errorf("pinned are %q", links)
	}
	// The state has pod1: it may not have been found yet.
	cluster := *w.a.state.Cluster
	cluster.Pods = []api.Pod{{Namespace: "default", Name: "pod1", Node: "a", Address: w.a.status[0].Address, Identity: 1016}}
	next := w.a.state
	next.Cluster = &cluster
	d.Set(next)
	d.SetPods(nil)
	eventually(t, func() error {
		if links, _ := d.pins.list(linksDir); len(links) != 11 {
			return fmt.Errorf("pinned are %q", links)
		}
		return nil
	})
	var id uint32
	if err := d.now.maps.Map(bpf.Addresses).Lookup(wire(w.a.status[0].Address), &id); err != nil || id != 16 {
		t.Errorf("pod1 has endpoint %d, %v", id, err)
	}
	if err := d.now.maps.Map(bpf.Addresses).Lookup(wire(w.a.status[1].Address), &id); err == nil {
		t.Errorf("pod2 still has endpoint %d", id)
	}
	d.Set(w.a.state)
	eventually(t, func() error {
		if links, _ := d.pins.list(linksDir); len(links) != 9 {
			return context.DeadlineExceeded
		}
		return nil
	})
	cancel()
	<-ended
	d.Close()
}

func (n *node) count(name string) (entries int) {
	m := n.maps().Map(name)
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	for each := m.Iterate(); each.Next(&key, &value); {
		entries++
	}
	return entries
}
