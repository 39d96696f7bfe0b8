//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// pingSeen is what both ping(8) and Ping say of a path.
type pingSeen struct {
	Sent, Received int
	TTL            string
	Failure        string
}

var (
	pingCounts  = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)
	pingTTL     = regexp.MustCompile(`(?m)^\d+ bytes from .* ttl=(\d+) `)
	pingFailure = regexp.MustCompile(`(?m)^From (\S+) icmp_seq=\d+ (.*)$`)
	pingLocal   = regexp.MustCompile(`(?m)^ping: (?:local error|sendmsg|connect|bind): (.*)$`)
)

func parsePing(t *testing.T, out string) pingSeen {
	t.Helper()
	var seen pingSeen
	if m := pingCounts.FindStringSubmatch(out); m != nil {
		_, _ = fmt.Sscan(m[1], &seen.Sent)
		_, _ = fmt.Sscan(m[2], &seen.Received)
	}
	if all := pingTTL.FindAllStringSubmatch(out, -1); all != nil {
		seen.TTL = all[len(all)-1][1]
	}
	if all := pingFailure.FindAllStringSubmatch(out, -1); all != nil {
		last := all[len(all)-1]
		seen.Failure = last[1] + " " + strings.ToLower(strings.TrimSpace(last[2]))
	} else if m := pingLocal.FindStringSubmatch(out); m != nil {
		seen.Failure = "local " + strings.ToLower(m[1])
	}
	return seen
}

func seenOf(r api.PingResult) pingSeen {
	seen := pingSeen{Sent: r.Sent, Received: r.Received}
	if r.ReplyTTL > 0 {
		seen.TTL = fmt.Sprint(r.ReplyTTL)
	}
	if f := r.Failure; f != nil && f.From.IsValid() {
		seen.Failure = f.From.String() + " " + strings.ToLower(f.Message)
	} else if f != nil {
		seen.Failure = "local " + f.Message
	}
	return seen
}

// kinds of failure by fault; the faults that are not here fail without a word or not at all.
var pingKinds = map[string]string{
	"unreachable on R1": kindHost, "unreachable on R2": kindHost, "prohibit on R1": kindProhibited,
	"no route on R1": kindNet, "TTL loop": kindTTL, "ARP failure on the last link": kindHost,
}

func TestPingFindsWhatPingFinds(t *testing.T) {
	need(t, "ping")
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			f.make(c)
			out := run(c.a, "ping", "-n", "-c", "2", "-i", "0.01", "-W", "1", "-M", "dont", f.to)
			got := pingIn(t, c.a, api.PingTarget{To: addr(f.to), Count: 2, Interval: 10 * time.Millisecond, Timeout: time.Second, Size: 56})[0]
			if want := parsePing(t, out); seenOf(got) != want {
				t.Errorf("got %+v, ping says %+v\n%s", seenOf(got), want, out)
			}
			kind := ""
			if got.Failure != nil {
				kind = got.Failure.Kind
			}
			if kind != pingKinds[f.name] {
				t.Errorf("kind %q, want %q", kind, pingKinds[f.name])
			}
			if len(got.RTTs) != got.Received || slices.ContainsFunc(got.RTTs, func(d time.Duration) bool { return d <= 0 || d > time.Second }) {
				t.Errorf("RTTs %v of %d replies", got.RTTs, got.Received)
			}
		})
	}
}

