//go:build linux

package lb

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"gopkg.in/yaml.v3"

	"github.com/native-routing/labctl/agent/api"
)

var updateGolden = flag.Bool("update", false, "write the golden files")

// event is one thing that happens in a golden file: the cluster changes, or
// readiness, or time goes by, or the agent starts anew.
type event struct {
	Cluster   json.RawMessage   `json:"cluster"`
	Ready     map[string]string `json:"ready"`
	Wait      string            `json:"wait"`
	Restart   bool              `json:"restart"`
	Forget    bool              `json:"forget"`    // what was heard of pods
	Unchanged bool              `json:"unchanged"` // nothing may be written
}

// world is a Manager on maps in memory, at a time that the test sets.
type world struct {
	t       *testing.T
	kernel  *kernel
	manager *Manager
	now     time.Time
	ready   map[string]Readiness
	state   *api.State
	log     []string
}

func newWorld(t *testing.T, k *kernel) *world {
	w := &world{t: t, kernel: k, now: time.Unix(1000, 0), ready: map[string]Readiness{}}
	w.start()
	return w
}

func (w *world) start() {
	note := func(what string) func([]Address) {
		return func(all []Address) {
			for _, a := range all {
				w.log = append(w.log, fmt.Sprintf("%s %v", what, a))
			}
		}
	}
	w.manager = New(Config{
		Node: "k8s-ctr", Now: func() time.Time { return w.now },
		OnAdded: note("added"), OnRemoved: note("removed"),
		Report: func(err error) { w.log = append(w.log, "report "+err.Error()) },
	})
	w.manager.Use(w.kernel.maps())
	w.manager.SetReadiness(maps.Clone(w.ready))
	if w.state != nil {
		w.manager.Set(*w.state)
	}
}

func (w *world) set(cluster *api.Cluster) {
	w.state = &api.State{Generation: "1", Node: "k8s-ctr", Cluster: cluster}
	w.manager.Set(*w.state)
}

// settle runs passes until nothing is due.
func (w *world) settle() {
	w.t.Helper()
	for range 100 {
		w.manager.pass()
		e := w.manager.catalog.engine
		if e == nil || len(e.limbo)+len(e.work)+len(e.idle)+len(e.unwritten) == 0 && !w.manager.verify {
			return
		}
		w.now = w.now.Add(grace)
	}
	w.t.Fatalf("does not settle: %d in work, %d in limbo", len(w.manager.catalog.work), len(w.manager.catalog.limbo))
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, file) })
	}
}

