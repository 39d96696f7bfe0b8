//go:build linux

package probe

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"golang.org/x/sys/unix"
)

const (
	// firstPort is where the destination ports of a trace begin, as tracepath's do.
	firstPort = 44444
	udpHeader = 8
	// minMTU is the least that RFC 791 allows a link.
	minMTU = 68
	// spreadAfter is the part of a hop's timeout after which it counts as slow.
	spreadAfter = 4
)

// Trace follows the path to every target at once, over one UDP socket, and
// finds what tracepath(8) finds: the answer of each TTL, the path MTU, and from
// the TTL of the answers the hops of the way back. The error is an [*api.Error]
// for a request that makes no sense, the context's, or that of a socket which
// could not be opened; all else is in the results.
//
// Every probe has a destination port of its own, from 44444 up, and every call
// a source port, so that the errors of several calls do not mix. Probes leave
// with DF, as large as the device's MTU allows, whatever path MTU the kernel
// has learnt before (IP_PMTUDISC_PROBE).
//
// The hops are probed one after another while they answer. When one keeps
// silent for a quarter of its Timeout, all TTLs behind it are probed at once,
// so that a silent hop costs its own wait only, and a blackhole about
// Tries × Timeout in all; what is found is the same.
//
// There is one hop for each TTL. Where tracepath prints a line of its own for
// a router that asks for smaller packets, here PathMTU is set on that router's
// hop, and its address given even if it did not answer at its own TTL. A device
// whose MTU is below Size lowers the result's PathMTU only.
//
// The trace ends at the target, at the first hop that says why it goes no
// further (Failure has its words), or at MaxHops. A local Failure has no hop.
// That is also the end where nothing answers and this node's own device dropped
// probes. A probe for which the kernel has no room is tried again for Timeout,
// and a router's call for smaller packets is heeded MaxHops times, which is more
// than a path has use for: a trace ends in any case.
func Trace(ctx context.Context, request api.TraceRequest) (api.TraceResponse, error) {
	t, err := newTracer(request)
	if err != nil {
		return api.TraceResponse{}, err
	}
	if err := t.open(); err != nil {
		return api.TraceResponse{}, fmt.Errorf("open a UDP socket for traces: %w", err)
	}
	defer t.socket.close()
	err = t.socket.run(ctx, &t.agenda, t.do, func() bool { return t.unfinished == 0 })
	return t.response(), err
}

// tracer is one request.
type tracer struct {
	socket *socket
	agenda agenda
	trails []trail
	// probes finds what an answer speaks of by the destination it was sent to.
	probes map[netip.AddrPort]udpProbe
	// ports counts the probes of each destination.
	ports      map[netip.Addr]int
	payload    []byte
	unfinished int
}

// udpProbe is one packet on its way.
type udpProbe struct {
	trail  int
	ttl    int
	size   int
	serial int
	sent   time.Time
}

func newTracer(request api.TraceRequest) (*tracer, error) {
	if len(request.Targets) > maxTargets {
		return nil, invalid("trace: %d targets: at most %d go in one request", len(request.Targets), maxTargets)
	}
	t := &tracer{
		trails:     make([]trail, len(request.Targets)),
		probes:     map[netip.AddrPort]udpProbe{},
		ports:      map[netip.Addr]int{},
		unfinished: len(request.Targets),
	}
	largest, now := 0, time.Now()
	for i, target := range request.Targets {
		if err := checkTrace(target); err != nil {
			return nil, err
		}
		target.To, target.From = target.To.Unmap(), target.From.Unmap()
		t.trails[i] = newTrail(target)
		t.agenda.file(event{at: now, action: actionSend, target: i, step: 1})
		largest = max(largest, target.Size)
	}
	t.payload = make([]byte, largest)
	return t, nil
}

func checkTrace(t api.TraceTarget) error {
	switch {
	case !isTarget(t.To):
		return invalid("trace %s: not an IPv4 address", t.To)
	case t.From.IsValid() && !isTarget(t.From):
		return invalid("trace %s from %s: not an IPv4 address", t.To, t.From)
	case t.MaxHops < 1 || t.MaxHops > 255:
		return invalid("trace %s: %d hops: from 1 to 255", t.To, t.MaxHops)
	case t.Tries < 1 || t.Tries > 10:
		return invalid("trace %s: %d tries: from 1 to 10", t.To, t.Tries)
	case t.Timeout <= 0:
		return invalid("trace %s: timeout %s: must be positive", t.To, t.Timeout)
	case t.Size < minMTU || t.Size > maxDatagram:
		return invalid("trace %s: size %d: from %d to %d", t.To, t.Size, minMTU, maxDatagram)
	}
	return nil
}

func (t *tracer) open() error {
	s, err := newSocket(unix.AF_INET, unix.SOCK_DGRAM, 0, 64)
	if err != nil {
		return err
	}
	s.to, t.socket = t, s
	err = s.tellErrors()
	if err == nil {
		err = s.set(option{"IP_MTU_DISCOVER", unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE})
	}
	if err != nil {
		s.close()
	}
	return err
}