func TestPingOptions(t *testing.T) {
	need(t, "ping")
	narrow := func(c chain) {
		c.r1.IP("link set to-r2 mtu 1400")
		c.r2.IP("link set to-r1 mtu 1400")
	}
	tests := []struct {
		name   string
		argv   string
		target api.PingTarget
		make   func(chain)
		kind   string
		mtu    int
	}{
		{name: "source", argv: "-I 10.9.9.1 10.0.3.2", target: api.PingTarget{To: addr("10.0.3.2"), From: addr("10.9.9.1")}},
		{name: "TTL", argv: "-t 2 10.0.3.2", target: api.PingTarget{To: addr("10.0.3.2"), TTL: 2}, kind: kindTTL},
		{name: "larger than the MTU in the middle", argv: "-M do -s 1472 10.0.3.2", make: narrow,
			target: api.PingTarget{To: addr("10.0.3.2"), Size: 1472, DontFragment: true}, kind: kindTooBig, mtu: 1400},
		{name: "fits the MTU in the middle", argv: "-M do -s 1372 10.0.3.2", make: narrow,
			target: api.PingTarget{To: addr("10.0.3.2"), Size: 1372, DontFragment: true}},
		{name: "fragmented in the middle", argv: "-M dont -s 1472 10.0.3.2", make: narrow, target: api.PingTarget{To: addr("10.0.3.2"), Size: 1472}},
		{name: "fragmented here", argv: "-M dont -s 60000 10.0.3.2", target: api.PingTarget{To: addr("10.0.3.2"), Size: 60000}},
		{name: "odd size", argv: "-M dont -s 17 10.0.3.2", target: api.PingTarget{To: addr("10.0.3.2"), Size: 17}},
		{name: "firewall rejects", argv: "10.0.3.2", target: api.PingTarget{To: addr("10.0.3.2")}, kind: kindHost,
			make: func(c chain) { c.r1.Run("iptables", "-A", "FORWARD", "-j", "REJECT") }},
		{name: "firewall rejects as prohibited", argv: "10.0.3.2", target: api.PingTarget{To: addr("10.0.3.2")}, kind: kindProhibited,
			make: func(c chain) {
				c.r1.Run("iptables", "-A", "FORWARD", "-j", "REJECT", "--reject-with", "icmp-host-prohibited")
			}},
		{name: "own address", argv: "10.9.9.1", target: api.PingTarget{To: addr("10.9.9.1")}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			if test.make != nil {
				test.make(c)
			}
			test.target.Count, test.target.Timeout = 1, time.Second
			test.target.Size = max(test.target.Size, tagSize)
			// First ping, then Ping, which must not be misled by the path MTU that the kernel has learnt from it.
			out := run(c.a, append([]string{"ping", "-n", "-c", "1", "-W", "1"}, strings.Fields(test.argv)...)...)
			got := pingIn(t, c.a, test.target)[0]
			if want := parsePing(t, out); seenOf(got) != want {
				t.Errorf("got %+v, ping says %+v\n%s", seenOf(got), want, out)
			}
			if test.kind == "" && got.Failure == nil {
				return
			}
			if got.Failure == nil || got.Failure.Kind != test.kind || got.Failure.MTU != test.mtu {
				t.Errorf("failure %+v, want %s with MTU %d", got.Failure, test.kind, test.mtu)
			}
		})
	}
}

func TestPingLocalErrors(t *testing.T) {
	c := newChain(t)
	c.a.Run("iptables", "-A", "OUTPUT", "-d", "10.0.3.66", "-j", "DROP")
	c.a.IP("route add unreachable 10.0.8.0/24")
	c.a.IP("route add prohibit 10.0.9.0/24")
	c.a.IP("route add blackhole 10.0.10.0/24")
	c.a.IP("route add throw 10.0.11.0/24")
	c.a.Run("sysctl", "-qw", "net.ipv4.neigh.to-r1.retrans_time_ms=100")
	c.b.IP("route del default")
	tests := []struct {
		name   string
		target api.PingTarget
		ns     string
		want   api.ProbeError
	}{
		{"no route", api.PingTarget{To: addr("10.0.7.7")}, "b", api.ProbeError{Message: "network is unreachable"}},
		{"unreachable route", api.PingTarget{To: addr("10.0.8.1")}, "a", api.ProbeError{Message: "no route to host"}},
		{"prohibit route", api.PingTarget{To: addr("10.0.9.1")}, "a", api.ProbeError{Message: "permission denied (a broadcast address, or a route that prohibits)"}},
		{"blackhole route", api.PingTarget{To: addr("10.0.10.1")}, "a", api.ProbeError{Message: "invalid argument"}},
		{"broadcast", api.PingTarget{To: addr("10.0.1.255")}, "a", api.ProbeError{Message: "permission denied (a broadcast address, or a route that prohibits)"}},
		{"firewall", api.PingTarget{To: addr("10.0.3.66")}, "a", api.ProbeError{Message: "operation not permitted (a firewall rule of this node drops it)"}},
		{"foreign source", api.PingTarget{To: addr("10.0.3.2"), From: addr("10.4.4.4")}, "a", api.ProbeError{Message: "10.4.4.4 is not an address of this node: cannot assign requested address"}},
		{"longer than the device's MTU", api.PingTarget{To: addr("10.0.3.2"), Size: 1473, DontFragment: true}, "a", api.ProbeError{MTU: 1500, Message: "message too long (mtu = 1500)"}},
		{"ARP failure", api.PingTarget{To: addr("10.0.1.99")}, "a", api.ProbeError{Message: "no route to host (the next hop does not answer ARP)"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ns := map[string]chain{"a": {a: c.a}, "b": {a: c.b}}[test.ns].a
			test.target.Count, test.target.Timeout = 2, 3*time.Second
			test.target.Size = max(test.target.Size, tagSize)
			test.want.Kind = kindLocal
			var got api.PingResult
			prompt(t, time.Second, func() { got = pingIn(t, ns, test.target)[0] }) // the error is known
			if got.Failure == nil || *got.Failure != test.want || got.Received != 0 || got.Sent != 2 {
				t.Errorf("got %+v with %+v, want %+v", got, got.Failure, test.want)
			}
		})
	}
}

