package vagrant

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/machine"
	"github.com/native-routing/labctl/provision/remote"
)

// fogTimeout is what vagrant-libvirt 0.11 raises where a machine does not shut
// down in time.
const fogTimeout = "The specified wait_for timeout (44.361838284 seconds) was exceeded"

// TestHangsAtHalt: a machine whose system does not react is switched off.
func TestHangsAtHalt(t *testing.T) {
	s := newStage(t, Libvirt)
	s.wantUp(study(t))
	s.faults(fakeFault{Command: "halt", Node: "k8s-w1", Raise: true, Text: fogTimeout})
	s.calls("")
	changes, err := s.Halt(t.Context(), "study", "k8s-w1")
	if err != nil || len(changes) != 1 || changes[0].String() != "k8s-w1: stopped VM" {
		t.Errorf("halt: %v, %v", changes, err)
	}
	if calls := s.calls("virsh destroy"); !slices.Equal(calls, []string{"virsh destroy labctl-study_k8s-w1"}) {
		t.Errorf("called %q", calls)
	}
	if o, err := s.Observe(t.Context(), "study"); err != nil || stateIn(o, "k8s-w1") != provision.NodeStopped || stateIn(o, "router") != provision.NodeRunning {
		t.Errorf("observed %+v, %v", o, err)
	}
}

// TestExceptionOfRuby: the user reads what was raised, not where.
func TestExceptionOfRuby(t *testing.T) {
	s := newStage(t, Libvirt)
	s.wantUp(study(t))
	s.faults(fakeFault{Command: "halt", Node: "k8s-w1", Raise: true, Text: "undefined method `name' for nil:NilClass"})
	_, err := s.Halt(t.Context(), "study", "k8s-w1")
	if !errors.Is(err, ErrVagrant) || !strings.HasPrefix(err.Error(), "k8s-w1: vagrant failed: undefined method `name' for nil:NilClass (Fog::Errors::TimeoutError) (all that vagrant said is in ") {
		t.Errorf("%v", err)
	}
	if calls := s.calls("virsh destroy"); len(calls) > 0 {
		t.Errorf("a machine is switched off for it: %q", calls)
	}
}

// TestRunsAndDoesNotAnswer: whoever meets such a machine reads what is left to do.
func TestRunsAndDoesNotAnswer(t *testing.T) {
	s := newStage(t, Libvirt)
	l := study(t)
	s.wantUp(l)
	s.machines.fail = func(node string, _ machine.Access) error {
		if node == "k8s-w1" {
			return fmt.Errorf("%s: %w within 1m0s: no route to host", node, remote.ErrUnreachable)
		}
		return nil
	}
	const cure = "(its VM runs; if it hangs: labctl halt k8s-w1, then labctl up)"
	_, errs := s.up(t.Context(), l)
	if err := errs["k8s-w1"]; !errors.Is(err, remote.ErrUnreachable) || !strings.HasSuffix(err.Error(), cure) || len(errs) != 1 {
		t.Errorf("up: %v", errs)
	}
	if _, err := s.OpenNode(t.Context(), "study", "k8s-w1"); !errors.Is(err, remote.ErrUnreachable) || !strings.HasSuffix(err.Error(), cure) {
		t.Errorf("open: %v", err)
	}
}

// TestLooksLeaveNothing: neither the copy that a vagrant looks at, nor a change of
// what the next vagrant up goes by.
func TestLooksLeaveNothing(t *testing.T) {
	s := newStage(t, VirtualBox)
	s.wantUp(study(t))
	at := s.options.paths("study")
	before := within(at.machines(), func(string) bool { return true })
	if _, err := s.Observe(t.Context(), "study"); err != nil {
		t.Fatal(err)
	}
	if left := within(at.dir, func(name string) bool { return strings.HasPrefix(name, "look-") }); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
	r := s.fakeRun(VirtualBox)
	for _, node := range before {
		if !exists(r.machine(node, "id")) || !exists(r.machine(node, "index_uuid")) {
			t.Errorf("%s: Vagrant does not know it any more", node)
		}
	}
	if len(before) != 4 {
		t.Errorf("machines: %q", before)
	}
}
