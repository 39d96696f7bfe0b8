package path

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/topologies/topo"
)

var update = flag.Bool("update", false, "write the golden files anew")

// tables is a lab as text: every node's main table as ip-route(8) prints it,
// then every way between two primary addresses and two pod gateways.
func tables(l Lab) string {
	var b strings.Builder
	for _, n := range l.Nodes {
		fmt.Fprintf(&b, "# ip route on %s\n", n.Name)
		for _, r := range n.Routes {
			fmt.Fprintf(&b, "%s proto %s scope %s src %v metric %d", r, r.Protocol, r.Scope, r.Source, r.Metric)
			if r.MTU != 0 {
				fmt.Fprintf(&b, " mtu %d", r.MTU)
			}
			fmt.Fprintln(&b)
		}
		for _, l := range n.Links {
			if l.Tunnel != nil {
				fmt.Fprintf(&b, "# %s: VNI %d, port %d, local %s, mtu %d\n", l.Name, l.Tunnel.VNI, l.Tunnel.Port, l.Tunnel.Local, l.MTU)
				for _, r := range l.Tunnel.Remotes {
					fmt.Fprintf(&b, "%s is behind %s\n", r.Via, r.Node)
				}
			}
		}
	}
	return b.String()
}

func (p Path) text() string {
	var hops []string
	for _, h := range p.Hops {
		hops = append(hops, strings.Trim(h.In+" "+h.Node+" "+h.Out, " "))
		if h.Carrier != nil {
			hops = append(hops, "("+h.Carrier.text()+")")
		}
	}
	return fmt.Sprintf("%v > %v: %s: %s, mtu %d", p.Source, p.To, strings.Join(hops, " | "), p.Fate, p.MTU)
}

func ways(l Lab) string {
	var b strings.Builder
	fmt.Fprintln(&b, "# ways, there and back")
	for _, from := range l.Nodes {
		for _, to := range l.Nodes {
			for _, link := range to.Links {
				if from.Name == to.Name || link.Name == "eth0" || len(link.Addresses) == 0 {
					continue
				}
				for _, p := range l.Trace(from.Name, netip.Addr{}, link.Addresses[0].Addr()) {
					fmt.Fprintln(&b, p.text())
					if p.Fate == Delivered {
						for _, back := range l.Reply(p) {
							fmt.Fprintln(&b, "   ", back.text())
						}
					}
				}
			}
		}
	}
	return b.String()
}