// golden plays a file: each *.yaml in it is a step, and what comes after it the
// maps as they are then.
func golden(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var w *world
	var got []txtar.File
	for _, f := range archive.Files {
		if !strings.HasSuffix(f.Name, ".yaml") {
			continue
		}
		var s event
		var raw any
		if err := yaml.Unmarshal(f.Data, &raw); err != nil {
			t.Fatal(f.Name, err)
		}
		text, _ := json.Marshal(raw)
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(f.Name, err)
		}
		if w == nil {
			w = newWorld(t, goldenKernel(string(archive.Comment)))
		}
		w.log = nil
		before := w.kernel.writes
		play(t, w, s)
		if s.Unchanged && w.kernel.writes != before {
			t.Errorf("%s: %d writes", f.Name, w.kernel.writes-before)
		}
		var out strings.Builder
		objects, settled := w.manager.Objects()
		for _, o := range objects {
			fmt.Fprintf(&out, "%s: %s (%s)\n", o.Name, o.Condition, o.Reason)
		}
		fmt.Fprintf(&out, "settled %v\n%s", settled, w.kernel.dump())
		for _, line := range w.log {
			fmt.Fprintln(&out, line)
		}
		got = append(got, f, txtar.File{Name: strings.TrimSuffix(f.Name, ".yaml") + ".maps", Data: []byte(out.String())})
	}
	result := txtar.Format(&txtar.Archive{Comment: archive.Comment, Files: got})
	if *updateGolden {
		if err := os.WriteFile(file, result, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(txtar.Format(archive)), string(result)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// goldenKernel has the sizes of a line "sizes: frontends slots backends".
func goldenKernel(comment string) *kernel {
	frontends, slots, backends := 64, 256, 64
	for line := range strings.Lines(comment) {
		fmt.Sscanf(line, "sizes: %d %d %d", &frontends, &slots, &backends)
	}
	return newKernel(frontends, slots, backends)
}

func play(t *testing.T, w *world, s event) {
	t.Helper()
	if s.Forget {
		w.ready = map[string]Readiness{}
	}
	if s.Restart {
		w.start()
	}
	if s.Ready != nil {
		words := map[string]Readiness{"unknown": Unknown, "ready": Ready, "not ready": NotReady, "terminating": Terminating, "gone": Gone}
		for pod, word := range s.Ready {
			w.ready[pod] = words[word]
		}
		w.manager.SetReadiness(maps.Clone(w.ready))
	}
	if s.Cluster != nil {
		cluster := &api.Cluster{}
		if err := json.Unmarshal(s.Cluster, cluster); err != nil {
			t.Fatal(err)
		}
		w.set(cluster)
	}
	if s.Wait != "" {
		d, err := time.ParseDuration(s.Wait)
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(d)
	}
	w.manager.pass() // what is due only later shows in a later step
	w.manager.pass()
}

// agree fails if the maps are not what a fresh compile says.
func agree(t *testing.T, w *world) {
	t.Helper()
	want := Compile(w.input())
	k := w.kernel
	if len(k.frontends.entries) != len(want.Frontends) {
		t.Errorf("%d frontends, want %d", len(k.frontends.entries), len(want.Frontends))
	}
	tables, matches, ids := 0, 0, map[uint16]bool{}
	for _, f := range want.Frontends {
		got, ok := k.frontends.entries[f.Key.wire()]
		if !ok {
			t.Errorf("no frontend %v", f.Key)
			continue
		}
		if ids[got.Id] || got.Id == 0 {
			t.Errorf("%v has id %d of another", f.Key, got.Id)
		}
		ids[got.Id] = true
		if got.Flags != f.Flags || int(got.Count) != f.Count || int(got.Qcount) != len(f.Backends)-f.Count || (got.Algorithm == 2) != f.Maglev {
			t.Errorf("%v is %+v, want %+v", f.Key, got, f)
		}
		var backends []Backend
		for i := range f.Backends {
			slot := k.slots.entries[got.First+uint32(i)]
			backends = append(backends, Backend{k.backend(slot.Backend), State(k.backends.entries[slot.Backend].State)})
		}
		if !slices.Equal(backends, f.Backends) {
			t.Errorf("%v has %v, want %v", f.Key, backends, f.Backends)
		}
		if f.Maglev && f.Count > 0 {
			tables++
			agreeTable(t, k, f, k.maglev.entries[uint32(got.Id)])
		}
		if f.Flags&flagAffinity != 0 {
			matches += f.Active
		}
	}
	if len(k.maglev.entries) != tables || len(k.match.entries) != matches {
		t.Errorf("%d tables, %d matches, want %d and %d", len(k.maglev.entries), len(k.match.entries), tables, matches)
	}
	var backends []Backend
	for id := range k.backends.entries {
		if address := k.backend(id); address != 0 {
			backends = append(backends, Backend{address, State(k.backends.entries[id].State)})
		}
	}
	slices.SortFunc(backends, func(a, b Backend) int { return strings.Compare(a.Address.String(), b.Address.String()) })
	for i, b := range want.Backends {
		want.Backends[i].State = State(b.State.wire())
	}
	slices.SortFunc(want.Backends, func(a, b Backend) int { return strings.Compare(a.Address.String(), b.Address.String()) })
	if !slices.Equal(backends, want.Backends) {
		t.Errorf("backends %v, want %v", backends, want.Backends)
	}
}

func agreeTable(t *testing.T, k *kernel, f Frontend, table []uint32) {
	t.Helper()
	var addresses, found []Address
	for _, b := range f.Backends[:f.Count] {
		addresses = append(addresses, b.Address)
	}
	for _, id := range table {
		found = append(found, k.backend(id))
	}
	var want []Address
	for _, i := range Maglev(addresses, k.size) {
		want = append(want, addresses[i])
	}
	if !slices.Equal(found, want) {
		t.Errorf("%v has table %v, want %v", f.Key, found, want)
	}
}

// input is what the world's maps depend on now.
func (w *world) input() Input {
	in := Input{Node: "k8s-ctr", Cluster: w.state.Cluster, Readiness: w.ready, Before: w.manager.catalog.view.before}
	for _, s := range w.manager.catalog.services {
		for _, d := range s.departed {
			node := "elsewhere"
			if d.local {
				node = in.Node
			}
			in.Departed = append(in.Departed, Departed{
				Service: s.name.String(), Protocol: s.spec.Ports[d.port].Protocol, Port: s.spec.Ports[d.port].Port,
				Address: d.address.AddrPort(), Node: node, Pod: d.pod, Until: d.until,
			})
		}
	}
	return in
}
