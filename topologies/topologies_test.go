package topologies

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/topologies/topo"
)

func TestNames(t *testing.T) {
	if diff := cmp.Diff([]string{"native-routing", "redundant-square", "router-chain"}, Names()); diff != "" {
		t.Errorf("Names (-want +got):\n%s", diff)
	}
}

func TestShippedFiles(t *testing.T) {
	for _, name := range Names() {
		lab, err := Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if lab.Metadata.Name != name {
			t.Errorf("%s.yaml is the lab %s", name, lab.Metadata.Name)
		}
		f, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if err != nil || !bytes.HasPrefix(text, []byte("# yaml-language-server: $schema=schema.json\n")) {
			t.Errorf("%s.yaml does not begin with its schema: %.60q, %v", name, text, err)
		}
	}
}

func TestOpenUnknown(t *testing.T) {
	for _, name := range []string{"", "none", "../topologies", "schema.json", "native-routing.yaml"} {
		_, err := Open(name)
		if !errors.Is(err, ErrNotShipped) {
			t.Errorf("Open(%q) = %v, want ErrNotShipped", name, err)
		}
		if _, err := Load(name); !errors.Is(err, ErrNotShipped) {
			t.Errorf("Load(%q) = %v, want ErrNotShipped", name, err)
		}
	}
}

func TestSchemaIsTheFile(t *testing.T) {
	file, err := os.ReadFile("schema.json")
	if err != nil || !bytes.Equal(file, Schema()) {
		t.Errorf("Schema() differs from schema.json (%v)", err)
	}
}

// TestNativeRouting holds the default lab to the facts of its workshop.
func TestNativeRouting(t *testing.T) {
	lab, err := Load(Default)
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		role                topo.Role
		pods, eth1          string
		cpus, memory, ports int
		routes              int
	}
	want := map[string]facts{
		"router":  {topo.RoleRouter, "invalid Prefix", "192.168.10.200/24", 1, 768, 60009, 0},
		"k8s-ctr": {topo.RoleControlPlane, "172.20.0.0/24", "192.168.10.100/24", 2, 2560, 60000, 3},
		"k8s-w1":  {topo.RoleWorker, "172.20.1.0/24", "192.168.10.101/24", 2, 1536, 60001, 3},
		"k8s-w0":  {topo.RoleWorker, "172.20.2.0/24", "192.168.20.100/24", 2, 1536, 60010, 3},
	}
	got := map[string]facts{}
	for name, n := range lab.Nodes.All() {
		eth1, _ := n.Interfaces.Get("eth1")
		got[name] = facts{n.Role, n.PodCIDR.String(), eth1.Address.String(), n.Resources.CPUs, n.Resources.MemoryMiB, n.Resources.SSHPort, len(n.Routes)}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(facts{})); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	cluster := topo.Cluster{
		PodCIDR: netip.MustParsePrefix("172.20.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
		RoutingMode: topo.RoutingNative, AutoDirectNodeRoutes: true, NativeRoutingCIDR: netip.MustParsePrefix("172.20.0.0/16"),
		Masquerade: true, KubeProxyReplacement: true, LoadBalancer: topo.LoadBalancer{Algorithm: topo.Random},
	}
	if lab.Cluster != cluster {
		t.Errorf("the cluster is %+v, want %+v", lab.Cluster, cluster)
	}
	if v := (topo.Vagrant{Box: "bento/ubuntu-24.04", BoxVersion: "202502.21.0", Provider: "virtualbox"}); lab.Providers.Vagrant == nil || *lab.Providers.Vagrant != v {
		t.Errorf("the box is %+v, want %+v", lab.Providers.Vagrant, v)
	}
}

// TestExceptions: in each stage exactly the traffic that the router loses is declared.
func TestExceptions(t *testing.T) {
	lab, err := Load(Default)
	if err != nil {
		t.Fatal(err)
	}
	baseline := []string{
		"node k8s-ctr → pods k8s-w0: lost", "node k8s-w0 → pods k8s-ctr: lost", "node k8s-w0 → pods k8s-w1: lost",
		"node k8s-w1 → pods k8s-w0: lost", "node router → pods k8s-ctr: lost", "node router → pods k8s-w0: lost", "node router → pods k8s-w1: lost",
		"pods k8s-ctr → pods k8s-w0: lost", "pods k8s-w0 → pods k8s-ctr: lost", "pods k8s-w0 → pods k8s-w1: lost", "pods k8s-w1 → pods k8s-w0: lost",
	}
	for stage, want := range map[string][]string{
		"baseline": baseline, "no-masquerade": baseline, "static-routes": nil, "bgp": nil,
		"overlay": {"node router → pods k8s-ctr: lost", "node router → pods k8s-w0: lost", "node router → pods k8s-w1: lost"},
		"one-route": {
			"node k8s-w0 → pods k8s-ctr: lost", "node k8s-w0 → pods k8s-w1: lost", "node router → pods k8s-ctr: lost", "node router → pods k8s-w1: lost",
			"pods k8s-ctr → pods k8s-w0: reply-lost", "pods k8s-w0 → pods k8s-ctr: lost", "pods k8s-w0 → pods k8s-w1: lost", "pods k8s-w1 → pods k8s-w0: reply-lost",
		},
	} {
		var got []string
		for _, x := range lab.Exceptions(stage) {
			if x.At != "router" || x.Leaving != "eth0" {
				t.Errorf("%s: not lost at the router by eth0: %+v", stage, x)
			}
			got = append(got, declared(x.From, x.To, x.Result)...)
			if x.Both {
				got = append(got, declared(x.To, x.From, x.Result)...)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("exceptions of %s (-want +got):\n%s", stage, diff)
		}
	}
}

// declared is an exception in one direction, from each end to each.
func declared(from, to topo.Selector, result topo.Result) []string {
	var all []string
	for _, target := range to.PodsOn {
		for _, n := range from.PodsOn {
			all = append(all, fmt.Sprintf("pods %s → pods %s: %s", n, target, result))
		}
		for _, n := range from.Nodes {
			all = append(all, fmt.Sprintf("node %s → pods %s: %s", n, target, result))
		}
	}
	return all
}

// TestStagesTeach: every stage of the default lab says what it is and what it
// teaches, in sentences that are no format.
func TestStagesTeach(t *testing.T) {
	lab, err := Load(Default)
	if err != nil {
		t.Fatal(err)
	}
	for name, stage := range lab.Stages.All() {
		if stage.Description == "" || !strings.HasSuffix(stage.Teaches, ".") || strings.Contains(stage.Teaches, "%") {
			t.Errorf("stage %s: %q, %q", name, stage.Description, stage.Teaches)
		}
	}
}
