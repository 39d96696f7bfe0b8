package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/native-routing/labctl/"

// mayImport says what each room may import of this module, beside itself. The
// first prefix that fits a package counts. Tests may import more: they are not
// looked at.
var mayImport = []struct {
	room    string
	imports []string
}{
	{"topologies/topo", nil},
	{"topologies", []string{"topologies"}},
	{"bpf", nil},
	{"agent/api", nil},
	{"agent/rtnl", nil},
	{"agent/mounts", nil},
	{"agent/embedded", nil},
	{"agent", []string{"agent", "bpf"}},
	{"provision/netns", []string{"provision", "topologies", "agent/rtnl", "agent/mounts"}},
	{"provision/testbed", []string{"agent/mounts", "topologies"}},
	{"provision/machine", []string{"provision", "topologies", "agent/rtnl"}},
	{"provision", []string{"provision", "topologies"}},
	{"labctl/ui", nil},
	{"labctl/lang", nil},
	{"labctl/lesson", []string{"labctl/lang", "labctl/ui"}},
	{"labctl/explain", []string{"topologies", "agent/api", "labctl/lang", "labctl/ladder"}},
	{"labctl/graph", []string{"topologies/topo"}},
	{"labctl/difference", []string{"agent/api"}},
	{"labctl/check", []string{"topologies", "agent/api", "labctl/lang"}},
	{"labctl/capture/filter", nil},
	{"labctl/capture", []string{"agent/api"}},
	{"labctl/parity", []string{"labctl/check"}},
	{"labctl/ladder", []string{"labctl/capture", "agent/api"}},
	{"labctl/kubectl", []string{"topologies/topo", "agent/api", "labctl/workload", "labctl/manifest", "labctl/ui"}},
	{"labctl/manifest", []string{"agent/api"}},
	{"labctl/workload", []string{"labctl/manifest", "topologies/topo", "agent/api"}},
	{"labctl/lab", []string{"labctl/capture", "labctl/check", "labctl/difference", "labctl/explain", "labctl/ladder", "labctl/lang", "labctl/manifest", "labctl/workload", "provision", "topologies", "agent/api"}},
	{"labctl/cli", []string{"labctl", "provision", "topologies", "agent/api", "agent/embedded"}},
	{"labctl/bench", []string{"labctl", "provision", "topologies", "agent/api", "agent/rtnl", "agent/embedded"}},
	{"labctl", []string{"labctl"}},
}

// TestImportsGoOneWay reads the import clauses themselves: nothing that is
// cached can hide a new arrow.
func TestImportsGoOneWay(t *testing.T) {
	seen := 0
	for file, imports := range importsOfModule(t) {
		pkg := path.Dir(file)
		i := slices.IndexFunc(mayImport, func(r struct {
			room    string
			imports []string
		}) bool {
			return within(pkg, r.room)
		})
		if i < 0 {
			t.Errorf("%s is in no room: say in mayImport what its folder may import", file)
			continue
		}
		for _, imported := range imports {
			seen++
			allowed := within(imported, mayImport[i].room)
			for _, a := range mayImport[i].imports {
				allowed = allowed || within(imported, a)
			}
			if !allowed {
				t.Errorf("%s imports %s: %s may import only %v", file, imported, mayImport[i].room, mayImport[i].imports)
			}
		}
	}
	if seen < 20 {
		t.Errorf("looked at %d imports of the module: this test does not see the tree", seen)
	}
}

func within(pkg, room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }

// importsOfModule maps each file that is no test to what it imports of this module.
func importsOfModule(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(file, "../"))
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if local, ok := strings.CutPrefix(imported, module); ok {
				found[name] = append(found[name], local)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
