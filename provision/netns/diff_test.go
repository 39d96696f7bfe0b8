//go:build linux

package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/native-routing/labctl/topologies/topo"
)

// world is what a lab's namespaces hold: the nodes' tables and the fabric's links.
type world struct {
	links     []link // of node a
	fabric    []link
	addresses []address
	routes    []foundRoute
	near      []neighbour
}

const smallLab = `apiVersion: labctl/v1
kind: Topology
metadata: {name: small}
networks:
  one: {cidr: 10.1.0.0/24}
  two: {cidr: 10.2.0.0/24}
nodes:
  a:
    role: host
    interfaces:
      eth1: {network: one, address: 10.1.0.1/24}
      loop1: {type: dummy, address: 10.3.0.1/24}
    routes:
      - {to: 10.2.0.0/24, via: 10.1.0.2}
  b:
    role: router
    interfaces:
      eth1: {network: one, address: 10.1.0.2/24}
      eth2: {network: two, address: 10.2.0.2/24}
`

// asPlanned is the world that needs nothing.
func asPlanned(p plan) *world {
	w := &world{links: []link{{Index: 1, Name: "lo", Up: true}}, fabric: []link{{Index: 1, Name: "lo"}}}
	for i, b := range p.Bridges {
		w.fabric = append(w.fabric, link{Index: i + 2, Name: b.Name, Kind: kindBridge, Alias: b.Alias, Up: true})
	}
	n := p.Nodes[0]
	for i, l := range n.Links {
		here := link{Index: i + 2, Name: l.Name, Kind: l.Kind, Alias: l.Alias, MTU: l.MTU, MAC: l.MAC.String(), Up: true}
		if l.Port != "" {
			master, _ := linkNamed(w.fabric, l.Bridge)
			port := link{Index: 20 + i, Name: l.Port, Kind: kindVeth, Alias: l.Alias, MTU: l.PortMTU, Up: true, Master: master.Index, Peer: here.Index}
			here.Peer = port.Index
			w.fabric = append(w.fabric, port)
		}
		w.links = append(w.links, here)
		w.addresses = append(w.addresses, address{Device: l.Name, Prefix: l.Address})
	}
	for _, r := range slices.Concat(n.Connected, n.Routes) {
		w.routes = append(w.routes, foundRoute{route: r})
	}
	w.near = n.Neighbours
	return w
}

func (w *world) link(name string) *link {
	for _, list := range [][]link{w.links, w.fabric} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return &link{}
}

func (w *world) remove(name string) {
	gone := func(l link) bool { return l.Name == name }
	w.links, w.fabric = slices.DeleteFunc(w.links, gone), slices.DeleteFunc(w.fabric, gone)
}

// needs is every operation, in words, and every change that is told.
func (w *world) needs(p plan) string {
	var b strings.Builder
	n := p.Nodes[0]
	joined := func(l, port link) bool { return l.Peer == port.Index && port.Peer == l.Index }
	index := func(name string) int { l, _ := linkNamed(w.fabric, name); return l.Index }
	bridges := diffBridges(p, w.fabric)
	fmt.Fprintf(&b, "%s", lines("make bridge", bridges.Make))
	for _, op := range diffLinks(p.Lab, n, w.links, w.fabric, index, joined) {
		if op.Delete != "" {
			fmt.Fprintf(&b, "delete %s\n", op.Delete)
		}
		if op.DeletePort != "" {
			fmt.Fprintf(&b, "delete port %s\n", op.DeletePort)
		}
		if op.Make {
			fmt.Fprintf(&b, "make %s\n", op.Plan.Name)
		}
		if op.Set.any() {
			fmt.Fprintf(&b, "set %s %+v\n", op.Plan.Name, op.Set)
		}
		if op.SetPort.any() {
			fmt.Fprintf(&b, "set port %s %+v\n", op.Plan.Port, op.SetPort)
		}
		if op.Change.Verb != "" {
			fmt.Fprintf(&b, "= %s\n", op.Change)
		}
	}
	removed, added := diffAddresses(n, w.addresses)
	for _, a := range removed {
		fmt.Fprintf(&b, "delete address %s from %s\n", a.Prefix, a.Device)
	}
	for _, l := range added {
		fmt.Fprintf(&b, "add address %s to %s\n", l.Address, l.Name)
	}
	fmt.Fprintf(&b, "%s", lines("set neighbour", diffNeighbours(n, w.near)))
	remove, add := diffRoutes(n, w.routes)
	for _, r := range remove {
		fmt.Fprintf(&b, "delete %s %s\n", r.object(), r.describe())
	}
	for _, r := range add {
		fmt.Fprintf(&b, "add %s %s\n", r.object(), r.describe())
	}
	for _, c := range routeChanges(n.Name, w.routes, remove, add, nil) {
		fmt.Fprintf(&b, "= %s\n", c)
	}
	// b's ports are not in this world, and not looked at.
	stale, changes := staleInFabric(p, w.fabric)
	for i, name := range stale {
		fmt.Fprintf(&b, "delete in fabric %s\n= %s\n", name, changes[i])
	}
	return b.String()
}

