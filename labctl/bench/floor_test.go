//go:build linux

package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

// TestFloorMakesTheSame holds what ip tells of the floor's namespaces against
// what it tells of the provider's: a floor that made less would be no floor.
func TestFloorMakesTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	for _, name := range topologies.Names() {
		t.Run(name, func(t *testing.T) {
			r, err := newRig(1)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := r.close(); err != nil {
					t.Error(err)
				}
			}()
			lab, err := topologies.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			lab.Metadata.Name = r.name
			if err := r.newFloor().up(planFloor(lab, r.alone)); err != nil {
				t.Fatal(err)
			}
			provide(t, r, lab)
			dir := filepath.Join(r.options.RunDir, r.name, "ns")
			for _, node := range append(lab.Nodes.Names(), "@fabric") {
				want := told(t, filepath.Join(dir, node+".net"))
				got := told(t, filepath.Join(r.newFloor().dir, node+".net"))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: the provider's (-) and the floor's (+):\n%s", node, diff)
				}
			}
			hostname := func(dir string) string {
				return output(t, "nsenter", "--uts="+filepath.Join(dir, lab.Nodes.Names()[0]+".uts"), "hostname")
			}
			if want, got := hostname(dir), hostname(r.newFloor().dir); want != got {
				t.Errorf("the provider's hostname is %q, the floor's %q", want, got)
			}
		})
	}
}

func provide(t *testing.T, r *rig, lab *topo.Topology) {
	t.Helper()
	p := netns.New(r.options)
	for _, node := range lab.Nodes.Names() {
		if _, err := p.EnsureNode(t.Context(), lab, node); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.EnsureLinks(t.Context(), lab); err != nil {
		t.Fatal(err)
	}
}

// told is what ip tells of a namespace, without what is chosen at random, without
// the provider's mark, and without the state that follows a link's start later.
func told(t *testing.T, ns string) map[string]any {
	t.Helper()
	all := map[string]any{"ipv6": output(t, "nsenter", "--net="+ns, "cat", "/proc/sys/net/ipv6/conf/all/disable_ipv6")}
	for _, what := range []string{"-d addr", "-d route", "neigh show nud permanent"} {
		var objects []map[string]any
		text := output(t, slices.Concat([]string{"nsenter", "--net=" + ns, "ip", "-j"}, strings.Fields(what))...)
		if err := json.Unmarshal([]byte(text), &objects); err != nil {
			t.Fatalf("ip -j %s: %v", what, err)
		}
		if len(objects) == 0 && what == "-d addr" {
			t.Fatalf("ip -j %s tells nothing of %s", what, ns)
		}
		for _, o := range objects {
			for _, other := range []string{"ifindex", "link_index", "link_netnsid", "address", "ifalias", "operstate"} {
				delete(o, other)
			}
			if info, ok := o["linkinfo"].(map[string]any); ok {
				o["linkinfo"] = []any{info["info_kind"], info["info_slave_kind"]}
			}
		}
		key := func(o map[string]any) string {
			text, _ := json.Marshal(o) // it came from JSON
			return string(text)
		}
		slices.SortFunc(objects, func(a, b map[string]any) int { return strings.Compare(key(a), key(b)) })
		all[what] = objects
	}
	return all
}

func output(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}