// The golden files were read line by line against the drawing of each lab.
func TestPredict(t *testing.T) {
	for _, lab := range []string{"native-routing", "native-routing overlay", "router-chain", "redundant-square"} {
		t.Run(lab, func(t *testing.T) {
			name, stage, _ := strings.Cut(lab, " ")
			whole, err := topo.LoadFile(filepath.Join("..", name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			staged, err := whole.Stage(stage)
			if err != nil {
				t.Fatal(err)
			}
			l := Predict(staged, nil)
			got := tables(l) + ways(l)
			file := filepath.Join("testdata", strings.ReplaceAll(lab, " ", "-")+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("differs from %s (-want +got):\n%s", file, diff)
			}
		})
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func node(name string, links []Link, routes ...Route) Node {
	for i := range links {
		links[i].Up, links[i].Carrier, links[i].Forwarding, links[i].MTU = true, true, true, 1500
	}
	return Node{Name: name, Links: links, Routes: routes, Forwarding: true}
}

func link(name, address string) Link {
	return Link{Name: name, Addresses: []netip.Prefix{prefix(address)}}
}

func via(to, gateway, dev string) Route {
	return Route{To: prefix(to), Type: Unicast, NextHops: []NextHop{{Via: addr(gateway), Device: dev}}}
}

func on(to, dev string) Route {
	return Route{To: prefix(to), Type: Unicast, NextHops: []NextHop{{Device: dev}}}
}

// pair is two nodes on one network, and b has a way on to a second network that
// a third, c, is on.
func pair() Lab {
	return Lab{
		Wires: map[Port]string{{"a", "eth1"}: "n", {"b", "eth1"}: "n", {"b", "eth2"}: "m", {"c", "eth1"}: "m"},
		Nodes: []Node{
			node("a", []Link{link("eth1", "10.0.0.1/24"), link("eth0", "10.9.0.1/24")}, on("10.0.0.0/24", "eth1"), via("10.1.0.0/24", "10.0.0.2", "eth1")),
			node("b", []Link{link("eth1", "10.0.0.2/24"), link("eth2", "10.1.0.2/24")}, on("10.0.0.0/24", "eth1"), on("10.1.0.0/24", "eth2")),
			node("c", []Link{link("eth1", "10.1.0.3/24")}, on("10.1.0.0/24", "eth1"), via("10.0.0.0/24", "10.1.0.2", "eth1")),
		},
	}
}

func TestFates(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*Lab)
		to    string
		fate  Fate
		at    string
	}{
		{"delivered", func(*Lab) {}, "10.1.0.3", Delivered, "c"},
		{"to itself", func(*Lab) {}, "10.0.0.1", Delivered, "a"},
		{"no route at the sender", func(*Lab) {}, "10.7.0.1", NoRoute, "a"},
		{"no route at the router", func(l *Lab) { l.Nodes[1].Routes = l.Nodes[1].Routes[:1] }, "10.1.0.3", NoRoute, "b"},
		{"blackhole", func(l *Lab) {
			l.Nodes[1].Routes = append(l.Nodes[1].Routes, Route{To: prefix("10.1.0.3/32"), Type: Blackhole})
		}, "10.1.0.3", Blackholed, "b"},
		{"prohibit", func(l *Lab) {
			l.Nodes[1].Routes = append(l.Nodes[1].Routes, Route{To: prefix("10.1.0.0/28"), Type: Prohibit})
		}, "10.1.0.3", Rejected, "b"},
		{"forwarding off where it arrives", func(l *Lab) { l.Nodes[1].Links[0].Forwarding = false }, "10.1.0.3", NotForwarded, "b"},
		{"forwarding off does not stop what is for the node itself", func(l *Lab) { l.Nodes[1].Links[0].Forwarding = false }, "10.0.0.2", Delivered, "b"},
		{"strict reverse path filter", func(l *Lab) {
			l.Nodes[1].Links[0].RPFilter = 1
			l.Nodes[1].Routes = append(l.Nodes[1].Routes, via("10.0.0.1/32", "10.1.0.3", "eth2"))
		}, "10.1.0.3", Filtered, "b"},
		{"loose reverse path filter", func(l *Lab) {
			l.Nodes[1].Links[0].RPFilter = 2
			l.Nodes[1].Routes = append(l.Nodes[1].Routes, via("10.0.0.1/32", "10.1.0.3", "eth2"))
		}, "10.1.0.3", Delivered, "c"},
		{"nobody has the address", func(*Lab) {}, "10.1.0.77", SilentNextHop, "b"},
		{"the target's link is down", func(l *Lab) { l.Nodes[2].Links[0].Up = false }, "10.1.0.3", SilentNextHop, "b"},
		{"the router's link is down", func(l *Lab) { l.Nodes[1].Links[1].Up = false }, "10.1.0.3", NoRoute, "b"},
		{"out of the lab", func(l *Lab) { l.Nodes[0].Routes = append(l.Nodes[0].Routes, via("0.0.0.0/0", "10.9.0.2", "eth0")) }, "10.7.0.1", LeftLab, "a"},
		{"loop", func(l *Lab) {
			l.Nodes[1].Routes = append(l.Nodes[1].Routes, via("10.1.0.3/32", "10.0.0.1", "eth1"))
		}, "10.1.0.3", Looped, "a"},
		{"the lower metric wins", func(l *Lab) {
			worse := via("10.1.0.0/24", "10.0.0.77", "eth1")
			worse.Metric = 10
			l.Nodes[0].Routes = append([]Route{worse}, l.Nodes[0].Routes...)
		}, "10.1.0.3", Delivered, "c"},
		{"the longer prefix wins over the lower metric", func(l *Lab) {
			l.Nodes[0].Routes[1].Metric = 0
			longer := via("10.1.0.0/28", "10.0.0.77", "eth1")
			longer.Metric = 10
			l.Nodes[0].Routes = append(l.Nodes[0].Routes, longer)
		}, "10.1.0.3", SilentNextHop, "a"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := pair()
			test.spoil(&l)
			paths := l.Trace("a", netip.Addr{}, addr(test.to))
			if len(paths) != 1 || paths[0].Fate != test.fate || paths[0].Last().Node != test.at {
				t.Errorf("want %s at %s, got %v", test.fate, test.at, paths)
			}
		})
	}
}

// tunnelled joins the outer nodes of a pair by a tunnel that b knows nothing of.
func tunnelled() Lab {
	l := pair()
	for _, end := range []struct {
		at              int
		own, peer       string
		gateway, remote string
	}{{0, "10.0.0.1", "10.1.0.3", "172.20.0.1/32", "172.20.2.1"}, {2, "10.1.0.3", "10.0.0.1", "172.20.2.1/32", "172.20.0.1"}} {
		n := &l.Nodes[end.at]
		n.Links = append(n.Links, Link{Name: "host", Up: true, Carrier: true, Forwarding: true, Addresses: []netip.Prefix{prefix(end.gateway)}},
			Link{Name: "vxlan", MTU: 1450, Up: true, Carrier: true, Forwarding: true, Tunnel: &Tunnel{VNI: 1, Port: 8472, Local: addr(end.own),
				Remotes: []Remote{{Via: addr(end.remote), Node: addr(end.peer)}}}})
		n.Routes = append(n.Routes, Route{To: netip.PrefixFrom(addr(end.remote), 24).Masked(), Type: Unicast, Source: prefix(end.gateway).Addr(),
			NextHops: []NextHop{{Via: addr(end.remote), Device: "vxlan"}}})
	}
	return l
}

// A packet in a tunnel shares the fate of the one that carries it, and the place.
func TestTunnelFates(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*Lab)
		fate  Fate
		hops  int    // of the packet itself
		at    string // where it or its carrier is in the end
	}{
		{"delivered", func(*Lab) {}, Delivered, 2, "c"},
		{"the router has no route to the node", func(l *Lab) { l.Nodes[1].Routes = l.Nodes[1].Routes[:1] }, NoRoute, 1, "b"},
		{"the router does not forward", func(l *Lab) { l.Nodes[1].Links[0].Forwarding = false }, NotForwarded, 1, "b"},
		{"the node has no way to the other", func(l *Lab) { l.Nodes[0].Routes = slices.Delete(l.Nodes[0].Routes, 1, 2) }, NoRoute, 1, "a"},
		{"the other node is gone", func(l *Lab) { l.Nodes[2].Links[0].Up = false }, SilentNextHop, 1, "b"},
		{"the tunnel does not know the next hop", func(l *Lab) { l.Nodes[0].Links[3].Tunnel.Remotes = nil }, Uncarried, 1, "a"},
		{"the tunnel leads to the router", func(l *Lab) { l.Nodes[0].Links[3].Tunnel.Remotes[0].Node = addr("10.0.0.2") }, NotUnpacked, 1, "b"},
		{"the other end is down", func(l *Lab) { l.Nodes[2].Links[2].Up = false }, NotUnpacked, 1, "c"},
		{"the other end has another number", func(l *Lab) { l.Nodes[2].Links[2].Tunnel.VNI = 2 }, NotUnpacked, 1, "c"},
		{"the tunnel leads through itself", func(l *Lab) {
			l.Nodes[0].Routes = append(l.Nodes[0].Routes, via("10.1.0.3/32", "172.20.2.1", "vxlan"))
		}, Looped, 1, "a"},
		{"what it carries is not for the other node", func(l *Lab) { l.Nodes[2].Links[1].Addresses = nil }, NoRoute, 2, "c"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := tunnelled()
			test.spoil(&l)
			ways := l.Trace("a", netip.Addr{}, addr("172.20.2.1"))
			if len(ways) != 1 || ways[0].Fate != test.fate || len(ways[0].Hops) != test.hops || ways[0].End().Last().Node != test.at {
				t.Fatalf("want %s at %s after %d hops, got %v", test.fate, test.at, test.hops, ways)
			}
			if ways[0].Source != addr("172.20.0.1") || ways[0].MTU != 1450 {
				t.Errorf("source %s, mtu %d", ways[0].Source, ways[0].MTU)
			}
		})
	}
}

