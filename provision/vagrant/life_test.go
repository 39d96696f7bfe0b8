package vagrant

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/machine"
	"github.com/native-routing/labctl/provision/providertest"
)

func TestConformance(t *testing.T) {
	for _, provider := range []string{VirtualBox, Libvirt} {
		t.Run(provider, func(t *testing.T) {
			providertest.Run(t, providertest.Subject{New: func(t *testing.T) provision.Provider { return newStage(t, provider).Provider }})
		})
	}
}

const upAll = "vagrant up --no-provision --no-install-provider"

func TestOneVagrantForAllNodes(t *testing.T) {
	s := newStage(t, Libvirt)
	changes := s.wantUp(study(t))
	if !slices.Contains(changes, "k8s-w0: created VM") || len(changes) < 4 {
		t.Errorf("changes: %q", changes)
	}
	calls := s.calls("vagrant")
	if len(calls) < 2 || calls[0] != upAll+" router k8s-ctr k8s-w1 k8s-w0" || slices.ContainsFunc(calls[1:], func(c string) bool { return !strings.HasPrefix(c, "vagrant ssh-config ") }) {
		t.Errorf("vagrant was called %q", calls)
	}
	if !slices.Contains(s.told, "k8s-w1: importing the box") {
		t.Errorf("told: %q", s.told)
	}
	// A second time nothing is asked of vagrant, also by another labctl.
	s.restart(Libvirt)
	if changes := s.wantUp(study(t)); len(changes) > 0 {
		t.Errorf("the second time changed %q", changes)
	}
	s.wantCalls()

	s.restart(VirtualBox)
	if _, errs := s.up(t.Context(), study(t)); errs["router"] == nil || !strings.Contains(errs["router"].Error(), "stands on libvirt, not on virtualbox") {
		t.Errorf("on another provider: %v", errs)
	}
}

