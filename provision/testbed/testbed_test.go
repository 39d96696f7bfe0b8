//go:build linux && amd64

package testbed

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/native-routing/labctl/topologies/topo"
)

// TestBedsOfKilledPrograms: what a killed one left goes, what is used stays.
func TestBedsOfKilledPrograms(t *testing.T) {
	cache := t.TempDir()
	used, release, err := newDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(cache, "bed-1-1")
	if err := os.MkdirAll(filepath.Join(killed, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(killed+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, releaseOther, err := newDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(killed); err == nil {
		t.Error("the killed program's bed is still there")
	}
	if _, err := os.Stat(used); err != nil {
		t.Errorf("the other's bed: %v", err)
	}
	releaseOther()
	release()
	if left, err := os.ReadDir(cache); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestWriteLab(t *testing.T) {
	file, err := Bed{Box: "some/box"}.WriteLab(t.TempDir(), "mine")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	lab, err := topo.Load(file, text)
	if err != nil {
		t.Fatal(err)
	}
	if lab.Metadata.Name != "mine" || lab.Providers.Vagrant.Box != "some/box" || lab.Providers.Vagrant.BoxVersion != "" {
		t.Errorf("%+v %+v", lab.Metadata, lab.Providers)
	}
	for name, node := range lab.Nodes.All() {
		if node.Resources.CPUs != 1 || node.Resources.MemoryMiB > 320 {
			t.Errorf("%s: %+v", name, node.Resources)
		}
	}
	for _, workload := range lab.Workloads {
		if _, err := os.Stat(filepath.Join(filepath.Dir(file), workload)); err != nil {
			t.Error(err)
		}
	}
}
