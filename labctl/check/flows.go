package check

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
	"github.com/native-routing/labctl/topologies/topo"
)

// end is one end of traffic: a node, or the pods on it, which its pod gateway
// stands for, or one pod.
type end struct {
	node string
	// pods says as what the network sees it: as pods, or as a node. A pod that is
	// masqueraded is seen as its node.
	pods    bool
	address netip.Addr // of a sending node, the zero address: the kernel chooses
	// pod is the key of the one pod that this end is; empty otherwise.
	pod string
}

func (e end) String() string {
	if e.pod != "" {
		return fmt.Sprintf("%s (%s, %s)", shortKey(e.pod), e.address, e.node)
	}
	name := e.node
	if e.pods {
		name += " pods"
	}
	if e.address.IsValid() {
		name += " " + e.address.String()
	}
	return name
}

// flow is one direction of traffic that a lab means to work.
type flow struct {
	from, to end
	// exception is what the stage declares instead; nil where it must work.
	exception *topo.Exception
	// there are the ways that the healthy tables give it.
	there []path.Path
}

func (f flow) name() string { return f.from.String() + " → " + f.to.String() }

// flows lists all traffic that is the intent of a lab: every node reaches every
// address of every other node and its pods, and the pods of every node reach
// those of every other.
func flows(t *topo.Topology, exceptions []topo.Exception, healthy path.Lab) []flow {
	var all []flow
	add := func(from, to end) {
		f := flow{from: from, to: to, exception: declared(exceptions, from, to)}
		f.there = healthy.Trace(from.node, from.address, to.address)
		all = append(all, f)
	}
	for from, node := range t.Nodes.All() {
		for to, other := range t.Nodes.All() {
			if to == from {
				continue
			}
			for _, iface := range other.Interfaces.All() {
				add(end{node: from}, end{node: to, address: iface.Address.Addr()})
			}
			gateway, ok := other.PodGateway()
			if !ok {
				continue
			}
			add(end{node: from}, end{node: to, pods: true, address: gateway})
			if own, ok := node.PodGateway(); ok {
				add(end{node: from, pods: true, address: own}, end{node: to, pods: true, address: gateway})
			}
		}
	}
	return all
}

// declared finds the stage's exception for the flow.
func declared(exceptions []topo.Exception, from, to end) *topo.Exception {
	for i, x := range exceptions {
		if selects(x.From, from) && selects(x.To, to) || x.Both && selects(x.From, to) && selects(x.To, from) {
			return &exceptions[i]
		}
	}
	return nil
}

func selects(s topo.Selector, e end) bool {
	if e.pods {
		return slices.Contains(s.PodsOn, e.node)
	}
	return slices.Contains(s.Nodes, e.node)
}

// describe is an exception as a report says it.
func describe(say lang.Printer, x *topo.Exception) string {
	if x.Result == topo.ResultReplyLost {
		return say.Sprintf("arrives, but the reply is lost at %s (leaves by %s)", x.At, x.Leaving)
	}
	return say.Sprintf("lost at %s (leaves by %s)", x.At, x.Leaving)
}