func TestNodesGoOnBeforeAllAreUp(t *testing.T) {
	s := newStage(t, VirtualBox)
	s.faults(fakeFault{Command: "up", Node: "k8s-w0", Hang: true}) // the last one
	l, ensured := study(t), make(chan string, 4)
	s.machines.fail = func(node string, _ machine.Access) error { ensured <- node; return nil }
	done := make(chan map[string]error, 1)
	go func() { _, errs := s.up(t.Context(), l); done <- errs }()
	for range 3 {
		if node := receive(t, ensured); node == "k8s-w0" {
			t.Error("k8s-w0 was ensured before it was up")
		}
	}
	if err := os.WriteFile(s.path("release"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if errs := receive(t, done); len(errs) > 0 {
		t.Error(errs)
	}
}

func TestStartsOnlyWhatIsAsked(t *testing.T) {
	s := newStage(t, Libvirt)
	l := study(t)
	s.wantUp(l)
	changes, err := s.Halt(t.Context(), "study", "k8s-w1", "router")
	if err != nil || len(changes) != 2 || changes[0].String() != "k8s-w1: stopped VM" {
		t.Fatalf("halt: %v, %v", changes, err)
	}
	if changes, err := s.Halt(t.Context(), "study", "router"); err != nil || len(changes) > 0 {
		t.Errorf("halted once more: %v, %v", changes, err)
	}
	if _, err := s.OpenNode(t.Context(), "study", "router"); !errors.Is(err, ErrHalted) || !strings.Contains(err.Error(), "(labctl start router)") {
		t.Errorf("open a halted node: %v", err)
	}
	s.calls("")
	changes, err = s.Start(t.Context(), l, "router")
	if err != nil || len(changes) != 1 || changes[0].String() != "router: started VM" {
		t.Fatalf("start: %v, %v", changes, err)
	}
	if calls := s.calls("vagrant up"); !slices.Equal(calls, []string{upAll + " router"}) {
		t.Errorf("called %q", calls)
	}
	o, err := s.Observe(t.Context(), "study")
	if err != nil || stateIn(o, "k8s-w1") != provision.NodeStopped || stateIn(o, "router") != provision.NodeRunning {
		t.Errorf("observed %+v, %v", o, err)
	}
}

func TestHaltedOrRemovedBehindOurBack(t *testing.T) {
	s := newStage(t, Libvirt)
	l := study(t)
	s.wantUp(l)
	r := s.fakeRun(Libvirt)
	r.set("router", "shutoff")
	r.set("k8s-w0", absent)
	for _, file := range []string{s.path("domains", r.object("k8s-w0")), s.path("volumes", r.object("k8s-w0")+".img")} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	s.machines.fail = func(node string, _ machine.Access) error {
		if r.state(node) != "running" {
			return fmt.Errorf("%s: connection refused", node)
		}
		return nil
	}
	s.restart(Libvirt)
	s.calls("")
	s.machines.asked = nil
	if _, err := s.OpenNode(t.Context(), "study", "router"); !errors.Is(err, ErrHalted) {
		t.Errorf("open what was halted: %v", err)
	}
	if _, err := s.OpenNode(t.Context(), "study", "k8s-w0"); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("open what was removed: %v", err)
	}
	o, err := s.Observe(t.Context(), "study")
	if err != nil || stateIn(o, "router") != provision.NodeStopped || stateIn(o, "k8s-w0") != "" || stateIn(o, "k8s-w1") != provision.NodeRunning {
		t.Errorf("observed %+v, %v", o, err)
	}
	changes := s.wantUp(l)
	for _, want := range []string{"router: started VM", "k8s-w0: created VM"} {
		if !slices.Contains(changes, want) {
			t.Errorf("changes %q lack %q", changes, want)
		}
	}
	if !slices.Contains(s.machines.asked, "forget k8s-w0") || slices.Contains(s.machines.asked, "forget router") {
		t.Errorf("host keys: %q", s.machines.asked)
	}
}

func TestPartialFailure(t *testing.T) {
	tooLong := "Timed out while waiting for the machine to boot. This means that\nVagrant was unable to communicate with the guest machine within\nthe configured (\"config.vm.boot_timeout\" value) time period."
	for _, test := range []struct {
		provider string
		class    error
		others   map[string]error // beside k8s-ctr, which fails
	}{
		{Libvirt, ErrBootTimeout, nil},
		{VirtualBox, ErrBootTimeout, map[string]error{"k8s-w1": ErrVagrant, "k8s-w0": ErrVagrant}},
	} {
		t.Run(test.provider, func(t *testing.T) {
			s := newStage(t, test.provider)
			s.faults(fakeFault{Command: "up", Node: "k8s-ctr", Type: "Vagrant::Errors::VMBootTimeout", Text: tooLong})
			l := study(t)
			_, errs := s.up(t.Context(), l)
			if !errors.Is(errs["k8s-ctr"], test.class) || !strings.Contains(errs["k8s-ctr"].Error(), s.options.paths("study").log()) {
				t.Errorf("k8s-ctr: %v", errs["k8s-ctr"])
			}
			delete(errs, "k8s-ctr")
			if len(errs) != len(test.others) {
				t.Errorf("others: %v", errs)
			}
			for node, class := range test.others {
				if !errors.Is(errs[node], class) || !strings.Contains(errs[node].Error(), "not begun") {
					t.Errorf("%s: %v", node, errs[node])
				}
			}
			// The next run goes on from there.
			s.calls("")
			s.wantUp(l)
			if up := s.calls("vagrant up"); len(up) != 1 || strings.Contains(up[0], "router") {
				t.Errorf("the next run called %q", up)
			}
		})
	}
}

// TestFailsAfterItAnswered: SSH answers, the node is made, and then vagrant
// fails on its last steps.
func TestFailsAfterItAnswered(t *testing.T) {
	s := newStage(t, Libvirt)
	s.faults(fakeFault{Command: "finish", Node: "k8s-w0", Type: "X", Text: "the last straw"})
	_, errs := s.up(t.Context(), study(t))
	if len(errs) != 1 || !errors.Is(errs["k8s-w0"], ErrVagrant) || !strings.Contains(errs["k8s-w0"].Error(), "the last straw") {
		t.Errorf("%v", errs)
	}
	if !slices.Contains(s.machines.asked, "ensure k8s-w0") {
		t.Errorf("asked: %q", s.machines.asked)
	}
}

// TestTheKeyThatVagrantGave: the address is asked for while the machine still
// boots, and the key comes later.
func TestTheKeyThatVagrantGave(t *testing.T) {
	s := newStage(t, VirtualBox)
	var mu sync.Mutex
	keys := map[string]string{}
	s.machines.fail = func(node string, at machine.Access) error {
		mu.Lock()
		defer mu.Unlock()
		keys[node] = at.KeyFile
		return nil
	}
	if _, err := s.prepare(t.Context(), study(t)); err != nil {
		t.Fatal(err)
	}
	own := s.options.paths("study").key("router", VirtualBox)
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.wantUp(study(t))
	if keys["router"] != own || keys["k8s-ctr"] != "/a b/key" {
		t.Errorf("keys: %q", keys)
	}
}

func TestCancelledVagrantCleansUp(t *testing.T) {
	s := newStage(t, Libvirt)
	s.faults(fakeFault{Command: "up", Node: "router", Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan map[string]error, 1)
	go func() { _, errs := s.up(ctx, study(t)); done <- errs }()
	s.waitTold("router: booting")
	cancel()
	for node, err := range receive(t, done) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", node, err)
		}
	}
	if got := s.calls("cleaned"); !slices.Equal(got, []string{"cleaned router"}) {
		t.Errorf("when it returned, vagrant had %q", got)
	}
	s.wantUp(study(t))
}

