package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/topologies"
)

// TestExecOfMissingNode: the provider says the cure, and nobody says another.
func TestExecOfMissingNode(t *testing.T) {
	dir := t.TempDir()
	topology, err := topologies.Load(topologies.Default)
	if err != nil {
		t.Fatal(err)
	}
	store := lab.Store{Dir: filepath.Join(dir, "data")}
	if err := os.MkdirAll(filepath.Join(store.Dir, "study"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := store.Save("study", lab.Saved{Topology: topology, Source: topologies.Default, Provider: netns.Name}); err != nil {
		t.Fatal(err)
	}
	_, errs, code := try(t.Context(), dir, "--lab", "study", "exec", "router", "--", "true")
	if want := "labctl: router: no such node in lab study (labctl up makes it)\n"; errs != want || code != exitTrouble {
		t.Errorf("exit %d: %q, want %q", code, errs, want)
	}
}
