package topo

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// FuzzLoad: whatever a file holds, Load returns mistakes that name a place in
// it, or a topology that says the same when it is written and loaded again.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/*/*.txtar", "../*.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			if filepath.Ext(path) == ".txtar" {
				data = txtar.Parse(data).Files[0].Data
			}
			f.Add(string(data))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		topology, err := Load("lab.yaml", strings.NewReader(text))
		if err == nil {
			roundTrip(t, topology)
			for _, stage := range append(topology.Stages.Names(), "") {
				if _, err := topology.Stage(stage); err != nil {
					t.Error(err)
				}
			}
			return
		}
		var mistakes Errors
		if !errors.As(err, &mistakes) || len(mistakes) == 0 {
			t.Fatalf("Load = %v, want mistakes", err)
		}
		lines := strings.Count(text, "\n") + 1
		for _, m := range mistakes {
			if m.Line < 1 || m.Line > lines+1 || m.Column < 1 || m.Wrong == "" || strings.ContainsRune(m.Error(), '\n') {
				t.Errorf("a mistake out of place: %q", m)
			}
		}
	})
}
