package providertest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// Subject is a provider under test.
type Subject struct {
	New func(t *testing.T) provision.Provider
	// Machines says that nodes are real: they run commands and carry packets. A
	// provider without them passes the other parts only.
	Machines bool
	// Restarts says that a service that ended comes back by itself.
	Restarts bool
	// Residue returns what is left of a lab anywhere on this machine, also of
	// mounts and cgroups; nil where there is nothing to look at.
	Residue func(t *testing.T, lab string) []string
	// Fixed says that nodes are machines that were there before the lab and
	// outlive it. They are reached by their eth0, and their devices and cables are
	// as they are: what would take those away, or join them otherwise, is left out,
	// and so are two labs at once. On such machines everything takes its time: one
	// lab carries all parts that leave it as they found it, what can be broken or
	// edited together is, and limits are wide.
	Fixed bool
	// Providers is what the topology says of its provider, as YAML; empty for nothing.
	Providers string
}

// timeLimit is for each call; a provider that hangs fails.
const timeLimit = 5 * time.Minute

// Run runs the whole suite, first what keeps a lab whole.
func Run(t *testing.T, s Subject) {
	tests := []struct {
		name     string
		machines bool
		// keeps says that the lab is as whole afterwards as before.
		keeps bool
		run   func(*testing.T, *bench)
	}{
		{"EnsureTwice", false, true, testEnsureTwice},
		{"Put", false, true, testPut},
		{"Service", false, true, testService},
		{"Places", true, true, testPlaces},
		{"Run", true, true, testRun},
		{"RunInterrupted", true, true, testRunInterrupted},
		{"Tables", true, true, testTables},
		{"Packets", true, true, testPackets},
		{"Edits", true, true, testEdits},
		{"Drift", true, true, testDrift},
		{"OpenNeverCreates", false, false, testOpen},
		{"DestroyTwice", false, false, testDestroyTwice},
		{"DestroyOneNode", false, false, testDestroyOne},
		{"Cancelled", false, false, testCancelled},
		{"TwoLabs", true, false, testTwoLabs},
		{"DestroyBusy", true, false, testDestroyBusy},
		{"DestroyPods", true, false, testDestroyPods},
	}
	var kept *bench // for all that keep it
	for _, test := range tests {
		if test.machines && !s.Machines || s.Fixed && test.name == "TwoLabs" {
			continue // there is nothing to run it on, which is no missing right
		}
		share := s.Fixed && test.keeps
		if share && kept == nil {
			kept = newBench(t, s)
		}
		if !share && kept != nil {
			kept.destroy()
			kept = nil
		}
		t.Run(test.name, func(t *testing.T) {
			b := kept
			if !share {
				b = newBench(t, s)
			}
			mine := *b
			mine.t = t
			test.run(t, &mine)
		})
	}
}

// bench is one lab on a provider.
type bench struct {
	provision.Provider
	t       *testing.T
	subject Subject
	lab     string
}

func newBench(t *testing.T, s Subject) *bench {
	b := &bench{Provider: s.New(t), t: t, subject: s, lab: Name()}
	b.cleanUp(b.lab)
	return b
}

// cleanUp destroys the lab at the end, and proves it.
func (b *bench) cleanUp(lab string) {
	b.t.Cleanup(func() { b.destroyLab(lab) })
}

// destroy destroys the bench's own lab, and proves it.
func (b *bench) destroy() { b.destroyLab(b.lab) }

func (b *bench) destroyLab(lab string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	defer cancel()
	if _, err := b.Destroy(ctx, lab); err != nil {
		b.t.Errorf("destroy: %v", err)
	}
	b.wantNothing(lab)
}

func (b *bench) wantNothing(lab string) {
	b.t.Helper()
	o, err := b.Observe(context.Background(), lab)
	if err != nil {
		b.t.Errorf("observe: %v", err)
	}
	if !o.Empty() {
		b.t.Errorf("left after Destroy: %+v", o)
	}
	if labs, err := b.Labs(context.Background()); err != nil || slices.Contains(labs, lab) {
		b.t.Errorf("labs after Destroy: %q, %v", labs, err)
	}
	if b.subject.Residue != nil {
		if left := b.subject.Residue(b.t, lab); len(left) > 0 {
			b.t.Errorf("left on the machine after Destroy:\n%s", strings.Join(left, "\n"))
		}
	}
}

func (b *bench) load(replace ...string) *topo.Topology {
	b.t.Helper()
	return Load(b.t, b.lab, Lab+b.subject.Providers, replace...)
}

