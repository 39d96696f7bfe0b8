//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// traceSeen is what both tracepath(8) and Trace say of a path.
type traceSeen struct {
	hops   string // a line for each TTL
	resume string
}

var (
	traceLine   = regexp.MustCompile(`^\s*(\d+)(\?)?:\s+(\S+)\s+(?:[\d.]+ms)?\s*(.*)$`)
	traceResume = regexp.MustCompile(`Resume: (.*)`)
)

// parseTracepath reads what `tracepath -n` prints, a router's line on the path
// MTU joined to the hop of that router.
func parseTracepath(t *testing.T, out string) traceSeen {
	t.Helper()
	var hops []api.TraceHop
	var marks []string
	for line := range strings.Lines(out) {
		m := traceLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || m[2] == "?" || m[3] == "send" {
			continue // not a hop: "1:  send failed" is this node's own error
		}
		ttl, _ := strconv.Atoi(m[1])
		rest := m[4]
		if m[3] == "no" {
			hops, marks = append(hops, api.TraceHop{TTL: ttl}), append(marks, "")
			continue
		}
		if mtu, ok := strings.CutPrefix(rest, "pmtu "); ok {
			for i := range hops {
				if hops[i].Address == addr(m[3]) {
					hops[i].PathMTU, _ = strconv.Atoi(mtu)
				}
			}
			continue
		}
		if len(hops) > 0 && hops[len(hops)-1].TTL == ttl {
			continue // a second answer for the same TTL
		}
		hop := api.TraceHop{TTL: ttl, Address: addr(m[3]), Reached: rest == "reached"}
		mark := ""
		if strings.HasPrefix(rest, "!") {
			mark = rest
		}
		_, _ = fmt.Sscanf(rest, "asymm %d", &hop.Asymmetric)
		hops, marks = append(hops, hop), append(marks, mark)
	}
	m := traceResume.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no summary in\n%s", out)
	}
	return traceSeen{hopLines(hops, marks), strings.TrimSpace(m[1])}
}

func hopLines(hops []api.TraceHop, marks []string) string {
	var b strings.Builder
	for i, h := range hops {
		fmt.Fprintf(&b, "%d %s reached=%t pmtu=%d asymm=%d %s\n", h.TTL, h.Address, h.Reached, h.PathMTU, h.Asymmetric, marks[i])
	}
	return b.String()
}

func traceSeenOf(r api.TraceResult) traceSeen {
	marks := make([]string, len(r.Hops))
	if r.Failure != nil && len(marks) > 0 {
		// tracepath has !H for prohibited too: the error queue's errno is the same.
		marks[len(marks)-1] = map[string]string{kindNet: "!N", kindHost: "!H", kindProhibited: "!H"}[r.Failure.Kind]
	}
	resume := fmt.Sprintf("pmtu %d", r.PathMTU)
	if r.Reached {
		resume += fmt.Sprintf(" hops %d back %d", r.HopsThere, r.HopsBack)
	}
	return traceSeen{hopLines(r.Hops, marks), resume}
}

func TestTraceFindsWhatTracepathFinds(t *testing.T) {
	need(t, "tracepath")
	const hops = 4 // tracepath waits three seconds for each that is silent
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			f.make(c)
			// First tracepath, then Trace, which must not be misled by the path MTU that the kernel has learnt from it.
			out := run(c.a, "tracepath", "-n", "-m", strconv.Itoa(hops), f.to)
			got := traceIn(t, c.a, api.TraceTarget{To: addr(f.to), MaxHops: hops, Tries: 2, Timeout: 500 * time.Millisecond, Size: maxDatagram})[0]
			if want := parseTracepath(t, out); traceSeenOf(got) != want {
				t.Errorf("got %+v, tracepath says %+v\n%s", traceSeenOf(got), want, out)
			}
			kind := ""
			if got.Failure != nil {
				kind = got.Failure.Kind
			}
			want := pingKinds[f.name]
			if want == kindTTL {
				want = "" // a loop is no failure of a trace: it runs to its last hop
			}
			if kind != want {
				t.Errorf("kind %q, want %q", kind, want)
			}
			for _, h := range got.Hops {
				if h.Address.IsValid() != (h.RTT > 0) {
					t.Errorf("hop %+v", h)
				}
			}
		})
	}
}

