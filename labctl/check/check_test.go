package check

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
	"github.com/native-routing/labctl/topologies/topo"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(t *testing.T, lab string) *topo.Topology {
	t.Helper()
	loaded, err := topo.LoadFile("../../topologies/" + lab + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// verify runs the checks on a lab in a stage after spoil had its way with it.
func verify(t *testing.T, lab, stage string, spoil func(*simulator)) Report {
	t.Helper()
	whole := load(t, lab)
	staged, err := whole.Stage(stage)
	if err != nil {
		t.Fatal(err)
	}
	s := newSimulator(path.Predict(staged, nil))
	if spoil != nil {
		spoil(s)
	}
	return Run(context.Background(), Subject{
		Topology: staged, Stage: stage, Exceptions: whole.Exceptions(stage),
	}, s, Selection{})
}

// text is a report for a golden file: with all set every result, otherwise
// those that are not ok.
func text(r Report, all bool) string {
	var b strings.Builder
	for _, x := range r.Results {
		if !all && (x.Outcome == OK || x.Outcome == ExpectedFailure) {
			continue
		}
		fmt.Fprintf(&b, "%s: %s: %s: expected %s; seen %s\n", x.Group, x.Outcome, x.Name, x.Expected, x.Seen)
		for _, c := range x.Causes {
			fmt.Fprintf(&b, "    %s [%s]\n", c, c.Cure)
		}
	}
	for _, c := range r.Causes {
		fmt.Fprintf(&b, "cause of %d: %s [%s]\n", c.Results, c, c.Cure)
	}
	fmt.Fprintln(&b, r.Summary)
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
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
}

func TestHealthyLabs(t *testing.T) {
	for _, lab := range []struct{ name, stage string }{
		{"native-routing", "baseline"}, {"native-routing", "static-routes"}, {"native-routing", "overlay"}, {"router-chain", "baseline"}, {"redundant-square", "baseline"},
	} {
		t.Run(lab.name+"-"+lab.stage, func(t *testing.T) {
			r := verify(t, lab.name, lab.stage, nil)
			if !r.Passed() {
				t.Errorf("a healthy lab does not pass:\n%s", text(r, false))
			}
			golden(t, lab.name+"-"+lab.stage, text(r, true))
		})
	}
}

func (s *simulator) node(name string) *path.Node {
	i := slices.IndexFunc(s.lab.Nodes, func(n path.Node) bool { return n.Name == name })
	return &s.lab.Nodes[i]
}

func (s *simulator) link(node, name string) *path.Link {
	n := s.node(node)
	i := slices.IndexFunc(n.Links, func(l path.Link) bool { return l.Name == name })
	return &n.Links[i]
}

func (s *simulator) delete(node, to string) {
	n := s.node(node)
	n.Routes = slices.DeleteFunc(n.Routes, func(r path.Route) bool { return r.To.String() == to })
}

func (s *simulator) add(node, to, via, dev string) {
	s.append(node, path.Route{
		To: netip.MustParsePrefix(to), Type: path.Unicast, Protocol: "boot", Scope: "global",
		NextHops: []path.NextHop{{Via: netip.MustParseAddr(via), Device: dev}},
	})
}

func (s *simulator) append(node string, r path.Route) {
	n := s.node(node)
	n.Routes = append(n.Routes, r)
}

// down takes an interface down as a kernel does: its routes go with it.
func (s *simulator) down(node, name string) {
	s.link(node, name).Up = false
	n := s.node(node)
	n.Routes = slices.DeleteFunc(n.Routes, func(r path.Route) bool {
		return slices.ContainsFunc(r.NextHops, func(h path.NextHop) bool { return h.Device == name })
	})
}

func TestFaults(t *testing.T) {
	faults := []struct {
		name  string
		stage string
		spoil func(*simulator)
	}{
		{"static-route-deleted", "baseline", func(s *simulator) { s.delete("k8s-ctr", "192.168.20.0/24") }},
		{"return-route-deleted", "baseline", func(s *simulator) { s.delete("k8s-w0", "192.168.10.0/24") }},
		{"direct-route-deleted", "baseline", func(s *simulator) { s.delete("k8s-ctr", "172.20.1.0/24") }},
		{"half-mended", "baseline", func(s *simulator) { s.add("router", "172.20.2.0/24", "192.168.20.100", "eth2") }},
		{"mended", "baseline", func(s *simulator) {
			s.add("router", "172.20.0.0/24", "192.168.10.100", "eth1")
			s.add("router", "172.20.1.0/24", "192.168.10.101", "eth1")
			s.add("router", "172.20.2.0/24", "192.168.20.100", "eth2")
		}},
		{"stage-route-missing", "static-routes", func(s *simulator) { s.delete("router", "172.20.1.0/24") }},
		{"forwarding-off", "baseline", func(s *simulator) {
			n := s.node("router")
			n.Forwarding = false
			for i := range n.Links {
				n.Links[i].Forwarding = false
			}
		}},
		{"mtu-lowered", "baseline", func(s *simulator) { s.link("router", "eth2").MTU = 1400 }},
		{"wrong-more-specific", "baseline", func(s *simulator) { s.add("router", "192.168.20.100/32", "192.168.10.101", "eth1") }},
		{"blackhole", "static-routes", func(s *simulator) {
			s.append("router", path.Route{To: netip.MustParsePrefix("172.20.2.1/32"), Type: path.Blackhole, Protocol: "boot", Scope: "global"})
		}},
		{"no-carrier", "baseline", func(s *simulator) { s.link("k8s-w0", "eth1").Carrier = false }},
		{"link-down", "baseline", func(s *simulator) { s.down("router", "eth2") }},
		{"address-changed", "baseline", func(s *simulator) {
			s.link("k8s-w1", "eth1").Addresses = []netip.Prefix{netip.MustParsePrefix("192.168.10.150/24")}
			n := s.node("k8s-w1")
			for i, r := range n.Routes {
				if r.To.String() == "192.168.10.0/24" {
					n.Routes[i].Source = netip.MustParseAddr("192.168.10.150")
				}
			}
		}},
		{"rp-filter", "static-routes", func(s *simulator) {
			s.link("router", "eth1").RPFilter = 1
			s.add("router", "192.168.10.101/32", "192.168.20.100", "eth2")
		}},
		{"firewall", "baseline", func(s *simulator) { s.drop["router"] = true }},
		{"masqueraded", "static-routes", func(s *simulator) { s.nat["k8s-ctr"] = netip.MustParseAddr("192.168.10.100") }},
		{"masqueraded-on-the-way", "static-routes", func(s *simulator) { s.nat["router"] = netip.MustParseAddr("192.168.20.200") }},
		{"network-lost", "baseline", func(s *simulator) { s.deaf["k8s-ctr"] = true }},
		{"neighbour-wrong", "baseline", func(s *simulator) {
			s.deaf["k8s-w0"] = true
			s.neighbours["k8s-w0"] = api.Neighbour{Address: netip.MustParseAddr("192.168.20.200"), Device: "eth1", MAC: "02:00:00:00:00:99", State: "permanent"}
		}},
		{"rule", "static-routes", func(s *simulator) { s.rules["router"] = netip.MustParseAddr("192.168.20.100") }},
		{"throw", "baseline", func(s *simulator) {
			s.append("k8s-ctr", path.Route{To: netip.MustParsePrefix("192.168.20.0/25"), Type: "throw", Protocol: "boot", Scope: "global"})
		}},
		{"duplicate-address", "baseline", func(s *simulator) {
			l := s.link("k8s-w1", "eth1")
			l.Addresses = append(l.Addresses, netip.MustParsePrefix("192.168.10.100/24"))
		}},
		{"tunnel-underlay-route", "overlay", func(s *simulator) { s.delete("k8s-ctr", "192.168.20.0/24") }},
		{"tunnel-firewall", "overlay", func(s *simulator) { s.drop["router"] = true }},
		{"tunnel-entry-gone", "overlay", func(s *simulator) {
			t := s.link("k8s-w1", "labctl_vxlan").Tunnel
			t.Remotes = t.Remotes[:1]
		}},
		{"tunnel-entry-wrong", "overlay", func(s *simulator) {
			s.link("k8s-w0", "labctl_vxlan").Tunnel.Remotes[0].Node = netip.MustParseAddr("192.168.20.200")
		}},
		{"tunnel-down", "overlay", func(s *simulator) { s.down("k8s-w0", "labctl_vxlan") }},
		{"tunnel-route-mtu", "overlay", func(s *simulator) {
			for i, r := range s.node("k8s-ctr").Routes {
				if r.MTU != 0 {
					s.node("k8s-ctr").Routes[i].MTU = 0
				}
			}
		}},
		{"router-agent-dead", "baseline", func(s *simulator) { s.dead["router"] = true }},
		{"agent-dead", "baseline", func(s *simulator) { s.dead["k8s-w1"] = true }},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			r := verify(t, "native-routing", f.stage, f.spoil)
			if r.Passed() {
				t.Error("the fault was not seen")
			}
			if strings.HasSuffix(f.name, "agent-dead") && !r.Undecided() {
				t.Error("an agent that does not answer is no failure of a route")
			}
			golden(t, "fault-"+f.name, text(r, false))
		})
	}
}
