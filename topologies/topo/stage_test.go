package topo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

func loadShipped(t *testing.T, name string) *Topology {
	t.Helper()
	topology, err := LoadFile("../" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return topology
}

func routesOf(t *Topology, node string) []string {
	n, _ := t.Nodes.Get(node)
	var routes []string
	for _, r := range n.Routes {
		routes = append(routes, fmt.Sprint(r.To, " via ", r.Via))
	}
	return routes
}

func TestStage(t *testing.T) {
	lab := loadShipped(t, "native-routing")
	pristine := loadShipped(t, "native-routing")
	for _, tc := range []struct {
		stage, name string
		routes      []string
		exceptions  int
	}{
		{"", "baseline", nil, 4},
		{"baseline", "baseline", nil, 4},
		{"static-routes", "static-routes", []string{
			"172.20.0.0/24 via [192.168.10.100]", "172.20.1.0/24 via [192.168.10.101]", "172.20.2.0/24 via [192.168.20.100]",
		}, 0},
	} {
		t.Run("stage "+tc.stage, func(t *testing.T) {
			staged, err := lab.Stage(tc.stage)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.routes, routesOf(staged, "router")); diff != "" {
				t.Errorf("routes of the router (-want +got):\n%s", diff)
			}
			if got := routesOf(staged, "k8s-ctr"); len(got) != 3 {
				t.Errorf("routes of k8s-ctr: %v", got)
			}
			if got := lab.Exceptions(tc.stage); len(got) != tc.exceptions {
				t.Errorf("%d exceptions, want %d", len(got), tc.exceptions)
			}
			if diff := cmp.Diff([]string{tc.name}, staged.Stages.Names()); diff != "" {
				t.Errorf("stages (-want +got):\n%s", diff)
			}
			again, err := staged.Stage("")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(staged, again, compareAddresses); diff != "" {
				t.Errorf("entered twice, it differs (-once +twice):\n%s", diff)
			}
			roundTrip(t, staged)
			spoil(staged)
			if diff := cmp.Diff(pristine, lab, compareAddresses); diff != "" {
				t.Errorf("a change of the copy reached the original (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStageOverrides: what a stage sets otherwise holds in it and in no other,
// and what it does not name stays.
func TestStageOverrides(t *testing.T) {
	load := func() *Topology {
		archive, err := txtar.ParseFile("testdata/valid/stage-modes.txtar")
		if err != nil {
			t.Fatal(err)
		}
		lab, err := Load("lab.yaml", bytes.NewReader(archive.Files[0].Data))
		if err != nil {
			t.Fatal(err)
		}
		return lab
	}
	lab := load()
	for _, tc := range []struct {
		stage, want string
	}{
		{"first", "native masquerade=true a=65001 [192.168.20.1] b=65001 []"},
		{"overlay", "vxlan masquerade=true a=65001 [192.168.20.1] b=65001 []"},
		{"off", "native masquerade=false a=65001 [192.168.20.1] b=65001 []"},
		{"bgp", "native masquerade=true router=65000 [] a=65001 [192.168.10.200 192.168.20.1] b=65001 []"},
	} {
		staged, err := lab.Stage(tc.stage)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%s masquerade=%v", staged.Cluster.RoutingMode, staged.Cluster.Masquerade)
		for name, n := range staged.Nodes.All() {
			if n.BGP != nil {
				got += fmt.Sprintf(" %s=%d %v", name, n.BGP.ASN, n.BGP.Neighbors)
			}
		}
		if got != tc.want {
			t.Errorf("stage %s: %s, want %s", tc.stage, got, tc.want)
		}
		again, err := staged.Stage("")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(staged, again, compareAddresses); diff != "" {
			t.Errorf("entered twice, %s differs (-once +twice):\n%s", tc.stage, diff)
		}
		for i := range staged.Nodes {
			if bgp := staged.Nodes[i].Value.BGP; bgp != nil {
				clear(bgp.Neighbors)
				bgp.ASN = 1
			}
		}
		if diff := cmp.Diff(load(), lab, compareAddresses); diff != "" {
			t.Errorf("a change of the copy reached the original (-want +got):\n%s", diff)
		}
	}
}

// spoil overwrites whatever can be reached from t.
func spoil(t *Topology) {
	for i := range t.Nodes {
		n := &t.Nodes[i]
		n.Name = "spoilt"
		for j := range n.Value.Interfaces {
			n.Value.Interfaces[j] = Entry[Interface]{}
		}
		for j := range n.Value.Routes {
			clear(n.Value.Routes[j].Via)
			n.Value.Routes[j] = Route{}
		}
		if n.Value.BGP != nil {
			clear(n.Value.BGP.Neighbors)
			*n.Value.BGP = BGP{}
		}
	}
	clear(t.Networks)
	for i := range t.Stages {
		for _, x := range t.Stages[i].Value.Expect {
			clear(x.From.PodsOn)
			clear(x.To.PodsOn)
			clear(x.From.Nodes)
		}
	}
	clear(t.Stages)
	*t.Providers.Vagrant = Vagrant{}
}

func TestStageUnknown(t *testing.T) {
	lab := loadShipped(t, "native-routing")
	lab.Stages = lab.Stages[:2]
	_, err := lab.Stage("rip")
	const want = "lab native-routing has no stage rip; its stages are baseline, one-route"
	if err == nil || err.Error() != want || !errors.Is(err, ErrInvalid) {
		t.Errorf("Stage(rip) = %v, want %s", err, want)
	}
	lab.Stages = nil
	if _, err := lab.Stage("rip"); err == nil || err.Error() != "lab native-routing has no stages" {
		t.Errorf("without stages: %v", err)
	}
	plain, err := lab.Stage("")
	if err != nil || len(plain.Stages) != 0 || len(plain.Nodes) != 4 {
		t.Errorf("without stages, Stage(\"\") = %v, %v", plain, err)
	}
	if got := lab.Exceptions(""); got != nil {
		t.Errorf("without stages, Exceptions = %v", got)
	}
}

func TestNodes(t *testing.T) {
	lab := loadShipped(t, "native-routing")
	if diff := cmp.Diff([]string{"k8s-ctr", "k8s-w1", "k8s-w0"}, lab.PodNodes()); diff != "" {
		t.Errorf("PodNodes (-want +got):\n%s", diff)
	}
	var hosts []string
	for _, h := range lab.Hosts() {
		hosts = append(hosts, h.Address.String()+" "+h.Name)
	}
	if diff := cmp.Diff([]string{"192.168.10.200 router", "192.168.10.100 k8s-ctr", "192.168.10.101 k8s-w1", "192.168.20.100 k8s-w0"}, hosts); diff != "" {
		t.Errorf("Hosts (-want +got):\n%s", diff)
	}
	router, _ := lab.Nodes.Get("router")
	if gateway, ok := router.PodGateway(); ok {
		t.Errorf("the router has a pod gateway: %s", gateway)
	}
	w0, _ := lab.Nodes.Get("k8s-w0")
	if gateway, ok := w0.PodGateway(); !ok || gateway.String() != "172.20.2.1" {
		t.Errorf("the pod gateway of k8s-w0 is %s, want 172.20.2.1", gateway)
	}
}

func TestMapJSON(t *testing.T) {
	type values = Map[int]
	for _, tc := range []struct {
		json string
		want values
	}{
		{`{"z":1,"a":2,"\u003c\"é":3}`, values{{"z", 1}, {"a", 2}, {`<"é`, 3}}},
		{`{}`, nil},
		{`null`, nil},
	} {
		var got values
		if err := json.Unmarshal([]byte(tc.json), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.json, diff)
		}
		text, err := json.Marshal(got)
		if want := tc.json; err != nil || want != "null" && string(text) != want || want == "null" && string(text) != "{}" {
			t.Errorf("Marshal = %s, %v, want %s", text, err, want)
		}
	}
	for _, bad := range []string{`[]`, `1`, `{"a":"x"}`, `{"a":1`, `{"a"}`} {
		var got values
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s decodes to %v", bad, got)
		}
	}
}
