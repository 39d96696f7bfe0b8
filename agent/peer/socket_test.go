//go:build linux

package peer

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/listen"
	"github.com/native-routing/labctl/agent/nstest"
)

// runIn runs an exchange in the namespace until the test ends.
func runIn(t *testing.T, ns *nstest.Namespace, state api.State) *Exchange {
	x := New(Config{Report: func(err error) { t.Error(err) }, OnChange: func() {}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ns.Do(func() { x.Run(ctx) })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	x.Set(state)
	return x
}

// testPatience is for a machine that other tests keep busy: how fast things are is
// measured elsewhere.
const testPatience = 20 * time.Second

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testPatience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, testPatience)
		}
	}
}

// lab is two nodes on one link; the second has no address yet.
func lab(t *testing.T) (a, b *nstest.Namespace) {
	a, b = nstest.New(t), nstest.New(t)
	a.Connect("eth1", b, "eth1")
	a.IP("addr add 192.168.0.100/16 dev eth1")
	return a, b
}

const addressOfB = "addr add 192.168.1.100/16 dev eth1"

// TestSockets tells a thousand pods over a real link, on which an address comes
// late and goes for a while.
func TestSockets(t *testing.T) {
	nsA, nsB := lab(t)
	pods, running := crowd(1000, "n1")
	a, b := runIn(t, nsA, stateOf("n0", 2, pods...)), runIn(t, nsB, stateOf("n1", 2, pods...))
	a.SetLocal(nil)
	b.SetLocal(running)
	count := func(state State) (n int) {
		for _, s := range a.States() {
			if s == state {
				n++
			}
		}
		return n
	}
	time.Sleep(100 * time.Millisecond)
	if n := count(Unknown); n != 1000 {
		t.Fatalf("%d pods are unknown, and nobody can have told", n)
	}
	nsB.IP(addressOfB)
	eventually(t, "the list", func() bool { return count(NotReady) == 1000 })
	eventually(t, "settled", func() bool { _, settled := a.Objects(); return settled })

	nsB.IP("link set eth1 down")
	running[0].Ready = true
	b.SetLocal(running)
	time.Sleep(1500 * time.Millisecond) // until the repeats are over
	if n := count(NotReady); n != 1000 {
		t.Errorf("%d pods are not ready: a silent node's last word does not stay", n)
	}
	nsB.IP("link set eth1 up")
	eventually(t, "the change", func() bool { return count(Ready) == 1 && count(NotReady) == 999 })
	t.Logf("received %+v", a.Stats())
}

// TestTakenPort has somebody else on the port first.
func TestTakenPort(t *testing.T) {
	nsA, nsB := lab(t)
	nsB.IP(addressOfB)
	var other interface{ Close() error }
	var err error
	nsA.Do(func() { other, err = listen.UDP(t.Context(), netip.MustParseAddrPort("0.0.0.0:4240")) })
	if err != nil {
		t.Fatal(err)
	}
	p := pod("p1", "n1")
	a, b := runIn(t, nsA, stateOf("n0", 2, p)), runIn(t, nsB, stateOf("n1", 2, p))
	b.SetLocal([]api.PodStatus{status(p, "ready")})
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := socketObject(api.Failed, fmt.Sprintf("listen on udp 192.168.0.100:4240: address already in use (%s has it, process %d)",
		strings.TrimSpace(string(comm)), os.Getpid()))
	eventually(t, "the failure", func() bool {
		objects, settled := a.Objects()
		return objects[0] == want && !settled
	})
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the list", func() bool { return a.States()["default/p1"] == Ready })
}
