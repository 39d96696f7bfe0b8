//go:build linux

package bpf

import (
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onCPU runs do on one CPU. The caller's thread is locked.
func onCPU(t *testing.T, cpu int, do func()) {
	t.Helper()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		t.Fatalf("run on CPU %d: %v", cpu, err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

// A client's port begins a connection anew within a tick of the last one, on one
// CPU, while another still has a copy of what was before.
func TestNoCopyOutlivesItsFlow(t *testing.T) {
	first, second := netip.MustParseAddrPort("172.20.1.20:8080"), netip.MustParseAddrPort("172.20.1.30:8080")
	for name, cpu := range map[string]int{"one CPU": 0, "two CPUs": runtime.NumCPU() - 1} {
		t.Run(name, func(t *testing.T) {
			onNode(t, testOptions, func(n *node) {
				n.backend(t, strings.Fields("1 "+first.String()+"/tcp"))
				n.backend(t, strings.Fields("2 "+second.String()+"/tcp"))
				n.service(t, strings.Fields("10.96.0.10:80/tcp 1 backends=1"))
				// A tick must not end in between, for then there is nothing to see.
				beginTick(t)
				send := func(on int, flags string, want netip.AddrPort) {
					t.Helper()
					onCPU(t, on, func() {
						_, to := ends(n.send(t, FromPod, "lxc1", "tcp 172.20.0.10:40000 > 10.96.0.10:80 "+flags))
						if to != want {
							t.Errorf("%s on CPU %d goes to %v, want %v", flags, on, to, want)
						}
					})
				}
				send(0, "S", first)
				for range 3 {
					send(cpu, "A", first)
				}
				n.service(t, strings.Fields("10.96.0.10:80/tcp 1 backends=2"))
				send(cpu, "A", first) // it goes on as it began
				send(0, "R", first)
				send(0, "S", second)
				for range 3 {
					send(cpu, "A", second)
				}
			})
		})
	}
}

// A flow that goes on is marked as seen in its entry, once a tick.
func TestCopiesKeepFlowsAlive(t *testing.T) {
	onNode(t, testOptions, func(n *node) {
		onCPU(t, 0, func() {
			ack := func() uint32 {
				t.Helper()
				n.send(t, FromPod, "lxc1", "tcp 172.20.0.10:40000 > 172.20.1.20:80 A")
				var flow DatapathFlow
				key := DatapathFlowKey{Client: ip("172.20.0.10"), ClientPort: Port(40000), Proto: 6}
				if err := n.Maps[Flows].Lookup(key, &flow); err != nil {
					t.Fatal(err)
				}
				return flow.Seen
			}
			first, next := ack(), uint32(0)
			deadline := time.Now().Add(3 * testOptions.Features.Clock().Tick())
			for next = ack(); next == first && time.Now().Before(deadline); next = ack() {
				time.Sleep(time.Millisecond)
			}
			if next == first {
				t.Errorf("seen at tick %d, and two ticks later still", next)
			}
		})
	})
}

// beginTick waits until a tick of the datapath's clock has just begun.
func beginTick(t *testing.T) {
	t.Helper()
	clock := testOptions.Features.Clock()
	start, err := clock.Now()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(3 * clock.Tick()); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		now, err := clock.Now()
		if err != nil {
			t.Fatal(err)
		}
		if now != start {
			time.Sleep(10 * time.Millisecond) // Now may be one off
			return
		}
	}
	t.Fatal("the clock stands still")
}