// up ensures all and returns the changes, each as text.
func (b *bench) up(lab *topo.Topology) []string {
	b.t.Helper()
	changes, err := ensure(b.t.Context(), b.Provider, lab)
	if err != nil {
		b.t.Fatal(err)
	}
	texts := make([]string, len(changes))
	for i, c := range changes {
		texts[i] = c.String()
	}
	return texts
}

func ensure(ctx context.Context, p provision.Provider, lab *topo.Topology) ([]provision.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	names := lab.Nodes.Names()
	perNode := make([][]provision.Change, len(names))
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() (err error) {
			perNode[i], err = p.EnsureNode(ctx, lab, name)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	changes, err := p.EnsureLinks(ctx, lab)
	return append(slices.Concat(perNode...), changes...), err
}

func (b *bench) node(name string) provision.Node {
	b.t.Helper()
	n, err := b.OpenNode(b.t.Context(), b.lab, name)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { n.Close() })
	return n
}

// output runs a command that must succeed.
func output(t *testing.T, n provision.Node, argv ...string) string {
	t.Helper()
	out, err := try(t, n, argv...)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", n.Name(), strings.Join(argv, " "), err, out)
	}
	return out
}

func try(t *testing.T, n provision.Node, argv ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
	defer cancel()
	err := n.Run(ctx, provision.Command{Argv: argv, Stdout: &out, Stderr: &out})
	return out.String(), err
}

func testEnsureTwice(t *testing.T, b *bench) {
	lab := b.load()
	if got := b.up(lab); len(got) == 0 {
		t.Error("the first time changed nothing")
	}
	if got := b.up(lab); len(got) > 0 {
		t.Errorf("the second time changed:\n%s", strings.Join(got, "\n"))
	}
	if labs, err := b.Labs(t.Context()); err != nil || !slices.Contains(labs, b.lab) {
		t.Errorf("labs: %q, %v", labs, err)
	}
	o, err := b.Observe(t.Context(), b.lab)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]provision.NodeState{}
	for _, n := range o.Nodes {
		states[n.Name] = n.State
	}
	for _, name := range lab.Nodes.Names() {
		if states[name] != provision.NodeRunning {
			t.Errorf("%s is %q, want %q", name, states[name], provision.NodeRunning)
		}
	}
	if len(o.Nodes) != len(lab.Nodes) {
		t.Errorf("observed %+v", o.Nodes)
	}
}

func testOpen(t *testing.T, b *bench) {
	for _, node := range []string{"a", "nobody", ""} {
		if _, err := b.OpenNode(t.Context(), b.lab, node); !errors.Is(err, provision.ErrNotFound) {
			t.Errorf("open %q: %v, want ErrNotFound", node, err)
		}
	}
	b.wantNothing(b.lab)
	if _, err := b.EnsureNode(t.Context(), b.load(), "nobody"); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("ensure a node that the topology does not have: %v, want ErrNotFound", err)
	}
	if _, err := b.EnsureLinks(t.Context(), b.load()); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("links without nodes: %v, want ErrNotFound", err)
	}
}

func testDestroyTwice(t *testing.T, b *bench) {
	b.up(b.load())
	for i, want := range []bool{true, false} {
		changes, err := b.Destroy(t.Context(), b.lab)
		if err != nil {
			t.Fatal(err)
		}
		if (len(changes) > 0) != want {
			t.Errorf("time %d: changes %v", i+1, changes)
		}
		b.wantNothing(b.lab)
	}
	if _, err := b.OpenNode(t.Context(), b.lab, "a"); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("open after Destroy: %v, want ErrNotFound", err)
	}
}

func testDestroyOne(t *testing.T, b *bench) {
	b.up(b.load())
	if _, err := b.Destroy(t.Context(), b.lab, "a", "nobody"); err != nil {
		t.Fatal(err)
	}
	o, err := b.Observe(t.Context(), b.lab)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range o.Nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"b", "router", "second"}) {
		t.Errorf("left: %v", names)
	}
	if got := b.up(b.load()); len(got) == 0 {
		t.Error("the node came back without a change")
	}
	if got := b.up(b.load()); len(got) > 0 {
		t.Errorf("and once more:\n%s", strings.Join(got, "\n"))
	}
}

func testCancelled(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ensure(ctx, b.Provider, b.load()); !errors.Is(err, context.Canceled) {
		t.Errorf("ensure: %v, want context.Canceled", err)
	}
	b.up(b.load())
	if _, err := b.Destroy(ctx, b.lab); !errors.Is(err, context.Canceled) {
		t.Errorf("destroy: %v, want context.Canceled", err)
	}
}