// The path MTU is found the same when a silent hop has all TTLs probed at once.
func TestTraceSpreadFindsThePathMTU(t *testing.T) {
	need(t, "tracepath")
	c := newChain(t)
	c.r1.Run("iptables", "-A", "OUTPUT", "-p", "icmp", "--icmp-type", "time-exceeded", "-j", "DROP")
	c.r1.IP("link set to-r2 mtu 1400")
	c.r2.IP("link set to-b mtu 1300")
	got := traceIn(t, c.a, api.TraceTarget{To: addr("10.0.3.2"), MaxHops: 30, Tries: 2, Timeout: 300 * time.Millisecond, Size: 1500})[0]
	want := "1 10.0.1.1 reached=false pmtu=1400 asymm=0 \n" +
		"2 10.0.2.2 reached=false pmtu=1300 asymm=0 \n" +
		"3 10.0.3.2 reached=true pmtu=0 asymm=0 \n"
	if seen := traceSeenOf(got); seen.hops != want || seen.resume != "pmtu 1300 hops 3 back 3" {
		t.Errorf("got %s%s", seen.hops, seen.resume)
	}
	out := run(c.a, "tracepath", "-n", "10.0.3.2")
	if resume := parseTracepath(t, out).resume; resume != "pmtu 1300 hops 3 back 3" {
		t.Errorf("tracepath says\n%s", out)
	}
}

func TestTraceLocalErrors(t *testing.T) {
	c := newChain(t)
	c.b.IP("route del default")
	c.a.Run("sysctl", "-qw", "net.ipv4.neigh.to-r1.retrans_time_ms=100")
	c.a.Run("iptables", "-A", "OUTPUT", "-d", "10.0.3.66", "-j", "DROP")
	c.a.Run("iptables", "-A", "OUTPUT", "-d", "10.0.3.67", "-j", "REJECT")
	target := api.TraceTarget{MaxHops: 5, Tries: 2, Timeout: time.Second, Size: 1500}
	from := func(to, source string) api.TraceTarget {
		t := target
		t.To = addr(to)
		if source != "" {
			t.From = addr(source)
		}
		return t
	}
	for _, test := range []struct {
		name    string
		target  api.TraceTarget
		onB     bool
		message string
	}{
		{"no route", from("10.0.7.7", ""), true, "network is unreachable"},
		{"firewall", from("10.0.3.66", ""), false, "operation not permitted (a firewall rule of this node drops it)"},
		{"firewall rejects", from("10.0.3.67", ""), false, "operation not permitted (a firewall rule of this node drops it)"},
		{"foreign source", from("10.0.3.2", "10.4.4.4"), false, "10.4.4.4 is not an address of this node: cannot assign requested address"},
		{"ARP failure", from("10.0.1.99", ""), false, "no route to host (the next hop does not answer ARP)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := c.a
			if test.onB {
				ns = c.b
			}
			got := traceIn(t, ns, test.target)[0]
			if f := got.Failure; f == nil || *f != (api.ProbeError{Kind: kindLocal, Message: test.message}) || got.Reached || len(got.Hops) != 0 {
				t.Errorf("got %+v with %+v", got, f)
			}
		})
	}
}

func TestTraceOtherEnds(t *testing.T) {
	c := newChain(t)
	c.r1.Run("iptables", "-A", "FORWARD", "-d", "10.0.3.66", "-j", "REJECT", "--reject-with", "icmp-host-prohibited")
	target := api.TraceTarget{MaxHops: 5, Tries: 1, Timeout: 300 * time.Millisecond, Size: 1500}
	own, source, filtered := target, target, target
	own.To = addr("10.9.9.1")
	source.To, source.From = addr("10.0.3.2"), addr("10.9.9.1")
	filtered.To = addr("10.0.3.66")
	results := traceIn(t, c.a, own, source, filtered)
	if r := results[0]; !r.Reached || r.HopsThere != 1 || r.HopsBack != 1 || len(r.Hops) != 1 {
		t.Errorf("own address: %+v", r)
	}
	if r := results[1]; !r.Reached || r.HopsThere != 3 || r.HopsBack != 3 {
		t.Errorf("source address: %+v", r)
	}
	if r := results[2]; r.Reached || r.Failure == nil || *r.Failure != (api.ProbeError{Kind: kindProhibited, From: addr("10.0.1.1"), Message: "destination host prohibited"}) || len(r.Hops) != 2 {
		t.Errorf("filtered: %+v with %+v", r, r.Failure)
	}
}

