package lab

import (
	"net/netip"
	"testing"

	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies/topo"
)

func TestDesiredIsPure(t *testing.T) {
	whole, err := topo.LoadFile("../../topologies/native-routing.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := workload.Set{}.Cluster(whole, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range whole.Nodes.Names() {
		first, err := desired(whole, nil, cluster, node)
		if err != nil {
			t.Fatal(err)
		}
		second, err := desired(whole, nil, cluster, node)
		if err != nil {
			t.Fatal(err)
		}
		if first.Generation == "" || first.Generation != second.Generation {
			t.Errorf("%s: generations %q and %q of the same topology", node, first.Generation, second.Generation)
		}
	}
	// A change of one node's pod CIDR is news for its peers, but not for the router.
	before := generations(t, whole)
	for i := range whole.Nodes {
		if whole.Nodes[i].Name == "k8s-w0" {
			whole.Nodes[i].Value.PodCIDR = netip.MustParsePrefix("172.20.9.0/24")
		}
	}
	after := generations(t, whole)
	for node, changes := range map[string]bool{"router": false, "k8s-ctr": true, "k8s-w1": true, "k8s-w0": true} {
		if (before[node] != after[node]) != changes {
			t.Errorf("%s: changed = %v, want %v", node, before[node] != after[node], changes)
		}
	}
}

func generations(t *testing.T, whole *topo.Topology) map[string]string {
	t.Helper()
	cluster, err := workload.Set{}.Cluster(whole, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, node := range whole.Nodes.Names() {
		state, err := desired(whole, nil, cluster, node)
		if err != nil {
			t.Fatal(err)
		}
		all[node] = state.Generation
	}
	return all
}
