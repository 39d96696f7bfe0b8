//go:build linux

package probe

import (
	"net/netip"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// trail is what is known of the path to one target. It sends nothing.
type trail struct {
	target api.TraceTarget
	// hops by TTL, from 1.
	hops []trailHop
	// last is the highest TTL that was probed or is about to be; end the one
	// where the path ends, as far as is known.
	last, end int
	// spread says that the hops are probed all at once and no more one by one.
	spread bool
	done   bool

	mtu       int
	lowerings []lowering
	reached   bool
	back      int
	failure   *api.ProbeError
	// dropped is there once this node's own device dropped a probe.
	dropped *api.ProbeError
}

type trailHop struct {
	line api.TraceHop
	// serial is that of the probe sent last; tries counts those of the present size.
	serial, tries    int
	answered, silent bool
	// busy is since when the kernel has no room for the probe; zero where it has.
	busy time.Time
}

// lowering is a router's call for smaller packets, in answer to a probe of a TTL.
type lowering struct {
	ttl  int
	from netip.Addr
	mtu  int
}

// answer is who answered the probe of a TTL; back is 0 where it is not known.
type answer struct {
	ttl  int
	from netip.Addr
	rtt  time.Duration
	back int
}

func newTrail(target api.TraceTarget) trail {
	return trail{target: target, hops: make([]trailHop, target.MaxHops), last: 1, end: target.MaxHops, mtu: target.Size}
}

// hopsBack derives the length of the way back from the TTL of an answer as
// tracepath does: senders begin with 64, 128 or 255. It is 0 where the TTL is
// not known.
func hopsBack(ttl int) int {
	switch {
	case ttl <= 0:
		return 0
	case ttl <= 64:
		return 65 - ttl
	case ttl <= 128:
		return 129 - ttl
	default:
		return 256 - ttl
	}
}

// pending returns the hop of a TTL if an answer from it would still tell something.
func (r *trail) pending(ttl int) *trailHop {
	if r.done || ttl > r.end || r.hops[ttl-1].answered {
		return nil
	}
	return &r.hops[ttl-1]
}

// complete says whether every hop up to the end is answered or given up.
func (r *trail) complete() bool {
	for _, h := range r.hops[:r.end] {
		if !h.answered && !h.silent {
			return false
		}
	}
	return true
}

// pass notes a router that the TTL ended at.
func (r *trail) pass(a answer) {
	line := r.note(a)
	if a.back != a.ttl {
		line.Asymmetric = a.back
	}
}

// reach notes the target.
func (r *trail) reach(a answer) {
	r.note(a).Reached = true
	r.end, r.reached, r.back, r.failure = a.ttl, true, a.back, nil
}

// refuse notes a router that passes nothing on.
func (r *trail) refuse(a answer, failure *api.ProbeError) {
	r.note(a)
	r.end, r.reached, r.back, r.failure = a.ttl, false, 0, failure
}

// finish ends a trail that is complete. Where nothing answered, the drops of
// this node's own device are the reason.
func (r *trail) finish() {
	r.done = true
	for _, h := range r.hops[:r.end] {
		if h.answered {
			return
		}
	}
	if r.failure == nil && r.dropped != nil {
		r.fail(0, r.dropped)
	}
}

// fail ends the trail behind a TTL with an error of this node.
func (r *trail) fail(behind int, failure *api.ProbeError) {
	for i := range r.hops[:behind] {
		r.hops[i].silent = true
	}
	r.end, r.reached, r.back, r.failure = behind, false, 0, failure
}

func (r *trail) note(a answer) *api.TraceHop {
	h := &r.hops[a.ttl-1]
	h.answered = true
	h.line = api.TraceHop{Address: a.from, RTT: a.rtt}
	return &h.line
}

// lower notes that a router asked for packets of at most mtu bytes.
func (r *trail) lower(a answer, mtu int) {
	if mtu >= r.mtu {
		return // it speaks of a larger probe, sent before
	}
	r.mtu = mtu
	r.lowerings = append(r.lowerings, lowering{a.ttl, a.from, mtu})
}

func (r *trail) result() api.TraceResult {
	result := api.TraceResult{
		Hops: make([]api.TraceHop, r.end), Reached: r.reached, PathMTU: r.mtu, HopsBack: r.back, Failure: r.failure,
	}
	for i := range result.Hops {
		result.Hops[i] = r.hops[i].line
		result.Hops[i].TTL = i + 1
	}
	if r.reached {
		result.HopsThere = r.end
	}
	for _, l := range r.lowerings {
		if h := lowered(result.Hops, l); h != nil {
			h.PathMTU = l.mtu
		}
	}
	return result
}

// lowered finds the hop that asked for smaller packets: the last one with its
// address before the probe's TTL, or else the one just before, which passed the
// probe on.
func lowered(hops []api.TraceHop, l lowering) *api.TraceHop {
	if len(hops) == 0 {
		return nil
	}
	for i := min(l.ttl, len(hops)) - 1; i >= 0; i-- {
		if hops[i].Address == l.from {
			return &hops[i]
		}
	}
	h := &hops[min(max(l.ttl-1, 1), len(hops))-1]
	if !h.Address.IsValid() {
		h.Address = l.from
	}
	return h
}
