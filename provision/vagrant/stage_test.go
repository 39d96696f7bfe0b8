package vagrant

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/fake"
	"github.com/native-routing/labctl/provision/machine"
	"github.com/native-routing/labctl/topologies/topo"
)

// fakeMachines makes nodes in memory, and notes what it is asked.
type fakeMachines struct {
	*fake.Provider
	mu    sync.Mutex
	asked []string
	fail  func(node string, at machine.Access) error
}

func (m *fakeMachines) note(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, text)
}

func (m *fakeMachines) Ensure(ctx context.Context, t *topo.Topology, node string, at machine.Access) ([]provision.Change, error) {
	m.note("ensure " + node)
	if m.fail != nil {
		if err := m.fail(node, at); err != nil {
			return nil, err
		}
	}
	return m.EnsureNode(ctx, t, node)
}

func (m *fakeMachines) Open(ctx context.Context, lab, node string, at machine.Access) (provision.Node, error) {
	if m.fail != nil {
		if err := m.fail(node, at); err != nil {
			return nil, err
		}
	}
	return m.OpenNode(ctx, lab, node)
}

func (m *fakeMachines) EnsureLinks(ctx context.Context, t *topo.Topology, _ map[string]machine.Access) ([]provision.Change, error) {
	return m.Provider.EnsureLinks(ctx, t)
}

func (m *fakeMachines) Forget(ctx context.Context, lab string, nodes ...string) error {
	for _, n := range nodes {
		m.note("forget " + n)
	}
	_, err := m.Destroy(ctx, lab, nodes...)
	return err
}

func (m *fakeMachines) KnownHosts(lab string) string { return "/pins/" + lab }

// stage is a fake world and a provider in it.
type stage struct {
	fakeWorld
	t        *testing.T
	machines *fakeMachines
	*Provider
	dataDir string

	mu   sync.Mutex
	told []string
}

func newStage(t *testing.T, provider string) *stage {
	s := &stage{fakeWorld: fakeWorld{t.TempDir()}, t: t, machines: &fakeMachines{Provider: fake.New()}, dataDir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := s.path("bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	tools := []string{"vagrant", "VBoxManage"}
	if provider == Libvirt {
		tools = []string{"vagrant", "virsh"}
	}
	for _, name := range tools {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	t.Setenv("LABCTL_FAKE_WORLD", s.dir)
	ports := map[string]int{}
	for _, node := range append(study(t).Nodes.Names(), "a", "b", "second", "router") {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		ports[node] = listener.Addr().(*net.TCPAddr).Port
	}
	s.write("ports.json", ports)
	s.restart(provider)
	return s
}

// restart makes a new provider, as a new labctl would.
func (s *stage) restart(provider string) {
	s.Provider = New(Options{DataDir: s.dataDir, Provider: provider, Machines: s.machines, GatherTime: 2 * time.Second, Tell: func(node, what string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told = append(s.told, node+": "+what)
	}})
}

func (s *stage) write(name string, value any) {
	s.t.Helper()
	data, err := json.Marshal(value)
	if err == nil {
		err = os.WriteFile(s.path(name), data, 0o644)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// fakeRun changes the lab study's machines behind labctl's back.
func (s *stage) fakeRun(provider string) fakeRun {
	dir := s.options.paths("study").dir
	return fakeRun{s.fakeWorld, dir, filepath.Join(dir, ".vagrant"), provider, nil}
}

func (s *stage) faults(f ...fakeFault) { s.write("faults.json", f) }

// calls are those whose line begins so, and starts the count anew.
func (s *stage) calls(prefix string) []string {
	data, _ := os.ReadFile(s.path("calls"))
	_ = os.Remove(s.path("calls"))
	var lines []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSuffix(strings.TrimSpace(line), " --machine-readable"))
		}
	}
	return lines
}

func study(t *testing.T) *topo.Topology {
	t.Helper()
	l, err := topo.LoadFile("../../topologies/native-routing.yaml")
	if err != nil {
		t.Fatal(err)
	}
	l.Metadata.Name = "study"
	return l
}

// up ensures all nodes at once, as the core does, and returns the error of each.
func (s *stage) up(ctx context.Context, l *topo.Topology) (changes []string, errs map[string]error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	errs = map[string]error{}
	for _, node := range l.Nodes.Names() {
		all.Go(func() {
			made, err := s.EnsureNode(ctx, l, node)
			mu.Lock()
			defer mu.Unlock()
			for _, c := range made {
				changes = append(changes, c.String())
			}
			if err != nil {
				errs[node] = err
			}
		})
	}
	all.Wait()
	slices.Sort(changes)
	return changes, errs
}

func (s *stage) wantUp(l *topo.Topology) []string {
	s.t.Helper()
	changes, errs := s.up(s.t.Context(), l)
	if len(errs) > 0 {
		s.t.Fatal(errs)
	}
	return changes
}

func (s *stage) wantCalls(want ...string) {
	s.t.Helper()
	if got := s.calls("vagrant"); !slices.Equal(got, want) {
		s.t.Errorf("vagrant was called\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func stateIn(o provision.Observation, node string) provision.NodeState {
	for _, n := range o.Nodes {
		if n.Name == node {
			return n.State
		}
	}
	return ""
}

// receive fails where nothing comes.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(time.Minute):
		t.Fatal("nothing came for a minute")
		panic("unreachable")
	}
}

func (s *stage) waitTold(text string) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		told := slices.Contains(s.told, text)
		s.mu.Unlock()
		if told {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("never told %q, but %q", text, s.told)
		}
	}
}
