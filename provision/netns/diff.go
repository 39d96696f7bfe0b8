//go:build linux

package netns

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/native-routing/labctl/provision"
)

// link is an interface as a namespace holds it.
type link struct {
	Index int
	Name  string
	Kind  kind
	Alias string
	MTU   int
	MAC   string
	Up    bool
	// Carries is IF_OPER_UP (RFC 2863), which the kernel may tell up to a second late.
	Carries bool
	Master  int
	// Peer is the index of a veth's other end, PeerNS its namespace as this one counts them.
	Peer   int
	PeerNS int
}

type address struct {
	Device string
	Prefix netip.Prefix
	// Peer is set on a point-to-point address, which no file asks for.
	Peer netip.Prefix
	raw  netlink.Addr
}

type foundRoute struct {
	route
	raw netlink.Route
}

func linkNamed(links []link, name string) (link, bool) {
	for _, l := range links {
		if l.Name == name {
			return l, true
		}
	}
	return link{}, false
}

// linkOp is what one interface of a node needs.
type linkOp struct {
	Plan linkPlan
	// Delete names what goes first: the node's link, or a port that has lost its other end.
	Delete, DeletePort string
	Make               bool
	// Set and SetPort are what differs on a link that stays.
	Set, SetPort attributes
	Change       provision.Change
}

// bridgeIndex gives the index of a bridge of the fabric.
type bridgeIndex func(name string) int

// diffLinks compares a node's links and their ports with what is wanted. joined
// says whether a link and a port are two ends of one pair.
func diffLinks(lab string, want nodePlan, have, fabric []link, bridges bridgeIndex, joined func(l, port link) bool) []linkOp {
	var ops []linkOp
	wanted := map[string]bool{"lo": true}
	for _, l := range want.Links {
		wanted[l.Name] = true
	}
	for _, l := range have {
		if !wanted[l.Name] && strings.HasPrefix(l.Alias, markPrefix(lab)) {
			ops = append(ops, linkOp{Delete: l.Name, Change: provision.Change{Verb: provision.Removed, Node: want.Name, Object: l.Name}})
		}
	}
	if lo, ok := linkNamed(have, "lo"); ok && !lo.Up {
		// A new namespace begins so; only later is it news.
		op := linkOp{Plan: linkPlan{Name: "lo"}, Set: attributes{Up: true}}
		if len(have) > 1 {
			op.Change = provision.Change{Verb: provision.Changed, Node: want.Name, Object: "lo", Detail: "up, was down"}
		}
		ops = append(ops, op)
	}
	for _, plan := range want.Links {
		l, there := linkNamed(have, plan.Name)
		port, portThere := link{}, false
		if plan.Port != "" {
			port, portThere = linkNamed(fabric, plan.Port)
		}
		reason := whyRemake(plan, l, there, port, portThere, joined)
		if there && reason == "" {
			ops = append(ops, adjust(want.Name, plan, l, port, fabric, bridges)...)
			continue
		}
		op := linkOp{Plan: plan, Make: true, Change: provision.Change{
			Verb: provision.Created, Node: want.Name, Object: plan.Name, Detail: plan.describe(),
		}}
		if there {
			op.Delete = l.Name
			op.Change.Verb, op.Change.Detail = provision.Changed, reason
		}
		if portThere && !(there && joined(l, port)) {
			op.DeletePort = port.Name
		}
		ops = append(ops, op)
	}
	return ops
}

// describe is the link in a few words.
func (l linkPlan) describe() string {
	text := l.Address.String()
	if l.Network != "" {
		text += " on " + l.Network
	}
	return text
}

// whyRemake is empty where the link can stay.
func whyRemake(plan linkPlan, l link, there bool, port link, portThere bool, joined func(l, port link) bool) string {
	switch {
	case !there:
		return "it is not there"
	case plan.Kind == kindDummy && l.Kind != kindDummy && l.Kind != kindIFB, plan.Kind == kindVeth && l.Kind != kindVeth:
		return fmt.Sprintf("%s, was %s", plan.Kind, l.Kind)
	case plan.Kind == kindVeth && (!portThere || !joined(l, port)):
		return "connected again, its other end was lost"
	default:
		return ""
	}
}

