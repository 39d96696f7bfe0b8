//go:build linux

package rtnl

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace makes a network namespace of the test's own, with an interface v0
// of 192.168.10.100/24. It is held open only, and vanishes with the test.
func namespace(t testing.TB) netns.NsHandle {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	made := make(chan netns.NsHandle)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace: %v (the test needs root)", err)
			made <- netns.None()
			return
		}
		ns, err := netns.Get()
		if err != nil {
			t.Error(err)
		}
		made <- ns
	}()
	ns := <-made
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() { ns.Close() })
	run(t, ns, "ip", "link", "set", "lo", "up")
	run(t, ns, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	run(t, ns, "ip", "addr", "add", "192.168.10.100/24", "dev", "v0")
	run(t, ns, "ip", "link", "set", "v0", "up")
	run(t, ns, "ip", "link", "set", "v1", "up")
	return ns
}

// run runs a command in ns and returns its output.
func run(t testing.TB, ns netns.NsHandle, argv ...string) string {
	t.Helper()
	argv = append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), int(ns))}, argv...)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

func open(t testing.TB, ns netns.NsHandle) *Conn {
	t.Helper()
	c, err := Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func index(t testing.TB, ns netns.NsHandle, name string) int {
	t.Helper()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Index
}

// podRoute is the i-th of up to 65,536 routes.
func podRoute(i, device int) Route {
	return Route{
		To:       netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
		NextHops: []NextHop{{Via: netip.MustParseAddr("192.168.10.101"), Index: device}},
		Protocol: RouteProtocol,
	}
}

func changes(verb Verb, n, device int) []Change {
	list := make([]Change, n)
	for i := range list {
		list[i] = Change{verb, podRoute(i, device)}
	}
	return list
}

func apply(t testing.TB, c *Conn, list []Change) []error {
	t.Helper()
	errs, err := c.Change(list)
	if err != nil {
		t.Fatal(err)
	}
	return errs
}

func TestChangeTenThousandRoutes(t *testing.T) {
	ns := namespace(t)
	c := open(t, ns)
	device := index(t, ns, "v0")
	const n = 10_000
	for _, step := range []struct {
		verb Verb
		want int
	}{{Add, n}, {Replace, n}, {Delete, 0}} {
		start := time.Now()
		for i, err := range apply(t, c, changes(step.verb, n, device)) {
			if err != nil {
				t.Fatalf("verb %d, route %d: %v", step.verb, i, err)
			}
		}
		t.Logf("verb %d: %d routes in %v", step.verb, n, time.Since(start))
		if got := strings.Count(run(t, ns, "ip", "-4", "route", "show", "proto", "108"), "\n"); got != step.want {
			t.Errorf("verb %d: %d routes in the kernel, want %d", step.verb, got, step.want)
		}
	}
}

// Every third route is refused: the error must be that of the route, not of its neighbour.
func TestChangeMatchesEachError(t *testing.T) {
	ns := namespace(t)
	c := open(t, ns)
	device := index(t, ns, "v0")
	list := changes(Add, 6_000, device)
	for i := range list {
		switch i % 3 {
		case 1:
			list[i].Route.NextHops[0].Via = netip.MustParseAddr("172.31.0.1") // not on the link
		case 2:
			list[i] = list[i-2] // there already
		}
	}
	for i, err := range apply(t, c, list) {
		want := []error{nil, unix.ENETUNREACH, unix.EEXIST}[i%3]
		if !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Fatalf("route %d: %v, want %v", i, err, want)
		}
	}
	var refusal *Error
	if errors.As(apply(t, c, list[1:2])[0], &refusal); refusal == nil || refusal.Detail != "Nexthop has invalid gateway" {
		t.Errorf("the kernel's explanation is missing: %v", refusal)
	}
	if err := apply(t, c, []Change{{Delete, podRoute(65_000, device)}})[0]; !errors.Is(err, unix.ESRCH) {
		t.Errorf("delete of an absent route: %v, want %v", err, unix.ESRCH)
	}
}

