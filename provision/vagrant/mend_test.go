package vagrant

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// widen gives a node one more interface on a network.
func widen(l *topo.Topology, node string) {
	i := slices.IndexFunc(l.Nodes, func(e topo.Entry[topo.Node]) bool { return e.Name == node })
	l.Nodes[i].Value.Interfaces = append(l.Nodes[i].Value.Interfaces, topo.Entry[topo.Interface]{Name: "eth9",
		Value: topo.Interface{Network: l.Networks[0].Name, Address: netip.MustParsePrefix("192.168.10.99/24")}})
}

func TestWholeMachineIsKept(t *testing.T) {
	s := newStage(t, Libvirt)
	l := study(t)
	s.wantUp(l)
	s.put("domains", "labctl-study_k8s-w1", "2") // eth0 and eth1, all that it was asked for with
	if _, err := s.Halt(t.Context(), "study", "k8s-w1"); err != nil {
		t.Fatal(err)
	}
	widen(l, "k8s-w1") // halted
	widen(l, "router") // running
	s.restart(Libvirt)
	s.calls("")
	_, errs := s.up(t.Context(), l)
	for _, node := range []string{"k8s-w1", "router"} {
		if err := errs[node]; !errors.Is(err, ErrOutgrown) || !strings.Contains(err.Error(), "(labctl down "+node+", then labctl up)") {
			t.Errorf("%s: %v", node, err)
		}
		delete(errs, node)
	}
	if len(errs) > 0 {
		t.Errorf("others: %v", errs)
	}
	if calls := s.calls("vagrant destroy"); len(calls) > 0 || !slices.Contains(s.list("domains"), "labctl-study_k8s-w1") {
		t.Errorf("called %q, and there are %q", calls, s.list("domains"))
	}

	// The cure helps.
	if _, err := s.Destroy(t.Context(), "study", "k8s-w1", "router"); err != nil {
		t.Fatal(err)
	}
	if changes := s.wantUp(l); !slices.Contains(changes, "k8s-w1: created VM") || !slices.Contains(changes, "router: created VM") {
		t.Errorf("changes: %q", changes)
	}
	s.restart(Libvirt)
	s.wantUp(l)
}

func TestStateInVagrantsWords(t *testing.T) {
	s := newStage(t, Libvirt)
	for said, want := range map[string]string{"running": "running", "shut off": "shutoff", "in shutdown": shuttingDown} {
		s.put("ids", "x", said)
		if got, err := s.Provider.virsh.state(t.Context(), "x"); err != nil || got != want {
			t.Errorf("%q: %q, %v", said, got, err)
		}
	}
	if standing(shuttingDown) != provision.NodeBroken {
		t.Error("a machine that shuts down is nobody's to boot")
	}
}