// adjust compares the attributes of a link that stays, and of its port.
func adjust(node string, plan linkPlan, l, port link, fabric []link, bridges bridgeIndex) []linkOp {
	op := linkOp{Plan: plan}
	var details []string
	note := func(format string, args ...any) { details = append(details, fmt.Sprintf(format, args...)) }
	if l.MTU != plan.MTU {
		op.Set.MTU = plan.MTU
		note("MTU %d, was %d", plan.MTU, l.MTU)
	}
	if l.MAC != plan.MAC.String() {
		op.Set.MAC = plan.MAC
		note("Ethernet address %s, was %s", plan.MAC, l.MAC)
	}
	if !l.Up {
		op.Set.Up = true
		note("up, was down")
	}
	if l.Alias != plan.Alias {
		op.Set.Alias = plan.Alias
		note("alias")
	}
	if plan.Port != "" {
		op.SetPort = adjustPort(plan, port, fabric, bridges, note)
	}
	if len(details) == 0 {
		return nil
	}
	op.Change = provision.Change{Verb: provision.Changed, Node: node, Object: plan.Name, Detail: strings.Join(details, ", ")}
	return []linkOp{op}
}

func adjustPort(plan linkPlan, port link, fabric []link, bridges bridgeIndex, note func(string, ...any)) attributes {
	var set attributes
	if port.MTU != plan.PortMTU {
		set.MTU = plan.PortMTU
		note("MTU %d at its port, was %d", plan.PortMTU, port.MTU)
	}
	if !port.Up {
		set.Up = true
		note("its port up, was down")
	}
	if port.Alias != plan.Alias {
		set.Alias = plan.Alias
		if set.MTU == 0 && !set.Up {
			note("alias of its port")
		}
	}
	switch {
	case plan.Bridge == "" && port.Master != 0:
		set.NoMaster = true
		note("on no network, was on %s", networkOf(fabric, port.Master))
	case plan.Bridge != "" && (port.Master == 0 || port.Master != bridges(plan.Bridge)):
		set.Master = bridges(plan.Bridge)
		note("on %s, was on %s", plan.Network, networkOf(fabric, port.Master))
	}
	return set
}

// networkOf is the network's name as the bridge's alias has it.
func networkOf(fabric []link, bridge int) string {
	for _, l := range fabric {
		if l.Index != bridge {
			continue
		}
		if _, network, ok := strings.Cut(l.Alias, " network="); ok {
			return network
		}
		return l.Name
	}
	return "none"
}

// diffAddresses returns the addresses that must go and the links that lack theirs.
// On links that are not the file's, addresses are left alone.
func diffAddresses(want nodePlan, have []address) (remove []address, add []linkPlan) {
	for _, l := range want.Links {
		found := false
		for _, a := range have {
			if a.Device != l.Name {
				continue
			}
			if a.Prefix == l.Address && !a.Peer.IsValid() {
				found = true
				continue
			}
			remove = append(remove, a)
		}
		if !found {
			add = append(add, l)
		}
	}
	return remove, add
}

func diffNeighbours(want nodePlan, have []neighbour) (add []neighbour) {
	for _, n := range want.Neighbours {
		found := false
		for _, h := range have {
			found = found || h == n
		}
		if !found {
			add = append(add, n)
		}
	}
	return add
}