// What another target's error leaves on the socket must not stop or spoil an echo.
func TestPingManyTargets(t *testing.T) {
	c := newChain(t)
	// Of unreachable routes the kernel tells each sender only five times, and then once a second.
	c.r1.IP("route add 10.0.7.0/24 via 10.0.2.2")
	c.r1.Run("iptables", "-A", "FORWARD", "-d", "10.0.7.0/24", "-j", "REJECT", "--reject-with", "icmp-host-unreachable")
	c.r1.IP("route add blackhole 10.0.8.0/24")
	for i := range 50 {
		c.b.IP(fmt.Sprintf("addr add 10.0.3.%d/24 dev to-r2", 100+i))
	}
	var targets []api.PingTarget
	for i := range 100 {
		t := api.PingTarget{To: netip.AddrFrom4([4]byte{10, 0, 3, byte(100 + i%50)}), Count: 3, Timeout: 500 * time.Millisecond, Size: 56, Probe: uint32(i)}
		switch i % 4 {
		case 1:
			t.To = netip.AddrFrom4([4]byte{10, 0, 7, byte(i)})
		case 2:
			t.Size, t.DontFragment = 1473, true
		case 3:
			t.From = addr("10.9.9.1")
		}
		targets = append(targets, t)
	}
	var results []api.PingResult
	prompt(t, 400*time.Millisecond, func() { results = pingIn(t, c.a, targets...) }) // every answer is there
	for i, r := range results {
		want, failure := 3, ""
		switch i % 4 {
		case 1:
			want, failure = 0, "10.0.1.1 destination host unreachable"
		case 2:
			want, failure = 0, "local message too long (mtu = 1500)"
		}
		if seen := seenOf(r); r.Received != want || seen.Failure != failure || r.Sent != 3 {
			t.Errorf("target %d %+v: %+v", i, targets[i], seen)
		}
	}
}

func TestPingTimes(t *testing.T) {
	c := newChain(t)
	c.r1.IP("route add blackhole 10.0.8.0/24")
	lost := api.PingTarget{To: addr("10.0.8.8"), Count: 2, Interval: 100 * time.Millisecond, Timeout: 200 * time.Millisecond, Size: 16}
	var got api.PingResult
	if took := prompt(t, 400*time.Millisecond, func() { got = pingIn(t, c.a, lost)[0] }); took < 300*time.Millisecond {
		t.Errorf("took %s, want the interval and the timeout", took)
	}
	if got.Sent != 2 || got.Received != 0 || got.Failure != nil {
		t.Errorf("got %+v of a blackhole", got)
	}

	// B takes the address between R2's first question for it and the second.
	c.r2.Run("sysctl", "-qw", "net.ipv4.neigh.to-b.retrans_time_ms=500")
	taken := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() {
		defer close(taken)
		run(c.b, "ip", "addr", "add", "10.0.3.50/24", "dev", "to-r2")
	})
	far := api.PingTarget{To: addr("10.0.3.50"), Count: 1, Timeout: 5 * time.Second, Size: 16}
	late := far
	late.Timeout = 30 * time.Millisecond
	results := pingIn(t, c.a, far, late)
	<-taken
	if rtts := results[0].RTTs; len(rtts) != 1 || rtts[0] < 450*time.Millisecond || rtts[0] > 2*time.Second {
		t.Errorf("RTTs %v over a delay of 500 ms", rtts)
	}
	if results[1].Received != 0 {
		t.Errorf("a reply after the timeout counted: %+v", results[1])
	}
}

