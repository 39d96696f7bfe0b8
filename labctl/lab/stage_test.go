package lab

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision/fake"
	"github.com/native-routing/labctl/topologies/topo"
)

func (s *stage) enter(name string) StageReport {
	s.t.Helper()
	report, err := s.lab.Enter(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

func (s *stage) saved() Saved {
	s.t.Helper()
	saved, err := s.lab.Store.Load(s.lab.Name)
	if err != nil {
		s.t.Fatal(err)
	}
	return saved
}

// TestHistory: several undos go further back, one after the other; up --stage
// makes history too, and entering the stage that the lab is in makes none.
func TestHistory(t *testing.T) {
	s := newStage(t)
	s.mustUp()
	if r := s.enter("static-routes"); r.From != "baseline" || r.Stage != "static-routes" || r.Teaches == "" {
		t.Errorf("entering static-routes: %+v", r)
	}
	s.enter("static-routes")
	s.wanted.Stage = "one-route"
	s.mustUp()
	s.wanted.Stage = ""
	s.mustUp()
	s.enter("no-masquerade")
	for _, want := range []string{"one-route", "static-routes", "baseline"} {
		report, err := s.lab.Undo(t.Context())
		if err != nil || report.Stage != want || s.saved().Stage != want {
			t.Fatalf("undo leads to %s, %v, want %s", report.Stage, err, want)
		}
	}
	if _, err := s.lab.Undo(t.Context()); !errors.Is(err, ErrNoHistory) || !strings.Contains(err.Error(), "baseline") {
		t.Errorf("an undo too many: %v", err)
	}
	s.enter("static-routes")
	if report, err := s.lab.Undo(t.Context()); err != nil || report.Stage != "baseline" || report.From != "static-routes" {
		t.Errorf("undo after undo and stage: %+v, %v", report, err)
	}
}

// TestHistoryOfGoneStages: what the topology has no more cannot be gone back to.
func TestHistoryOfGoneStages(t *testing.T) {
	s := newStage(t)
	s.mustUp()
	s.enter("one-route")
	s.enter("static-routes")
	s.wanted.Topology.Stages = slices.DeleteFunc(s.wanted.Topology.Stages, func(e topo.Entry[topo.Stage]) bool { return e.Name == "one-route" })
	s.mustUp()
	if report, err := s.lab.Undo(t.Context()); err != nil || report.Stage != "baseline" {
		t.Errorf("undo leads to %s, %v, want baseline", report.Stage, err)
	}
}

// TestStageIsWrittenFirst: what cannot be carried out is asked for all the same,
// and up goes on from there; where a node cannot be looked at nothing is begun.
func TestStageIsWrittenFirst(t *testing.T) {
	s := newStage(t)
	s.mustUp()
	s.provider.Fail(fake.Fault{Method: "EnsureLinks", Err: errInjected})
	if _, err := s.lab.Enter(t.Context(), "static-routes"); !errors.Is(err, errInjected) {
		t.Fatalf("entering static-routes: %v", err)
	}
	if got := s.saved(); got.Stage != "static-routes" || !slices.Equal(got.History, []string{"baseline"}) {
		t.Errorf("written down: stage %s, history %v", got.Stage, got.History)
	}
	s.provider.Heal()
	if report := s.mustUp(); report.Stage != "static-routes" {
		t.Errorf("up leads to %s", report.Stage)
	}
	s.mu.Lock()
	delete(s.servers, "router")
	s.mu.Unlock()
	if _, err := s.lab.Enter(t.Context(), "baseline"); err == nil || !strings.Contains(err.Error(), "the agent of router does not answer") {
		t.Errorf("with a dead agent: %v", err)
	}
	if got := s.saved().Stage; got != "static-routes" {
		t.Errorf("with a dead agent, %s was written down", got)
	}
}

func TestStageUnknown(t *testing.T) {
	s := newStage(t)
	if _, err := s.lab.Enter(t.Context(), "baseline"); !errors.Is(err, ErrNoLab) {
		t.Errorf("without a lab: %v", err)
	}
	s.mustUp()
	if _, err := s.lab.Enter(t.Context(), "rip"); !errors.Is(err, topo.ErrInvalid) || !strings.Contains(err.Error(), "its stages are baseline") {
		t.Errorf("a stage that there is not: %v", err)
	}
	if got := s.saved(); got.Stage != "baseline" || len(got.History) != 0 {
		t.Errorf("written down: stage %s, history %v", got.Stage, got.History)
	}
}

// TestStageFailsAtAnyCall fails each call to the provider in turn: the lab is in
// the old stage or in the new one, and up finishes it.
func TestStageFailsAtAnyCall(t *testing.T) {
	s := newStage(t)
	s.mustUp()
	s.provider.Calls()
	s.enter("static-routes")
	for at := range len(s.provider.Calls()) {
		s := newStage(t)
		s.mustUp()
		s.provider.Calls()
		s.provider.Fail(fake.Fault{At: at + 1, Err: errInjected})
		_, err := s.lab.Enter(t.Context(), "static-routes")
		s.provider.Heal()
		stage := s.saved().Stage
		if err == nil && stage != "static-routes" || stage != "static-routes" && stage != "baseline" {
			t.Errorf("call %d: %v, and the lab is in %s", at+1, err, stage)
		}
		if report := s.mustUp(); report.Stage != stage {
			t.Errorf("call %d: the lab was in %s, and up leads to %s", at+1, stage, report.Stage)
		}
		if left := s.mustUp(); len(left.Changes) != 0 {
			t.Errorf("call %d: the up after the next left %v to do", at+1, left.Changes)
		}
	}
}
