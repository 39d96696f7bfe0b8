//go:build linux

package datapath

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/native-routing/labctl/bpf"
)

// TestTraffic loads, attaches and lets pods talk: on one node, to another, by a
// service, and to the world, which sees the node's address.
func TestTraffic(t *testing.T) {
	for _, way := range []string{"tcx", "clsact"} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t)
			force := func(d *Datapath) { d.noTCX = way == "clsact" }
			w.a.start(force)
			w.b.start(force)
			if got := w.a.Status(); got.Attach != way || len(got.Devices) != 2 || !got.SocketLB {
				t.Errorf("status: %+v", got)
			}
			local := serve(t, w.a.pods["pod2"], "172.20.0.11:8080")
			remote := serve(t, w.b.pods["pod"], "172.20.1.10:8080")
			world := serve(t, w.outside, "10.10.1.200:8080")
			service(t, w.a.maps(), "10.96.0.20:80", "172.20.1.10:8080")
			for _, c := range []struct {
				to     string
				server chan netip.AddrPort
				seen   string
			}{
				{"172.20.0.11:8080", local, "172.20.0.10"},
				{"172.20.1.10:8080", remote, "172.20.0.10"},
				{"10.96.0.20:80", remote, "172.20.0.10"},
				{"10.10.1.200:8080", world, "192.168.30.100"},
			} {
				dial(t, w.a.pods["pod1"], c.to)
				if from := <-c.server; from.Addr().String() != c.seen {
					t.Errorf("%s was called by %s, want %s", c.to, from, c.seen)
				}
			}
			dial(t, w.a.ns, "172.20.0.11:8080")
			w.noDrops()
		})
	}
}

// noDrops says that nothing was thrown away on the way.
func (w *world) noDrops() {
	w.t.Helper()
	for _, n := range []*node{w.a, w.b} {
		for reason := bpf.DatapathReason(130); reason < bpf.DatapathReasonREASON_COUNT; reason++ {
			for direction := bpf.DatapathDirection(0); direction < 4; direction++ {
				var per []bpf.DatapathMetric
				if err := n.maps().Map(bpf.Metrics).Lookup(bpf.MetricIndex(reason, direction), &per); err != nil {
					w.t.Fatal(err)
				}
				for _, m := range per {
					if m.Packets > 0 {
						w.t.Errorf("node %s dropped %d packets: %s", n.state.Node, m.Packets, ReasonText(reason))
					}
				}
			}
		}
	}
}

// TestRestart: a connection by a service whose frontend is gone lives by its
// flow alone, over restarts, which load nothing.
func TestRestart(t *testing.T) {
	for _, way := range []string{"tcx", "clsact"} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t)
			force := func(d *Datapath) { d.noTCX = way == "clsact" }
			w.a.start(force)
			w.b.start(force)
			serve(t, w.b.pods["pod"], "172.20.1.10:8080")
			serve(t, w.outside, "10.10.1.200:8080")
			forget := service(t, w.a.maps(), "10.96.0.20:80", "172.20.1.10:8080")
			open := []*talk{dial(t, w.a.pods["pod1"], "10.96.0.20:80"), dial(t, w.a.pods["pod1"], "10.10.1.200:8080")}
			forget()
			before, _ := programID(w.a.now.programs[bpf.FromPod])
			for range 3 {
				w.a.stop()
				for _, k := range open {
					k.say()
				}
				began := time.Now()
				w.a.start(force)
				t.Logf("restarted in %v", time.Since(began))
				for _, k := range open {
					k.say()
				}
			}
			if after, _ := programID(w.a.now.programs[bpf.FromPod]); after != before {
				t.Errorf("program %d was loaded anew as %d", before, after)
			}
			w.noDrops()
		})
	}
}

// TestRemove leaves nothing behind, and is done again without complaint.
func TestRemove(t *testing.T) {
	for _, way := range []string{"tcx", "clsact"} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t)
			w.a.start(func(d *Datapath) { d.noTCX = way == "clsact" })
			w.a.state.Cluster = nil
			w.a.Set(w.a.state)
			w.a.settle()
			w.nothingLeft()
			if w.a.Status() != nil {
				t.Errorf("status: %+v", w.a.Status())
			}
			if err := Remove(w.a.config); err != nil {
				t.Error(err)
			}
		})
	}
}

func (w *world) nothingLeft() {
	w.t.Helper()
	left, err := os.ReadDir(w.a.config.PinDir)
	if err != nil || len(left) > 0 {
		w.t.Errorf("left in the pin directory: %v, %v", left, err)
	}
	if filters, err := w.a.hooks.filters.list(); err != nil || len(filters) > 0 {
		w.t.Errorf("left filters: %v, %v", filters, err)
	}
	if qdiscs, err := w.a.hooks.filters.qdiscs(); err != nil || len(qdiscs) > 0 {
		w.t.Errorf("left qdiscs: %v, %v", qdiscs, err)
	}
	if n, err := attachedTCX(w.a); err != nil || n > 0 {
		w.t.Errorf("%d TCX programs are attached, %v", n, err)
	}
}