func lines[T any](what string, list []T) string {
	text := ""
	for _, v := range list {
		text += fmt.Sprintf("%s %+v\n", what, v)
	}
	return text
}

func TestDiff(t *testing.T) {
	lab, err := topo.Load("small.yaml", strings.NewReader(smallLab))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlan(lab)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range diffCases() {
		t.Run(test.name, func(t *testing.T) {
			w := asPlanned(p)
			test.change(w)
			if got := w.needs(p); got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}

func static(to, via, dev string, protocol int) foundRoute {
	return foundRoute{route: route{To: netip.MustParsePrefix(to), Type: typeUnicast, Protocol: protocol,
		Hops: []nextHop{{Via: netip.MustParseAddr(via), Device: dev}}}}
}

type diffCase struct {
	name   string
	change func(*world)
	want   string
}

// diffCases are changes to a world that is as planned, and what mends them.
func diffCases() []diffCase {
	return slices.Concat(linkCases(), addressCases())
}

func linkCases() []diffCase {
	return []diffCase{
		{"as planned", func(*world) {}, ""},
		{"ifb for dummy", func(w *world) { w.link("loop1").Kind = kindIFB }, ""},
		{"link missing, port left", func(w *world) { w.remove("eth1"); w.addresses = w.addresses[:1] },
			"delete port a.eth1\nmake eth1\n= a: created eth1 (10.1.0.1/24 on one)\nadd address 10.1.0.1/24 to eth1\nadd address 10.3.0.1/24 to loop1\n"},
		{"port missing", func(w *world) { w.remove("a.eth1") },
			"delete eth1\nmake eth1\n= a: changed eth1 (connected again, its other end was lost)\n"},
		{"another pair", func(w *world) { w.link("a.eth1").Peer = 99 },
			"delete eth1\ndelete port a.eth1\nmake eth1\n= a: changed eth1 (connected again, its other end was lost)\n"},
		{"another kind", func(w *world) { w.link("loop1").Kind = kindVeth },
			"delete loop1\nmake loop1\n= a: changed loop1 (dummy, was veth)\n"},
		{"another network", func(w *world) { w.link("a.eth1").Master = w.link("br-two").Index },
			"set port a.eth1 {MTU:0 MAC: Alias: Up:false Master:2 NoMaster:false}\n= a: changed eth1 (on one, was on two)\n"},
		{"the uplink on a network", func(w *world) { w.link("a.eth0").Master = w.link("br-two").Index },
			"set port a.eth0 {MTU:0 MAC: Alias: Up:false Master:0 NoMaster:true}\n= a: changed eth0 (on no network, was on two)\n"},
		{"MTU and down", func(w *world) { w.link("eth1").MTU = 9000; w.link("eth1").Up = false },
			"set eth1 {MTU:1500 MAC: Alias: Up:true Master:0 NoMaster:false}\n= a: changed eth1 (MTU 1500, was 9000, up, was down)\n"},
		{"cut short before the aliases", func(w *world) { w.link("eth1").Alias = ""; w.link("a.eth1").Alias = "" },
			"set eth1 {MTU:0 MAC: Alias:labctl lab=small node=a interface=eth1 Up:false Master:0 NoMaster:false}\n" +
				"set port a.eth1 {MTU:0 MAC: Alias:labctl lab=small node=a interface=eth1 Up:false Master:0 NoMaster:false}\n= a: changed eth1 (alias, alias of its port)\n"},
		{"a link of ours too many", func(w *world) {
			w.links = append(w.links, link{Index: 9, Name: "eth9", Alias: linkAlias("small", "a", "eth9")})
		}, "delete eth9\n= a: removed eth9\n"},
		{"links of others", func(w *world) {
			w.links = append(w.links, link{Index: 9, Name: "labctl_host"}, link{Index: 10, Name: "x", Alias: linkAlias("other", "a", "x")})
			w.addresses = append(w.addresses, address{Device: "labctl_host", Prefix: netip.MustParsePrefix("172.20.0.1/32")})
		}, ""},
		{"port and network too many", func(w *world) {
			w.fabric = append(w.fabric, link{Index: 8, Name: "old.eth1", Alias: linkAlias("small", "old", "eth1")},
				link{Index: 9, Name: "br-old", Alias: bridgeAlias("small", "old")}, link{Index: 10, Name: "mine"})
		}, "delete in fabric old.eth1\n= old: removed port old.eth1\ndelete in fabric br-old\n= removed network old\ndelete in fabric mine\n= removed port mine\n"},
	}
}

func addressCases() []diffCase {
	return []diffCase{
		{"a second address", func(w *world) {
			w.addresses = append(w.addresses, address{Device: "eth1", Prefix: netip.MustParsePrefix("10.1.0.9/24")})
		}, "delete address 10.1.0.9/24 from eth1\n"},
		{"no neighbours", func(w *world) { w.near = w.near[:1] }, "set neighbour {Device:eth0 IP:10.0.2.3 MAC:52:54:00:12:35:03}\n"},
		{"another next hop", func(w *world) { w.routes[len(w.routes)-1] = static("10.2.0.0/24", "10.1.0.3", "eth1", protoStatic) },
			"delete route 10.2.0.0/24 via 10.1.0.3\nadd route 10.2.0.0/24 via 10.1.0.2\n= a: changed route 10.2.0.0/24 (via 10.1.0.2, was via 10.1.0.3)\n"},
		{"routes of others", func(w *world) {
			w.routes = append(w.routes, static("10.2.0.0/24", "10.1.0.3", "eth1", 108), static("10.9.0.0/24", "10.1.0.3", "eth1", 186))
		}, ""},
		{"a route by hand", func(w *world) { w.routes = append(w.routes, static("10.2.0.0/25", "10.1.0.3", "eth1", protoBoot)) },
			"delete route 10.2.0.0/25 via 10.1.0.3\n= a: removed route 10.2.0.0/25 via 10.1.0.3\n"},
		{"the same route twice", func(w *world) { w.routes = append(w.routes, w.routes[len(w.routes)-1]) },
			"delete route 10.2.0.0/24 via 10.1.0.2\n= a: removed route 10.2.0.0/24 via 10.1.0.2\n"},
		{"no connected route", func(w *world) { w.routes = w.routes[1:] },
			"add route 10.0.2.0/24 dev eth0 metric 100\n= a: created route 10.0.2.0/24 dev eth0 metric 100\n"},
		{"no bridge", func(w *world) { w.remove("br-two") },
			"make bridge {Name:br-two Alias:labctl lab=small network=two Network:two}\n"},
	}
}