// With the smallest of buffers no answer may be lost.
func TestChangeSmallBuffer(t *testing.T) {
	ns := namespace(t)
	c := open(t, ns)
	if err := unix.SetsockoptInt(c.socket.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.buffer, err = unix.GetsockoptInt(c.socket.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil {
		t.Fatal(err)
	}
	list := changes(Delete, 500, index(t, ns, "v0"))
	for i, err := range apply(t, c, list) {
		if !errors.Is(err, unix.ESRCH) {
			t.Fatalf("route %d: %v", i, err)
		}
	}
	queries := make([]Query, 500)
	for i := range queries {
		queries[i] = Query{To: netip.MustParseAddr("192.168.10.7")}
	}
	decisions, err := c.Lookup(queries)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range decisions {
		if d.Err != nil {
			t.Fatalf("query %d: %v", i, d.Err)
		}
	}
}

// The kinds of route that labctl writes, as ip prints them.
func TestChangeKinds(t *testing.T) {
	ns := namespace(t)
	c := open(t, ns)
	device := index(t, ns, "v0")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	list := []Change{
		{Add, Route{To: prefix("0.0.0.0/0"), NextHops: []NextHop{{Via: addr("192.168.10.1")}},
			Protocol: 16, Source: addr("192.168.10.100"), Metric: 100}},
		{Add, Route{To: prefix("172.20.0.1/32"), NextHops: []NextHop{{Index: device}},
			Protocol: RouteProtocol, Scope: unix.RT_SCOPE_LINK}},
		{Add, Route{To: prefix("172.20.1.0/24"), NextHops: []NextHop{{Via: addr("192.168.10.2")}, {Via: addr("192.168.10.3"), Weight: 2}},
			Protocol: 4, MTU: 1400}},
		{Add, Route{To: prefix("172.20.2.0/24"), Type: unix.RTN_BLACKHOLE, Protocol: 4}},
	}
	for i, err := range apply(t, c, list) {
		if err != nil {
			t.Errorf("route %d: %v", i, err)
		}
	}
	want := `default via 192.168.10.1 dev v0 proto dhcp src 192.168.10.100 metric 100 
172.20.0.1 dev v0 proto 108 scope link 
172.20.1.0/24 proto static mtu 1400 
	nexthop via 192.168.10.2 dev v0 weight 1 
	nexthop via 192.168.10.3 dev v0 weight 2 
blackhole 172.20.2.0/24 proto static 
192.168.10.0/24 dev v0 proto kernel scope link src 192.168.10.100 
`
	if got := run(t, ns, "ip", "-4", "route"); got != want {
		t.Errorf("ip route:\n%s\nwant:\n%s", got, want)
	}
}

func TestWatch(t *testing.T) {
	ns := namespace(t)
	c := open(t, ns)
	device := index(t, ns, "v0")
	w, err := NewWatch(ns, c.Port())
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 100)
	go func() {
		for {
			err := w.Wait()
			heard <- err
			if err != nil {
				return
			}
		}
	}()
	expect := func(what string, want bool) {
		t.Helper()
		time.Sleep(30 * time.Millisecond)
		if got := len(heard) > 0; got != want {
			t.Errorf("%s: heard %v, want %v", what, got, want)
		}
		for len(heard) > 0 {
			if err := <-heard; err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	for told := true; told; { // of the links, which come up as the kernel finds the time
		time.Sleep(100 * time.Millisecond)
		for told = false; len(heard) > 0; told = true {
			<-heard
		}
	}
	expect("silence", false)
	apply(t, c, changes(Add, 100, device))
	expect("routes of the excepted socket", false)
	run(t, ns, "ip", "route", "del", "10.0.5.0/24")
	expect("a route", true)
	run(t, ns, "ip", "link", "set", "v1", "mtu", "1400")
	expect("a link", true)
	run(t, ns, "ip", "addr", "add", "10.99.0.1/24", "dev", "v1")
	expect("an address", true)
	run(t, ns, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/v0/rp_filter")
	expect("rp_filter", true)
	run(t, ns, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	expect("ip_forward", true)
	run(t, ns, "ip", "neigh", "add", "192.168.10.77", "dev", "v0", "nud", "stale", "lladdr", "02:00:00:00:00:01")
	expect("a neighbour that is not permanent", false)
	run(t, ns, "ip", "neigh", "replace", "192.168.10.77", "dev", "v0", "nud", "permanent", "lladdr", "02:00:00:00:00:01")
	expect("a permanent neighbour", true)
	run(t, ns, "ip", "neigh", "del", "192.168.10.77", "dev", "v0")
	expect("a neighbour that is gone", true)
	run(t, ns, "ip", "link", "add", "tunnel", "type", "vxlan", "id", "1", "dstport", "8472", "local", "192.168.10.100", "nolearning")
	expect("a tunnel", true)
	run(t, ns, "bridge", "fdb", "add", "02:00:00:00:00:02", "dev", "tunnel", "dst", "192.168.10.101")
	expect("a forwarding entry", true)
	expect("silence after all", false)
	w.Close()
	if err := <-heard; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A storm overruns the socket; it must still be heard, and what follows it too.
func TestWatchOverrun(t *testing.T) {
	ns := namespace(t)
	c := open(t, ns)
	device := index(t, ns, "v0")
	w, err := NewWatch(ns, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for round := range 3 {
		apply(t, c, changes(Replace, 10_000, device)) // nobody reads meanwhile
		apply(t, c, changes(Delete, 10_000, device))
		for what := range 2 {
			done := make(chan error, 1)
			go func() { done <- w.Wait() }()
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(time.Second):
				t.Fatalf("round %d, %d: nothing heard", round, what)
			}
			apply(t, c, changes(Add, 1, device))
		}
	}
}

func TestList(t *testing.T) {
	tries := 0
	got, err := List(func() (int, error) {
		if tries++; tries < 4 {
			return 0, fmt.Errorf("dump: %w", netlink.ErrDumpInterrupted)
		}
		return tries, nil
	})
	if got != 4 || err != nil {
		t.Errorf("List = %d, %v, want 4, nil", got, err)
	}
	tries = 0
	if _, err = List(func() (int, error) { tries++; return 0, netlink.ErrDumpInterrupted }); tries != maxDumps || !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Errorf("after %d tries: %v", tries, err)
	}
	tries = 0
	if _, err = List(func() (int, error) { tries++; return 0, unix.EPERM }); tries != 1 || err != unix.EPERM {
		t.Errorf("another error, after %d tries: %v", tries, err)
	}
}

func TestProtocolNames(t *testing.T) {
	raw, err := os.ReadFile("/etc/iproute2/rt_protos")
	if os.IsNotExist(err) {
		raw, err = os.ReadFile("/usr/share/iproute2/rt_protos")
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		var number int
		var name string
		if n, _ := fmt.Sscanf(line, "%d %s", &number, &name); n == 2 && ProtocolName(number) != name {
			t.Errorf("ProtocolName(%d) = %q, want %q", number, ProtocolName(number), name)
		}
	}
	if got := ProtocolName(200); got != "200" {
		t.Errorf("ProtocolName(200) = %q", got)
	}
}

func TestProcSysStaysBelow(t *testing.T) {
	for _, name := range []string{"../kernel/hostname", "/etc/passwd", "net/../../self/comm", ""} {
		if value, err := (ProcSys{}).Read(name); err == nil {
			t.Errorf("Read(%q) = %q", name, value)
		}
		if err := (ProcSys{}).Write(name, "x"); err == nil {
			t.Errorf("Write(%q) was done", name)
		}
	}
	if value, err := (ProcSys{}).Read("net/ipv4/ip_forward"); err != nil || (value != "0" && value != "1") {
		t.Errorf("ip_forward = %q, %v", value, err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendChange(nil, Change{Route: podRoute(1, 2)}))
	f.Add([]byte{36, 0, 0, 0, 2, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 24, 0, 5, 6, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = parseAnswers(b, func(a answer) {
			if a.err != nil {
				_ = a.err.Error()
			}
			parseDecision(a.body)
		})
	})
}

// BenchmarkRoutes compares 10,000 routes added and removed by Change with
// ip -batch on the same input.
func BenchmarkRoutes(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("%d/batch", n), func(b *testing.B) {
			ns := namespace(b)
			c := open(b, ns)
			device := index(b, ns, "v0")
			add, remove := changes(Add, n, device), changes(Delete, n, device)
			for b.Loop() {
				apply(b, c, add)
				b.StopTimer()
				apply(b, c, remove)
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("%d/ip", n), func(b *testing.B) {
			ns := namespace(b)
			c := open(b, ns)
			device := index(b, ns, "v0")
			var lines strings.Builder
			for i := range n {
				r := podRoute(i, device)
				fmt.Fprintf(&lines, "route add %s via %s dev v0 proto 108\n", r.To, r.NextHops[0].Via)
			}
			file := filepath.Join(b.TempDir(), "batch")
			if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				run(b, ns, "ip", "-batch", file)
				b.StopTimer()
				apply(b, c, changes(Delete, n, device))
				b.StartTimer()
			}
		})
	}
}
