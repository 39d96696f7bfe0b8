package check

import (
	"net/netip"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/topo"
)

// echoTimeout is how long an echo is waited for. A lab answers within a few
// milliseconds; what is lost must be waited for in full.
const echoTimeout = time.Second

// pings returns the targets of a node's flows, and which flow each belongs to.
func (v *verification) pings(node string) (targets []api.PingTarget, flows []int) {
	for i, f := range v.flows {
		if f.from.node == node {
			flows = append(flows, i)
			t := api.PingTarget{
				Pod: f.from.pod, To: f.to.address, Count: 1, Timeout: v.echoWait, Size: 56,
				Session: v.session, Probe: uint32(i),
			}
			if f.from.pod == "" {
				t.From = f.from.address
			}
			targets = append(targets, t)
		}
	}
	return targets, flows
}

// ping judges one flow by what came back and by what the witnesses saw on the way.
func (v *verification) ping(i int) Result {
	f := v.flows[i]
	r := Result{Group: Ping, Node: f.from.node, Name: f.name(), Expected: v.say.Sprintf("reply")}
	if f.exception != nil {
		r.Expected = describe(v.say, f.exception)
	}
	got, known := v.echoes[i]
	if !known {
		return v.unknown(r, f.from.node)
	}
	there, back := legs(v.sightings[uint32(i)])
	if got.Received > 0 {
		return v.answered(r, f, got, there)
	}
	return v.unanswered(r, f, got, there, back)
}

func (v *verification) answered(r Result, f flow, got api.PingResult, there leg) Result {
	r.Seen, r.Outcome = v.say.Sprintf("reply in %.2f ms", float64(got.RTTs[0].Microseconds())/1000), OK
	if v.witnessing[f.to.node] && !there.arrived(f.to.node) {
		r.Outcome, r.Seen = Failed, v.say.Sprintf("a reply, but %s never saw the request: another node answers for its address", f.to.node)
		r.Causes = v.impostors(f)
		return r
	}
	if f.exception != nil {
		r.Outcome = UnexpectedSuccess
		r.Causes = v.unexpected(f)
		return r
	}
	var sources []netip.Addr
	for _, way := range v.observed.Trace(f.from.node, f.from.address, f.to.address) {
		sources = include(sources, way.Source)
	}
	if at, ok := there.translator(sources); ok {
		r.Outcome = Failed
		r.Expected = v.say.Sprintf("reply, and the source arrives unchanged")
		r.Seen = v.say.Sprintf("%s arrives as %s", join(sources, " or "), there.source())
		r.Causes = []Cause{translates(v.say, at)}
	}
	return r
}

// impostors says who answers in the place of a flow's target.
func (v *verification) impostors(f flow) []Cause {
	var causes []Cause
	for _, way := range v.observed.Trace(f.from.node, f.from.address, f.to.address) {
		causes = append(causes, v.detours(way)...)
	}
	return unique(append(causes, v.secondHolders(f.to.address)...))
}

// unexpected says why traffic works that the stage declares as lost.
func (v *verification) unexpected(f flow) []Cause {
	var causes []Cause
	for _, way := range v.observed.Trace(f.from.node, f.from.address, f.to.address) {
		causes = append(causes, v.detours(way)...)
		for _, back := range v.observed.Reply(way) {
			causes = append(causes, v.detours(back)...)
		}
	}
	if len(causes) == 0 {
		causes = []Cause{{Reason: v.say.Sprintf("the stage declares this traffic as lost, but its own tables let it pass")}}
	}
	return unique(causes)
}

// loss is where a packet was last seen.
type loss struct {
	packet
	node    string
	device  string
	leaving bool
	reply   bool
}

func (l loss) text(say lang.Printer) string {
	switch {
	case l.leaving && l.reply:
		return say.Sprintf("arrives, but the reply is lost at %s (leaves by %s)", l.node, l.device)
	case l.leaving:
		return say.Sprintf("lost at %s (leaves by %s)", l.node, l.device)
	case l.device == "" && l.reply:
		return say.Sprintf("arrives, but the reply is lost at %s", l.node)
	case l.device == "":
		return say.Sprintf("lost at %s", l.node)
	case l.reply:
		return say.Sprintf("arrives, but the reply is lost at %s (came in by %s)", l.node, l.device)
	}
	return say.Sprintf("lost at %s (came in by %s)", l.node, l.device)
}

// matches says whether a loss is exactly the one that the stage declares.
func (l loss) matches(x *topo.Exception) bool {
	return x != nil && l.leaving && l.node == x.At && l.device == x.Leaving && l.reply == (x.Result == topo.ResultReplyLost)
}

func (v *verification) unanswered(r Result, f flow, got api.PingResult, there, back leg) Result {
	l := v.locate(f, there, back)
	if blind := v.unwatched(f); blind != "" && l.node != f.to.node {
		return v.unwitnessed(r, blind)
	}
	r.Seen = l.text(v.say)
	if got.Failure != nil {
		r.Seen += ": " + failureText(v.say, got.Failure)
	}
	if l.matches(f.exception) {
		r.Outcome = ExpectedFailure
		return r
	}
	r.Outcome = Failed
	r.Causes = v.diagnose(l)
	return r
}

// unwatched is a node on the way of a flow that did not look out for packets:
// where one was lost cannot be told then. Empty where all did.
func (v *verification) unwatched(f flow) string {
	for _, way := range f.there {
		for _, node := range way.Nodes() {
			if !v.witnessing[node] {
				return node
			}
		}
	}
	return ""
}

// locate finds which leg was lost, and where it was last seen.
func (v *verification) locate(f flow, there, back leg) loss {
	request := packet{f.from.node, f.from.address, f.to.address}
	if len(there) == 0 {
		return loss{packet: request, node: f.from.node}
	}
	target, _ := v.observed.Node(f.to.node)
	if !there.arrived(f.to.node) || !target.Owns(f.to.address) {
		s := there.last()
		return loss{packet: request, node: s.node, device: s.Device, leaving: s.Outgoing}
	}
	reply := packet{f.to.node, f.to.address, there.source()}
	if len(back) == 0 {
		return loss{packet: reply, node: f.to.node, reply: true}
	}
	s := back.last()
	return loss{packet: reply, node: s.node, device: s.Device, leaving: s.Outgoing, reply: true}
}

func failureText(say lang.Printer, e *api.ProbeError) string {
	if e.From.IsValid() {
		return say.Sprintf("%s says %s", e.From, e.Message)
	}
	return e.Message
}