func TestDeafVagrantIsKilled(t *testing.T) {
	s := newStage(t, Libvirt)
	l := study(t)
	s.faults(fakeFault{Command: "up", Node: "router", Hang: true, Deaf: true})
	if _, err := s.prepare(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	r := s.runner(s.lab("study"), Libvirt)
	r.grace = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	err := r.run(ctx, func(e event) {
		if progress(e) == "booting" {
			cancel()
		}
	}, "up", "router")
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestKilledInTheMiddle(t *testing.T) {
	s := newStage(t, Libvirt)
	l := study(t)
	s.faults(fakeFault{Command: "up", Node: "k8s-ctr", Die: true})
	if _, errs := s.up(t.Context(), l); len(errs) == 0 {
		t.Fatal("a killed vagrant went unnoticed")
	}
	o, err := s.Observe(t.Context(), "study")
	if err != nil || stateIn(o, "k8s-ctr") != provision.NodeBroken || stateIn(o, "router") != provision.NodeRunning {
		t.Fatalf("a domain without its id: %+v, %v", o, err)
	}
	s.wantUp(l) // the fake refuses a name that is taken, as vagrant-libvirt does

	// Half made another way: known to Vagrant, without all of its NICs.
	r := s.fakeRun(Libvirt)
	r.set("k8s-w0", "shutoff")
	s.put("domains", r.object("k8s-w0"), "1")
	s.machines.fail = func(node string, _ machine.Access) error {
		if r.state(node) != "running" {
			return errors.New("connection refused")
		}
		return nil
	}
	s.restart(Libvirt)
	if changes := s.wantUp(l); !slices.Contains(changes, "k8s-w0: created VM") {
		t.Errorf("changes: %q", changes)
	}
}

func TestOddStatesAreMended(t *testing.T) {
	for state, want := range map[string]string{"gurumeditation": "halt --force router", "inaccessible": "halt --force router", "saved": "", "aborted": ""} {
		t.Run(state, func(t *testing.T) {
			s := newStage(t, VirtualBox)
			l := study(t)
			s.wantUp(l)
			r := s.fakeRun(VirtualBox)
			r.set("router", state)
			s.calls("")
			s.options.GatherTime = time.Millisecond // it is the only one
			if _, err := s.Start(t.Context(), l, "router"); err != nil {
				t.Fatal(err)
			}
			calls := s.calls("vagrant")
			if got := slices.Contains(calls, "vagrant "+want); want != "" && !got || !slices.Contains(calls, upAll+" --no-parallel router") {
				t.Errorf("called %q", calls)
			}
		})
	}
}

func TestWaitsForAnotherVagrant(t *testing.T) {
	locked := fakeFault{Command: "up", Type: "Vagrant::Errors::MachineActionLockedError",
		Text: "An action 'up' was attempted on the machine 'router',\nbut another process is already executing an action on the machine.\nVagrant locks each machine for access by only one process at a time."}
	s := newStage(t, Libvirt)
	s.faults(locked)
	s.wantUp(study(t))
	if !slices.Contains(s.told, ": another vagrant works on lab study, waiting for it") {
		t.Errorf("told: %q", s.told)
	}

	s = newStage(t, Libvirt)
	s.options.LockPatience = time.Nanosecond
	s.faults(locked)
	if _, errs := s.up(t.Context(), study(t)); !errors.Is(errs["router"], ErrLocked) {
		t.Errorf("out of patience: %v", errs)
	}
}