// diffRoutes returns the routes that must go and those that are missing. Only
// routes that a person or the file makes are in scope: boot, static and dhcp.
// Connected routes are only ever added, when somebody took one away.
func diffRoutes(want nodePlan, have []foundRoute) (remove []foundRoute, add []route) {
	wanted := map[string]bool{}
	for _, r := range want.Routes {
		wanted[r.key()] = true
	}
	found := map[string]bool{}
	for _, r := range have {
		inScope := r.Protocol == protoBoot || r.Protocol == protoStatic || r.Protocol == protoDHCP
		if inScope && (!wanted[r.key()] || found[r.key()]) {
			remove = append(remove, r)
			continue
		}
		found[r.key()] = true
	}
	for _, c := range want.Connected {
		if !hasConnected(have, c) {
			add = append(add, c)
		}
	}
	for _, r := range want.Routes {
		if !found[r.key()] {
			found[r.key()] = true
			add = append(add, r)
		}
	}
	return remove, add
}

func hasConnected(have []foundRoute, c route) bool {
	for _, r := range have {
		if r.Protocol == protoKernel && r.To == c.To && len(r.Hops) == 1 && r.Hops[0].Device == c.Hops[0].Device {
			return true
		}
	}
	return false
}

// routeChanges says what the routes' changes mean: a removal and an addition of
// one prefix are one change, and a route that was there at the beginning, and
// that the kernel dropped with an address, has not changed.
func routeChanges(node string, before, remove []foundRoute, add []route, fresh map[string]bool) []provision.Change {
	had := map[string]bool{}
	for _, r := range before {
		had[r.key()] = true
	}
	gone := map[netip.Prefix]route{}
	for _, r := range remove {
		gone[r.To] = r.route
	}
	var changes []provision.Change
	for _, r := range add {
		was, replaced := gone[r.To]
		delete(gone, r.To)
		switch {
		case had[r.key()], r.Protocol != protoStatic && len(r.Hops) == 1 && fresh[r.Hops[0].Device]:
		case replaced:
			changes = append(changes, provision.Change{Verb: provision.Changed, Node: node, Object: r.object(),
				Detail: r.describe() + ", was " + was.describe()})
		default:
			changes = append(changes, provision.Change{Verb: provision.Created, Node: node,
				Object: r.object() + " " + r.describe()})
		}
	}
	for _, r := range remove {
		if left, ok := gone[r.To]; ok && left.key() == r.key() {
			changes = append(changes, provision.Change{Verb: provision.Removed, Node: node,
				Object: r.object() + " " + r.describe()})
		}
	}
	return changes
}

// fabricOps is what the fabric needs beside the ports of the nodes' links.
type fabricOps struct {
	Make    []bridgePlan
	Set     []bridgePlan // up or alias differ
	Changes []provision.Change
}

func diffBridges(want plan, have []link) fabricOps {
	var ops fabricOps
	for _, b := range want.Bridges {
		l, there := linkNamed(have, b.Name)
		switch {
		case !there:
			ops.Make = append(ops.Make, b)
			ops.Changes = append(ops.Changes, provision.Change{Verb: provision.Created, Object: "network " + b.Network})
		case !l.Up || l.Alias != b.Alias:
			ops.Set = append(ops.Set, b)
			if !l.Up {
				ops.Changes = append(ops.Changes, provision.Change{Verb: provision.Changed, Object: "network " + b.Network, Detail: "up, was down"})
			}
		}
	}
	return ops
}

// staleInFabric returns the links that nobody wants, with what that means. The
// fabric is the lab's own, so whatever is there is in scope.
func staleInFabric(want plan, have []link) (stale []string, changes []provision.Change) {
	wanted := map[string]bool{"lo": true}
	for _, b := range want.Bridges {
		wanted[b.Name] = true
	}
	for _, n := range want.Nodes {
		for _, l := range n.Links {
			wanted[l.Port] = true
		}
	}
	for _, l := range have {
		if wanted[l.Name] {
			continue
		}
		stale = append(stale, l.Name)
		change := provision.Change{Verb: provision.Removed, Node: aliasNode(l.Alias), Object: "port " + l.Name}
		if _, network, ok := strings.Cut(l.Alias, " network="); ok {
			change.Object = "network " + network
		}
		changes = append(changes, change)
	}
	return stale, changes
}
