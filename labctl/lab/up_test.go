package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/fake"
	"github.com/native-routing/labctl/topologies/topo"
)

// stage is a fake provider with a fake agent behind every node.
type stage struct {
	t        *testing.T
	provider *fake.Provider
	lab      *Lab
	wanted   Wanted

	mu      sync.Mutex
	drifts  map[string][]api.Object // by node
	states  map[string]api.State
	servers map[string]*httptest.Server // by node
}

type silent struct{}

func (silent) Start(string) Step { return silent{} }
func (silent) Note(string)       {}
func (silent) Update(string)     {}
func (silent) Done(string)       {}
func (silent) Fail(error)        {}

func newStage(t *testing.T) *stage {
	t.Helper()
	loaded, err := topo.LoadFile("../../topologies/native-routing.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, states: map[string]api.State{}, servers: map[string]*httptest.Server{}, wanted: Wanted{Topology: loaded, Source: "native-routing"}}
	s.provider = fake.New()
	s.provider.Started = s.serve
	s.provider.Dial = s.dial
	s.lab = &Lab{
		Name: loaded.Metadata.Name, Provider: s.provider, Store: Store{Dir: filepath.Join(t.TempDir(), "state")},
		Agent: func(string) ([]byte, error) { return []byte("an agent"), nil }, Story: silent{},
	}
	return s
}

// dial reaches the agent of a node, where one was started.
func (s *stage) dial(ctx context.Context, _, node, _, _ string) (net.Conn, error) {
	s.mu.Lock()
	server := s.servers[node]
	s.mu.Unlock()
	if server == nil {
		return nil, syscall.ECONNREFUSED
	}
	return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
}

// serve is the agent of one node: it holds what it is given, at once.
func (s *stage) serve(_, node string, _ provision.Service) {
	mux := http.NewServeMux()
	api.GetVersion.Handle(mux, func(context.Context, api.None) (api.Version, error) { return api.Version{Version: "test"}, nil })
	api.PutState.Handle(mux, func(_ context.Context, state api.State) (api.Applied, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		changed := s.states[node].Generation != state.Generation
		s.states[node] = state
		return api.Applied{Generation: state.Generation, Changed: changed}, nil
	})
	api.GetTables.Handle(mux, func(context.Context, api.None) (api.Tables, error) { return api.Tables{}, nil })
	api.GetMaps.Handle(mux, func(context.Context, api.None) (api.Maps, error) { return api.Maps{}, nil })
	api.GetStatus.Handle(mux, func(context.Context, api.None) (api.Status, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return api.Status{Node: node, Generation: s.states[node].Generation, Settled: true, Objects: s.drifts[node]}, nil
	})
	server := httptest.NewServer(mux)
	s.t.Cleanup(server.Close)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers[node] = server
}

func (s *stage) up() (UpReport, error) { return s.lab.Up(s.t.Context(), s.wanted) }

func (s *stage) mustUp() UpReport {
	s.t.Helper()
	report, err := s.up()
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

func TestUpTwice(t *testing.T) {
	s := newStage(t)
	if first := s.mustUp(); len(first.Changes) == 0 || first.Stage != "baseline" {
		t.Errorf("the first up: %+v", first)
	}
	if second := s.mustUp(); len(second.Changes) != 0 {
		t.Errorf("the second up changed %v", second.Changes)
	}
	s.wanted.Stage = "static-routes"
	s.mustUp()
	s.wanted.Stage = ""
	if again := s.mustUp(); len(again.Changes) != 0 || again.Stage != "static-routes" {
		t.Errorf("up without a stage left the lab's own: %+v", again)
	}
	s.wanted.Topology.Nodes = s.wanted.Topology.Nodes[:3]
	if pruned := s.mustUp(); !strings.Contains(fmt.Sprint(pruned.Changes), "k8s-w0: removed node") {
		t.Errorf("a node that left the file is still there: %v", pruned.Changes)
	}
}

var errInjected = errors.New("injected")

// TestUpFailsAtAnyCall fails each call to the provider in turn: up names the
// step and keeps the cause, and the next up goes on from there.
func TestUpFailsAtAnyCall(t *testing.T) {
	whole := newStage(t)
	whole.mustUp()
	for at := range len(whole.provider.Calls()) + 1 {
		if at <= 1 {
			continue // Preflight reports, and cannot fail
		}
		for _, after := range []bool{false, true} {
			s := newStage(t)
			s.provider.Fail(fake.Fault{At: at, After: after, Err: errInjected})
			_, err := s.up()
			calls := s.provider.Calls()
			if len(calls) < at {
				t.Fatalf("up made %d calls, one of which should have been number %d", len(calls), at)
			}
			// An agent that does not answer yet is asked again.
			if failed := calls[at-1].Method; (err == nil) != (failed == "Node.Dial") || err != nil && !errors.Is(err, errInjected) {
				t.Errorf("call %d (%s): %v", at, failed, err)
			}
			s.mustUp()
			if left := s.mustUp(); len(left.Changes) != 0 {
				t.Errorf("call %d: the up after the next left %v to do", at, left.Changes)
			}
			s.mustDown()
		}
	}
}

func (s *stage) mustDown() {
	s.t.Helper()
	report, err := s.lab.Down(s.t.Context())
	if err != nil || !report.Left.Empty() {
		s.t.Fatalf("down: %v, left %+v", err, report.Left)
	}
	if _, err := s.lab.Store.Load(s.lab.Name); !errors.Is(err, ErrNoLab) {
		s.t.Errorf("the state is still there: %v", err)
	}
}

func TestDownFailsAtAnyCall(t *testing.T) {
	for _, at := range []string{"Destroy", "Observe"} {
		s := newStage(t)
		s.mustUp()
		s.provider.Fail(fake.Fault{Method: at, At: 1, Err: errInjected})
		if _, err := s.lab.Down(t.Context()); !errors.Is(err, errInjected) {
			t.Errorf("%s fails, and down says: %v", at, err)
		}
		if _, err := s.lab.Store.Load(s.lab.Name); err != nil {
			t.Errorf("%s failed, and the lab is forgotten: %v", at, err)
		}
		s.mustDown()
		s.mustDown() // what is absent is no error
	}
}

func TestAnotherProvider(t *testing.T) {
	s := newStage(t)
	s.mustUp()
	saved, err := s.lab.Store.Load(s.lab.Name)
	if err != nil {
		t.Fatal(err)
	}
	saved.Provider = "vagrant"
	if err := s.lab.Store.Save(s.lab.Name, saved); err != nil {
		t.Fatal(err)
	}
	if _, err := s.up(); err == nil || !strings.Contains(err.Error(), "stands on vagrant, not on fake") {
		t.Errorf("up on another provider: %v", err)
	}
}

// TestStateThatCannotBeWritten: up stops before its first change.
func TestStateThatCannotBeWritten(t *testing.T) {
	s := newStage(t)
	file := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.lab.Store.Dir = file
	if _, err := s.up(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("up with a file for a folder: %v", err)
	}
	for _, c := range s.provider.Calls() {
		if c.Method != "Preflight" {
			t.Errorf("%s was called before the state was written", c.Method)
		}
	}
}