// Traces of one node at the same time, in one call and in several, to the same
// and to other targets, find the same as alone.
func TestTracesDoNotMix(t *testing.T) {
	c := newChain(t)
	// Of unreachable routes the kernel tells each sender only five times, and then once a second.
	c.r1.IP("route add 10.0.7.0/24 via 10.0.2.2")
	c.r1.Run("iptables", "-A", "FORWARD", "-d", "10.0.7.0/24", "-j", "REJECT", "--reject-with", "icmp-host-unreachable")
	c.r1.IP("route add blackhole 10.0.8.0/24")
	var targets []api.TraceTarget
	for i := range 60 {
		to := []string{"10.0.3.2", "10.0.7.7", "10.0.8.8", "10.0.1.1"}[i%4]
		targets = append(targets, api.TraceTarget{To: addr(to), MaxHops: 20, Tries: 2, Timeout: 300 * time.Millisecond, Size: 1500})
	}
	done := make(chan []api.TraceResult)
	const calls = 3
	for range calls {
		go c.a.Do(func() {
			response, err := Trace(context.Background(), api.TraceRequest{Targets: targets})
			if err != nil {
				t.Error(err)
			}
			done <- response.Results
		})
	}
	for range calls {
		for i, r := range <-done {
			want := []string{"pmtu 1500 hops 3 back 3", "pmtu 1500", "pmtu 1500", "pmtu 1500 hops 1 back 1"}[i%4]
			hops := []int{3, 2, 20, 1}[i%4]
			if seen := traceSeenOf(r); seen.resume != want || len(r.Hops) != hops || (r.Failure != nil) != (i%4 == 1) {
				t.Errorf("%s: %s\n%s", targets[i].To, seen.resume, seen.hops)
			}
		}
	}
}

func TestTraceOfABlackholeCostsLittle(t *testing.T) {
	c := newChain(t)
	c.r1.IP("route add blackhole 10.0.8.0/24")
	var got api.TraceResult
	took := prompt(t, 600*time.Millisecond, func() {
		got = traceIn(t, c.a, api.TraceTarget{To: addr("10.0.8.8"), MaxHops: 30, Tries: 2, Timeout: 200 * time.Millisecond, Size: 1500})[0]
	})
	t.Logf("30 silent hops in %s", took)
	if took < 400*time.Millisecond || len(got.Hops) != 30 || got.Failure != nil {
		t.Errorf("%d hops in %s", len(got.Hops), took)
	}
}

func TestTraceCancelled(t *testing.T) {
	c := newChain(t)
	c.r1.IP("route add blackhole 10.0.8.0/24")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	var err error
	c.a.Do(func() {
		_, err = Trace(ctx, api.TraceRequest{Targets: []api.TraceTarget{{To: addr("10.0.8.8"), MaxHops: 30, Tries: 3, Timeout: time.Minute, Size: 1500}}})
	})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

func TestTraceRefusesNonsense(t *testing.T) {
	good := api.TraceTarget{To: addr("10.0.0.1"), MaxHops: 1, Tries: 1, Timeout: time.Second, Size: 1500}
	for name, spoil := range map[string]func(*api.TraceTarget){
		"IPv6":    func(t *api.TraceTarget) { t.To = addr("::1") },
		"source":  func(t *api.TraceTarget) { t.From = addr("::1") },
		"hops":    func(t *api.TraceTarget) { t.MaxHops = 256 },
		"no hops": func(t *api.TraceTarget) { t.MaxHops = 0 },
		"tries":   func(t *api.TraceTarget) { t.Tries = 0 },
		"timeout": func(t *api.TraceTarget) { t.Timeout = -1 },
		"small":   func(t *api.TraceTarget) { t.Size = 27 },
		"large":   func(t *api.TraceTarget) { t.Size = 65536 },
	} {
		bad := good
		spoil(&bad)
		if _, err := Trace(context.Background(), api.TraceRequest{Targets: []api.TraceTarget{bad}}); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkTrace3Hops(b *testing.B) {
	c := newChain(b)
	target := api.TraceTarget{To: addr("10.0.3.2"), MaxHops: 16, Tries: 2, Timeout: 400 * time.Millisecond, Size: 1500}
	b.ReportAllocs()
	c.a.Do(func() {
		for b.Loop() {
			response, err := Trace(context.Background(), api.TraceRequest{Targets: []api.TraceTarget{target}})
			if err != nil || !response.Results[0].Reached {
				b.Errorf("%v, %v", response, err)
				return
			}
		}
	})
}
