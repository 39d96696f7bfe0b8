//go:build linux

package probe

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
)

// chain is A - R1 - R2 - B, with R3 between R1 and R2 as a second way:
//
//	A .2  10.0.1.0/24  .1 R1 .1  10.0.2.0/24  .2 R2 .1  10.0.3.0/24  .2 B
//	                      R1 .1  10.0.5.0/24  .3 R3 .3  10.0.4.0/24  .2 R2
//
// A has 10.9.9.1 on its loopback too, which the routers know the way to. Links
// are named to- and the node at their other end.
type chain struct {
	a, r1, r2, r3, b *nstest.Namespace
}

func newChain(t testing.TB) chain {
	c := chain{nstest.New(t), nstest.New(t), nstest.New(t), nstest.New(t), nstest.New(t)}
	for _, r := range []*nstest.Namespace{c.a, c.r1, c.r2, c.r3, c.b} {
		r.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_ratemask=0",
			"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.default.send_redirects=0")
	}
	c.a.Connect("to-r1", c.r1, "to-a")
	c.r1.Connect("to-r2", c.r2, "to-r1")
	c.r2.Connect("to-b", c.b, "to-r2")
	c.r1.Connect("to-r3", c.r3, "to-r1")
	c.r2.Connect("to-r3", c.r3, "to-r2")
	for _, words := range []struct {
		ns  *nstest.Namespace
		all string
	}{
		{c.a, "addr add 10.0.1.2/24 dev to-r1; addr add 10.9.9.1/32 dev lo; route add default via 10.0.1.1"},
		{c.r1, "addr add 10.0.1.1/24 dev to-a; addr add 10.0.2.1/24 dev to-r2; addr add 10.0.5.1/24 dev to-r3; route add 10.0.3.0/24 via 10.0.2.2; route add 10.9.9.1 via 10.0.1.2"},
		{c.r2, "addr add 10.0.2.2/24 dev to-r1; addr add 10.0.3.1/24 dev to-b; addr add 10.0.4.2/24 dev to-r3; route add 10.0.1.0/24 via 10.0.2.1; route add 10.9.9.1 via 10.0.2.1"},
		{c.r3, "addr add 10.0.5.3/24 dev to-r1; addr add 10.0.4.3/24 dev to-r2; route add 10.0.1.0/24 via 10.0.5.1; route add 10.0.3.0/24 via 10.0.4.2"},
		{c.b, "addr add 10.0.3.2/24 dev to-r2; route add default via 10.0.3.1"},
	} {
		for line := range strings.SplitSeq(words.all, ";") {
			words.ns.IP(line)
		}
	}
	return c
}

// fault is what stands between A and a destination, and how it is made.
type fault struct {
	name string
	to   string
	make func(c chain)
}

func faults() []fault {
	return []fault{
		{"plain", "10.0.3.2", func(chain) {}},
		{"one hop", "10.0.1.1", func(chain) {}},
		{"reduced MTU in the middle", "10.0.3.2", func(c chain) {
			c.r1.IP("link set to-r2 mtu 1400")
			c.r2.IP("link set to-r1 mtu 1400")
		}},
		{"reduced MTU twice", "10.0.3.2", func(c chain) {
			c.r1.IP("link set to-r2 mtu 1400")
			c.r2.IP("link set to-b mtu 1300")
		}},
		{"reduced MTU on the first link", "10.0.3.2", func(c chain) {
			c.a.IP("link set to-r1 mtu 1350")
			c.r1.IP("link set to-a mtu 1350")
		}},
		{"blackhole behind R2", "10.0.7.7", func(c chain) {
			c.r1.IP("route add 10.0.7.0/24 via 10.0.2.2")
			c.r2.IP("neigh replace 10.0.3.77 lladdr 02:00:00:00:00:77 nud permanent dev to-b")
			c.r2.IP("route add 10.0.7.0/24 via 10.0.3.77")
		}},
		{"blackhole on R1", "10.0.7.7", func(c chain) { c.r1.IP("route add blackhole 10.0.7.0/24") }},
		{"silent R2", "10.0.3.2", func(c chain) {
			c.r2.Run("iptables", "-A", "OUTPUT", "-p", "icmp", "--icmp-type", "time-exceeded", "-j", "DROP")
		}},
		{"unreachable on R1", "10.0.7.7", func(c chain) { c.r1.IP("route add unreachable 10.0.7.0/24") }},
		{"unreachable on R2", "10.0.7.7", func(c chain) {
			c.r1.IP("route add 10.0.7.0/24 via 10.0.2.2")
			c.r2.IP("route add unreachable 10.0.7.0/24")
		}},
		{"prohibit on R1", "10.0.7.7", func(c chain) { c.r1.IP("route add prohibit 10.0.7.0/24") }},
		{"no route on R1", "10.0.7.7", func(chain) {}},
		{"TTL loop", "10.0.7.7", func(c chain) {
			c.r1.IP("route add 10.0.7.0/24 via 10.0.2.2")
			c.r2.IP("route add 10.0.7.0/24 via 10.0.2.1")
		}},
		{"asymmetric way back", "10.0.3.2", func(c chain) { c.r2.IP("route replace 10.0.1.0/24 via 10.0.4.3") }},
		{"ARP failure on the last link", "10.0.3.99", func(c chain) {
			c.r2.Run("sysctl", "-qw", "net.ipv4.neigh.to-b.retrans_time_ms=100")
		}},
	}
}

// run runs a tool that may fail, and returns what it wrote.
func run(ns *nstest.Namespace, argv ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, _ := ns.Command(ctx, argv...).CombinedOutput()
	return string(out)
}

func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test compares with %s: %v", tool, err)
		}
	}
}

func pingIn(t testing.TB, ns *nstest.Namespace, targets ...api.PingTarget) []api.PingResult {
	t.Helper()
	var response api.PingResponse
	var err error
	ns.Do(func() { response, err = Ping(context.Background(), api.PingRequest{Targets: targets}) })
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Results) != len(targets) {
		t.Fatalf("%d results for %d targets", len(response.Results), len(targets))
	}
	return response.Results
}

func traceIn(t testing.TB, ns *nstest.Namespace, targets ...api.TraceTarget) []api.TraceResult {
	t.Helper()
	var response api.TraceResponse
	var err error
	ns.Do(func() { response, err = Trace(context.Background(), api.TraceRequest{Targets: targets}) })
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Results) != len(targets) {
		t.Fatalf("%d results for %d targets", len(response.Results), len(targets))
	}
	return response.Results
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// prompt does something again, four times at most, that took longer than limit:
// other tests keep this machine busy, but what waits where it need not waits each
// time.
func prompt(t *testing.T, limit time.Duration, do func()) (took time.Duration) {
	t.Helper()
	for range 5 {
		start := time.Now()
		do()
		if took = time.Since(start); took <= limit {
			return took
		}
	}
	t.Errorf("it took %s, want %s at most", took, limit)
	return took
}

// leaks compares descriptors and goroutines before and after f.
func leaks(t *testing.T, f func()) {
	t.Helper()
	count := func() (descriptors, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries), runtime.NumGoroutine()
	}
	files, routines := count()
	f()
	left, running := count()
	for deadline := time.Now().Add(2 * time.Second); (left > files || running > routines) && time.Now().Before(deadline); left, running = count() {
		time.Sleep(10 * time.Millisecond)
	}
	if left > files || running > routines { // fewer means that something before was still closing
		t.Errorf("%d descriptors, %d goroutines before, %d and %d after", files, routines, left, running)
	}
}