func (t *tracer) do(e event) {
	r := &t.trails[e.target]
	h := r.pending(e.step)
	if h == nil {
		return
	}
	switch e.action {
	case actionSend:
		t.send(e.target, e.step)
	case actionSpread:
		if e.serial == h.serial {
			t.spread(e.target)
		}
	case actionExpire:
		switch {
		case e.serial != h.serial:
		case h.tries < r.target.Tries:
			t.send(e.target, e.step)
		default:
			h.silent = true
			t.spread(e.target)
			t.settle(e.target)
		}
	}
}

// send probes one TTL of a trail with a packet of the path MTU found so far.
func (t *tracer) send(index, ttl int) {
	r := &t.trails[index]
	h := &r.hops[ttl-1]
	for {
		to := t.destination(r.target.To)
		now := time.Now()
		h.serial++
		t.probes[to] = udpProbe{index, ttl, r.mtu, h.serial, now}
		err := t.socket.send(t.payload[:r.mtu-ipv4HeaderSize-udpHeader], sendControl(r.target.From, ttl), to)
		if dropped(err) {
			r.dropped, err = sendFailure(err, r.target.From), nil
		}
		if err == nil {
			h.tries++
			h.busy = time.Time{}
			t.agenda.file(event{now.Add(r.target.Timeout), actionExpire, index, ttl, h.serial, 0})
			if !r.spread {
				t.agenda.file(event{now.Add(r.target.Timeout / spreadAfter), actionSpread, index, ttl, h.serial, 0})
			}
			return
		}
		delete(t.probes, to)
		if h.busy.IsZero() {
			h.busy = now
		}
		if err == errBusy && now.Sub(h.busy) < r.target.Timeout {
			t.agenda.file(event{at: now.Add(sendRetry), action: actionSend, target: index, step: ttl})
			return
		}
		if refused, ok := err.(*sendError); ok && refused.errno == unix.EMSGSIZE && refused.mtu >= minMTU && refused.mtu < r.mtu {
			r.mtu = refused.mtu
			continue
		}
		r.fail(ttl-1, sendFailure(err, r.target.From))
		t.settle(index)
		return
	}
}

// destination is the next port of an address.
func (t *tracer) destination(a netip.Addr) netip.AddrPort {
	port := firstPort + t.ports[a]%(0x10000-firstPort)
	t.ports[a]++
	return netip.AddrPortFrom(a, uint16(port))
}

// spread probes all TTLs that were not probed yet.
func (t *tracer) spread(index int) {
	r := &t.trails[index]
	r.spread = true
	for r.last < r.end {
		t.proceed(index)
	}
}

func (t *tracer) proceed(index int) {
	r := &t.trails[index]
	r.last++
	t.again(index, r.last)
}

// again has a TTL probed as soon as nothing else is being sent.
func (t *tracer) again(index, ttl int) {
	t.agenda.file(event{at: time.Now(), action: actionSend, target: index, step: ttl})
}

// settle goes on with a trail after one of its hops has become known.
func (t *tracer) settle(index int) {
	r := &t.trails[index]
	switch {
	case r.done:
	case r.complete():
		r.finish()
		t.unfinished--
	case !r.spread && r.hops[r.last-1].answered && r.last < r.end:
		t.proceed(index)
	}
}

// find returns the trail and the hop that an answer is for; nil where there is
// none that still waits for it.
func (t *tracer) find(m *message) (*trail, udpProbe) {
	p, ok := t.probes[m.address]
	if !ok || t.trails[p.trail].pending(p.ttl) == nil {
		return nil, p
	}
	return &t.trails[p.trail], p
}

func (t *tracer) refused(m *message) {
	r, p := t.find(m)
	if r == nil {
		return
	}
	e := m.failure
	a := answer{ttl: p.ttl, from: e.offender, rtt: elapsed(p.sent, m.stamp), back: hopsBack(m.ttl)}
	unreachable := e.origin == unix.SO_EE_ORIGIN_ICMP && e.icmpType == icmpUnreachable
	switch {
	case m.byOwnKernel():
		r.fail(p.ttl-1, m.explainOwn())
	case e.origin == unix.SO_EE_ORIGIN_ICMP && e.icmpType == icmpTimeExceeded && e.icmpCode == codeTransit:
		r.pass(a)
	case unreachable && e.icmpCode == codePortUnreachable:
		r.reach(a)
	case unreachable && e.icmpCode == codeFragNeeded && e.info >= minMTU && int(e.info) < p.size && len(r.lowerings) < r.target.MaxHops:
		r.lower(a, int(e.info))
		if h := &r.hops[p.ttl-1]; h.serial == p.serial {
			h.tries, h.silent = 0, false
			t.again(p.trail, p.ttl)
		}
	default:
		r.refuse(a, e.explain())
	}
	t.settle(p.trail)
}

// received takes a datagram from the very port that was probed: something
// listens there, so the target is reached.
func (t *tracer) received(m *message) {
	r, p := t.find(m)
	if r == nil {
		return
	}
	r.reach(answer{ttl: p.ttl, from: m.address.Addr(), rtt: elapsed(p.sent, m.stamp), back: hopsBack(m.ttl)})
	t.settle(p.trail)
}

func (t *tracer) response() api.TraceResponse {
	response := api.TraceResponse{Results: make([]api.TraceResult, len(t.trails))}
	for i := range t.trails {
		response.Results[i] = t.trails[i].result()
	}
	return response
}
