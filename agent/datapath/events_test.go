//go:build linux

package datapath

import (
	"context"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

func (n *node) listening() uint32 {
	var s bpf.DatapathSetting
	if err := n.maps().Map(bpf.Settings).Lookup(uint32(0), &s); err != nil {
		n.t.Fatal(err)
	}
	return s.Listen
}

// TestSubscribe: each hears what it asked for, and nothing is written while
// nobody asks.
func TestSubscribe(t *testing.T) {
	w := newWorld(t)
	w.a.start()
	serve(t, w.a.pods["pod2"], "172.20.0.11:8080")
	if got := w.a.listening(); got != 0 {
		t.Errorf("listen is %d before anybody asks", got)
	}
	all, endAll := context.WithCancel(context.Background())
	some, endSome := context.WithCancel(context.Background())
	everything := w.a.Subscribe(all, bpf.DatapathListenLISTEN_ALL)
	drops := w.a.Subscribe(some, bpf.DatapathListenLISTEN_DROPS)
	flows := w.a.Subscribe(all, bpf.DatapathListenLISTEN_FLOWS)
	if got := w.a.listening(); got != 3 {
		t.Errorf("listen is %d, want 3", got)
	}
	k := dial(t, w.a.pods["pod1"], "172.20.0.11:8080")
	for range 20 {
		k.say()
	}
	w.a.pods["pod1"].IP("addr add 172.20.0.99/32 dev eth0")
	_ = w.a.pods["pod1"].Command(all, "ping", "-c1", "-W1", "-I", "172.20.0.99", "172.20.0.11").Run()
	drop := next(t, drops, "drop")
	if drop.Reason != 132 || drop.ReasonText != "Invalid source ip" || drop.Device != "lxcpod1" || drop.SourceIdentity != 1016 ||
		drop.DestinationIdentity != 1017 || drop.OrigSource.String() != "172.20.0.99" || len(drop.Packet) != 96 || drop.Length != 98 ||
		time.Since(drop.Time).Abs() > 10*time.Second {
		t.Errorf("drop: %+v", drop)
	}
	first := next(t, flows, "trace")
	if first.State != "new" || first.Point != "to-endpoint" && first.Point != "to-stack" || first.SourceIdentity != 1016 {
		t.Errorf("trace: %+v", first)
	}
	var heard, heardFlows int
	for len(everything) > 0 {
		<-everything
		heard++
	}
	for len(flows) > 0 {
		if e := <-flows; e.Type == "trace" && e.State != "new" {
			if flags := e.Packet[14+20+13]; flags&7 == 0 {
				t.Errorf("not of the first or last packets: %+v", e)
			}
		}
		heardFlows++
	}
	if len(drops) > 0 || heard < 40 || heardFlows > 20 {
		t.Errorf("heard %d of all, %d of flows, %d more of drops", heard, heardFlows, len(drops))
	}
	endAll()
	eventually(t, func() error {
		if w.a.listening() != 1 {
			return context.DeadlineExceeded
		}
		return nil
	})
	endSome()
	for range drops { // ends
	}
	eventually(t, func() error {
		w.a.hub.mu.Lock()
		defer w.a.hub.mu.Unlock()
		if w.a.listening() != 0 || w.a.hub.reader != nil {
			return context.DeadlineExceeded
		}
		return nil
	})
}

func next(t *testing.T, from <-chan api.MonitorEvent, kind string) api.MonitorEvent {
	t.Helper()
	timeout := time.After(3 * time.Second)
	for {
		select {
		case e := <-from:
			if e.Type == kind {
				return e
			}
		case <-timeout:
			t.Fatalf("no event of type %s", kind)
		}
	}
}

// TestLost: who is slow is told how much he missed, and hears on.
func TestLost(t *testing.T) {
	h := newHub(func(err error) { t.Error(err) }, func(int) string { return "" })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	slow := h.subscribe(ctx, bpf.DatapathListenLISTEN_ALL)
	event := &bpf.DatapathEvent{Type: uint8(bpf.DatapathEventTypeEVENT_DROP), Reason: 132}
	for range waiting + 5 {
		h.deliver(event)
	}
	for range waiting {
		<-slow
	}
	h.deliver(event)
	if e := <-slow; e.Type != "lost" || e.Lost != 5 {
		t.Errorf("%+v", e)
	}
	if e := <-slow; e.Type != "drop" {
		t.Errorf("%+v", e)
	}
}