func TestPingCancelled(t *testing.T) {
	c := newChain(t)
	c.r1.IP("route add blackhole 10.0.8.0/24")
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	var err error
	c.a.Do(func() {
		_, err = Ping(ctx, api.PingRequest{Targets: []api.PingTarget{{To: addr("10.0.8.8"), Count: 1, Timeout: time.Minute, Size: 16}}})
	})
	if !errors.Is(err, context.Canceled) || time.Since(start) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

func TestPingRefusesNonsense(t *testing.T) {
	good := api.PingTarget{To: addr("10.0.0.1"), Count: 1, Timeout: time.Second, Size: 16}
	for name, spoil := range map[string]func(*api.PingTarget){
		"no target": func(t *api.PingTarget) { t.To = netip.Addr{} },
		"IPv6":      func(t *api.PingTarget) { t.To = addr("::1") },
		"any":       func(t *api.PingTarget) { t.To = addr("0.0.0.0") },
		"source":    func(t *api.PingTarget) { t.From = addr("fe80::1") },
		"count":     func(t *api.PingTarget) { t.Count = 0 },
		"timeout":   func(t *api.PingTarget) { t.Timeout = 0 },
		"small":     func(t *api.PingTarget) { t.Size = 15 },
		"large":     func(t *api.PingTarget) { t.Size = 65508 },
		"TTL":       func(t *api.PingTarget) { t.TTL = 256 },
		"memory":    func(t *api.PingTarget) { t.Count = 0x10000 },
	} {
		bad := good
		spoil(&bad)
		if _, err := Ping(context.Background(), api.PingRequest{Targets: []api.PingTarget{bad}}); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPingAndTraceLeaveNothingOpen(t *testing.T) {
	c := newChain(t)
	c.r1.IP("route add blackhole 10.0.8.0/24")
	leaks(t, func() {
		for range 3 {
			pingIn(t, c.a, api.PingTarget{To: addr("10.0.3.2"), Count: 1, Timeout: time.Second, Size: 16},
				api.PingTarget{To: addr("10.0.8.8"), Count: 1, Timeout: 20 * time.Millisecond, Size: 16},
				api.PingTarget{To: addr("10.0.3.2"), From: addr("10.4.4.4"), Count: 1, Timeout: time.Second, Size: 16})
			traceIn(t, c.a, api.TraceTarget{To: addr("10.0.3.2"), MaxHops: 5, Tries: 1, Timeout: 50 * time.Millisecond, Size: 1500},
				api.TraceTarget{To: addr("10.0.8.8"), MaxHops: 5, Tries: 1, Timeout: 50 * time.Millisecond, Size: 1500})
		}
	})
}

func BenchmarkPing100Targets(b *testing.B) {
	c := newChain(b)
	targets := make([]api.PingTarget, 100)
	for i := range targets {
		targets[i] = api.PingTarget{To: addr("10.0.3.2"), Count: 1, Timeout: time.Second, Size: 56, Probe: uint32(i)}
	}
	b.ReportAllocs()
	c.a.Do(func() {
		for b.Loop() {
			response, err := Ping(context.Background(), api.PingRequest{Targets: targets})
			if err != nil {
				b.Error(err)
				return
			}
			for _, r := range response.Results {
				if r.Received != 1 {
					b.Errorf("%+v", r)
					return
				}
			}
		}
	})
}
