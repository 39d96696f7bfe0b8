//go:build linux

package probe

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
	"golang.org/x/sys/unix"
)

// newPair is two nodes on a link, 10.0.1.1 and 10.0.1.2.
func newPair(t *testing.T) (a, b *nstest.Namespace) {
	a, b = nstest.New(t), nstest.New(t)
	a.Connect("to-b", b, "to-a")
	a.IP("addr add 10.0.1.1/24 dev to-b")
	b.IP("addr add 10.0.1.2/24 dev to-a")
	return a, b
}

// A veth drops what is longer than its other end's MTU, and the kernel tells
// the sender so with ENOBUFS each time it tries.
func TestOtherEndOfALinkHasASmallerMTU(t *testing.T) {
	need(t, "ping", "tracepath")
	a, b := newPair(t)
	b.IP("link set to-a mtu 1400")
	const noBuffer = "no buffer space available"

	for _, size := range []int{1472, 1372} {
		target := api.PingTarget{To: addr("10.0.1.2"), Count: 2, Interval: 10 * time.Millisecond, Timeout: 300 * time.Millisecond, Size: size, DontFragment: true}
		out := run(a, "ping", "-n", "-c", "2", "-i", "0.01", "-W", "1", "-M", "do", "-s", strconv.Itoa(size), "10.0.1.2")
		var got api.PingResult
		prompt(t, time.Second, func() { got = pingIn(t, a, target)[0] })
		seen := seenOf(got)
		if strings.HasPrefix(seen.Failure, "local "+noBuffer) {
			seen.Failure = "local " + noBuffer // without the explanation
		}
		if want := parsePing(t, out); seen != want {
			t.Errorf("got %+v, ping says %+v\n%s", seen, want, out)
		}
		if (got.Failure != nil) != (size == 1472) {
			t.Errorf("ping of %d: failure %+v", size, got.Failure)
		}
	}

	for _, test := range []struct {
		size    int
		argv    string
		reached bool
		says    string
	}{
		{1500, "tracepath -n -m 4 10.0.1.2", false, "send failed"},
		{1400, "tracepath -n -m 4 -l 1400 10.0.1.2", true, "reached"},
	} {
		out := run(a, strings.Fields(test.argv)...)
		var got api.TraceResult
		prompt(t, time.Second, func() {
			got = traceIn(t, a, api.TraceTarget{To: addr("10.0.1.2"), MaxHops: 30, Tries: 2, Timeout: 300 * time.Millisecond, Size: test.size})[0]
		})
		if want := parseTracepath(t, out); traceSeenOf(got) != want || !strings.Contains(out, test.says) {
			t.Errorf("trace of %d: got %+v, tracepath says %+v\n%s", test.size, traceSeenOf(got), want, out)
		}
		if test.reached != got.Reached || test.reached != (got.Failure == nil) {
			t.Errorf("trace of %d: %+v with %+v", test.size, got, got.Failure)
		}
		if f := got.Failure; f != nil && (f.Kind != kindLocal || !strings.HasPrefix(f.Message, noBuffer)) {
			t.Errorf("trace of %d: failure %+v", test.size, f)
		}
	}
}

// Packets that wait for ARP fill a small send buffer, and nothing empties it.
func TestTraceEndsThoughTheSendBufferStaysFull(t *testing.T) {
	a, _ := newPair(t)
	a.Run("sysctl", "-qw", "net.ipv4.neigh.to-b.retrans_time_ms=60000")
	target := api.TraceTarget{To: addr("10.0.1.99"), MaxHops: 30, Tries: 2, Timeout: 400 * time.Millisecond, Size: 1500}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	a.Do(func() {
		tracer, err := newTracer(api.TraceRequest{Targets: []api.TraceTarget{target}})
		if err == nil {
			err = tracer.open()
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer tracer.socket.close()
		if err := tracer.socket.set(option{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 1}); err != nil {
			t.Error(err)
			return
		}
		start := time.Now()
		err = tracer.socket.run(ctx, &tracer.agenda, tracer.do, func() bool { return tracer.unfinished == 0 })
		took := time.Since(start)
		result := tracer.response().Results[0]
		if err != nil || took > 3*time.Second || result.Failure == nil || result.Failure.Message != errBusy.Error() {
			t.Errorf("%v after %s: %+v with %+v", err, took, result, result.Failure)
		}
	})
}

// The same for a ping. A raw socket hardly fills its buffer, so that this one is
// of the other kind that sends echoes.
func TestPingEndsThoughTheSendBufferStaysFull(t *testing.T) {
	a, _ := newPair(t)
	a.Run("sysctl", "-qw", "net.ipv4.neigh.to-b.retrans_time_ms=60000", "net.ipv4.ping_group_range=0 0")
	target := api.PingTarget{To: addr("10.0.1.99"), Count: 100, Interval: time.Millisecond, Timeout: 300 * time.Millisecond, Size: 1400}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	a.Do(func() {
		p, err := newPinger(api.PingRequest{Targets: []api.PingTarget{target}})
		if err == nil {
			p.socket, err = newSocket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, 2048)
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer p.socket.close()
		p.socket.to = p
		if err := p.socket.set(option{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 1}); err != nil {
			t.Error(err)
			return
		}
		start := time.Now()
		err = p.socket.run(ctx, &p.agenda, p.do, func() bool { return p.waiting == 0 })
		took := time.Since(start)
		result := p.response().Results[0]
		if err != nil || took > 3*time.Second || result.Sent != target.Count || result.Failure == nil || result.Failure.Message != errBusy.Error() {
			t.Errorf("%v after %s: %+v with %+v", err, took, result, result.Failure)
		}
	})
}