// A mesh of equal-cost routes has more ways than anybody can look at.
func TestTraceIsBounded(t *testing.T) {
	l := Lab{Wires: map[Port]string{}}
	const depth = 14
	for i := range depth {
		for _, side := range []string{"x", "y"} {
			n := node(fmt.Sprintf("%s%d", side, i), []Link{link("eth1", fmt.Sprintf("10.0.%d.%d/8", i, 1+int(side[0]-'x')))})
			n.Routes = []Route{{To: prefix("192.0.2.1/32"), Type: Unicast, NextHops: []NextHop{
				{Via: addr(fmt.Sprintf("10.0.%d.1", i+1)), Device: "eth1"}, {Via: addr(fmt.Sprintf("10.0.%d.2", i+1)), Device: "eth1"},
			}}}
			l.Wires[Port{n.Name, "eth1"}] = "n"
			l.Nodes = append(l.Nodes, n)
		}
	}
	if got := len(l.Trace("x0", netip.Addr{}, addr("192.0.2.1"))); got != maxPaths {
		t.Errorf("want %d ways, got %d", maxPaths, got)
	}
}

func TestTowards(t *testing.T) {
	l := pair()
	if hop, ok := l.Towards("a", "c"); !ok || hop.String() != "via 10.0.0.2 dev eth1" {
		t.Errorf("a towards c: %v %v", hop, ok)
	}
	l.Wires = map[Port]string{}
	if hop, ok := l.Towards("a", "c"); ok {
		t.Errorf("nothing joins a and c, yet: %v", hop)
	}
}
