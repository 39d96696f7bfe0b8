package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
)

// Each hop of a trace is waited for this long, this often.
const (
	hopTimeout = 400 * time.Millisecond
	hopTries   = 2
	maxHops    = 16
)

// traced says whether the path of a flow is worth following: one that must
// arrive. Losses are the pings' to find.
func traced(f flow) bool { return !f.from.pods && f.exception == nil && len(f.ways()) > 0 }

// ways are the predicted paths that arrive.
func (f flow) ways() []path.Path {
	var ways []path.Path
	for _, p := range f.there {
		if p.Fate == path.Delivered {
			ways = append(ways, p)
		}
	}
	return ways
}

func (v *verification) traces(node string) (targets []api.TraceTarget, flows []int) {
	for i, f := range v.flows {
		if f.from.node == node && traced(f) {
			flows = append(flows, i)
			targets = append(targets, api.TraceTarget{
				To: f.to.address, MaxHops: maxHops, Timeout: v.patient(hopTimeout), Tries: hopTries, Size: v.largestMTU(),
			})
		}
	}
	return targets, flows
}

// prediction is what a trace of a flow may find: more than one answer where
// equal-cost paths differ.
type prediction struct {
	hops     [][]netip.Addr // by TTL, who may answer
	lengths  []int          // hops there
	returns  []int          // hops back
	pathMTUs []int
}

// predict works out what a trace finds on the healthy tables.
func (v *verification) predict(f flow) prediction {
	var p prediction
	for _, way := range f.ways() {
		p.lengths = include(p.lengths, len(way.Hops)-1)
		p.pathMTUs = include(p.pathMTUs, way.MTU)
		for i, hop := range way.Hops[1:] {
			if len(p.hops) == i {
				p.hops = append(p.hops, nil)
			}
			for _, a := range v.answersFrom(hop.Node, way) {
				p.hops[i] = include(p.hops[i], a)
			}
		}
		for _, back := range v.healthy.Reply(way) {
			if back.Fate == path.Delivered {
				p.returns = include(p.returns, len(back.Hops)-1)
			}
		}
	}
	return p
}

// answersFrom are the source addresses that a node's ICMP errors to the sender
// may bear: at the end of the way the target itself, before it that of the
// interface by which the way back goes.
func (v *verification) answersFrom(node string, way path.Path) []netip.Addr {
	if way.Last().Node == node {
		return []netip.Addr{way.To}
	}
	n, _ := v.healthy.Node(node)
	d := n.Lookup(way.Source)
	var addresses []netip.Addr
	for _, h := range d.NextHops {
		addresses = append(addresses, n.SourceFor(d, h))
	}
	return addresses
}

func include[T comparable](set []T, x T) []T {
	if slices.Contains(set, x) {
		return set
	}
	return append(set, x)
}

func (p prediction) String() string {
	var hops []string
	for _, at := range p.hops {
		hops = append(hops, join(at, " or "))
	}
	return fmt.Sprintf("%s; pmtu %s hops %s back %s", strings.Join(hops, ", "), join(p.pathMTUs, " or "), join(p.lengths, " or "), join(p.returns, " or "))
}

func join[T any](items []T, separator string) string {
	texts := make([]string, len(items))
	for i, x := range items {
		texts[i] = fmt.Sprint(x)
	}
	return strings.Join(texts, separator)
}

// tracepath judges the trace of one flow.
func (v *verification) tracepath(i int) Result {
	f := v.flows[i]
	p := v.predict(f)
	r := Result{Group: Tracepath, Node: f.from.node, Name: f.name(), Expected: p.String()}
	got, known := v.traced[i]
	if !known {
		return v.unknown(r, f.from.node)
	}
	r.Seen, r.Outcome = traceText(v.say, got), OK
	if p.allows(got) {
		return r
	}
	r.Outcome = Failed
	if echo := v.ping(i); echo.Outcome == Failed {
		r.Causes = echo.Causes // an echo on the same way was seen by every node
	} else {
		r.Causes = v.astray(f, p, got)
	}
	return r
}

func traceText(say lang.Printer, t api.TraceResult) string {
	answered := len(t.Hops)
	for answered > 0 && !t.Hops[answered-1].Address.IsValid() {
		answered--
	}
	var hops []string
	for _, h := range t.Hops[:answered] {
		if h.Address.IsValid() {
			hops = append(hops, h.Address.String())
		} else {
			hops = append(hops, say.Sprintf("no reply"))
		}
	}
	s := strings.Join(hops, ", ")
	switch {
	case t.Reached:
		return fmt.Sprintf("%s; pmtu %d hops %d back %d", s, t.PathMTU, t.HopsThere, t.HopsBack)
	case t.Failure != nil:
		return strings.TrimPrefix(s+"; "+failureText(say, t.Failure), "; ")
	case answered == 0:
		return say.Sprintf("no reply from any hop")
	}
	return say.Sprintf("%s; no reply after that", s)
}

func (p prediction) allows(t api.TraceResult) bool {
	if !t.Reached || !slices.Contains(p.lengths, t.HopsThere) || !slices.Contains(p.returns, t.HopsBack) || !slices.Contains(p.pathMTUs, t.PathMTU) {
		return false
	}
	for _, h := range t.Hops {
		if h.TTL < 1 || h.TTL > len(p.hops) || !slices.Contains(p.hops[h.TTL-1], h.Address) {
			return false
		}
	}
	return true
}

// astray says why a trace did not find what was predicted.
func (v *verification) astray(f flow, p prediction, got api.TraceResult) []Cause {
	var causes []Cause
	for _, way := range v.observed.Trace(f.from.node, f.from.address, f.to.address) {
		if way.Fate != path.Delivered {
			return v.why(way)
		}
		causes = append(causes, v.detours(way)...)
		for _, back := range v.observed.Reply(way) {
			if back.Fate != path.Delivered {
				return v.why(back)
			}
			causes = append(causes, v.detours(back)...)
		}
	}
	if len(causes) > 0 {
		return unique(causes)
	}
	if got.Reached && !slices.Contains(p.pathMTUs, got.PathMTU) {
		return []Cause{{Reason: v.say.Sprintf("the path MTU is %d, although every interface on the way has more: something between the nodes lowers it", got.PathMTU), Cure: "labctl up"}}
	}
	for _, way := range v.observed.Trace(f.from.node, f.from.address, f.to.address) {
		for _, hop := range way.Hops {
			if causes := v.wrongNeighbour(loss{node: hop.Node}, way); len(causes) > 0 {
				return causes
			}
		}
	}
	return []Cause{v.unexplained(loss{node: v.lastAnswer(f, got)})}
}

// lastAnswer is the node that answered last, where the trouble begins.
func (v *verification) lastAnswer(f flow, got api.TraceResult) string {
	for _, h := range slices.Backward(got.Hops) {
		if port, ok := v.healthy.Holder(h.Address); ok {
			return port.Node
		}
	}
	return f.from.node
}

func (v *verification) largestMTU() int {
	largest := 0
	for _, n := range v.topology.Networks.All() {
		largest = max(largest, n.MTU)
	}
	return largest
}

func unique(causes []Cause) []Cause {
	var out []Cause
	for _, c := range causes {
		out = include(out, c)
	}
	return out
}
