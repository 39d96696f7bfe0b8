package topologies

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
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

// TestBaselineExceptions: exactly the traffic that the router loses is declared.
func TestBaselineExceptions(t *testing.T) {
	lab, err := Load(Default)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	add := func(from, to topo.Selector) {
		for _, target := range to.PodsOn {
			for _, n := range from.PodsOn {
				got["pods "+n+" → pods "+target] = true
			}
			for _, n := range from.Nodes {
				got["node "+n+" → pods "+target] = true
			}
		}
		if len(to.Nodes) > 0 {
			t.Errorf("an exception for traffic to nodes: %v", to)
		}
	}
	for _, x := range lab.Exceptions("baseline") {
		if x.Result != topo.ResultLost || x.At != "router" || x.Leaving != "eth0" {
			t.Errorf("not lost at the router by eth0: %+v", x)
		}
		add(x.From, x.To)
		if x.Both {
			add(x.To, x.From)
		}
	}
	want := map[string]bool{
		"pods k8s-ctr → pods k8s-w0": true, "pods k8s-w1 → pods k8s-w0": true,
		"pods k8s-w0 → pods k8s-ctr": true, "pods k8s-w0 → pods k8s-w1": true,
		"node k8s-ctr → pods k8s-w0": true, "node k8s-w1 → pods k8s-w0": true,
		"node k8s-w0 → pods k8s-ctr": true, "node k8s-w0 → pods k8s-w1": true,
		"node router → pods k8s-ctr": true, "node router → pods k8s-w1": true, "node router → pods k8s-w0": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("exceptions (-want +got):\n%s", diff)
	}
	if x := lab.Exceptions("static-routes"); len(x) != 0 {
		t.Errorf("static-routes declares %v", x)
	}
}
