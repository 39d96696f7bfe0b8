package topo

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what is found into the golden files")

// TestMistakes compares the whole report of a file with what its author should
// read: lab.yaml and want in testdata/invalid.
func TestMistakes(t *testing.T) {
	golden(t, "testdata/invalid/*.txtar", func(t *testing.T, lab []byte) string {
		topology, err := Load("lab.yaml", bytes.NewReader(lab))
		var mistakes Errors
		if !errors.As(err, &mistakes) || !errors.Is(err, ErrInvalid) || topology != nil {
			t.Fatalf("Load = %v, %v; want nil and mistakes", topology, err)
		}
		return err.Error() + "\n"
	})
}

// TestLoads compares what is loaded, defaults included, as JSON: lab.yaml and
// want in testdata/valid.
func TestLoads(t *testing.T) {
	golden(t, "testdata/valid/*.txtar", func(t *testing.T, lab []byte) string {
		topology, err := Load("lab.yaml", bytes.NewReader(lab))
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, topology)
		text, err := json.MarshalIndent(topology, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n"
	})
}

func golden(t *testing.T, pattern string, run func(t *testing.T, lab []byte) string) {
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string][]byte{}
			for _, f := range archive.Files {
				files[f.Name] = f.Data
			}
			got := run(t, files["lab.yaml"])
			if *update {
				archive.Files = []txtar.File{{Name: "lab.yaml", Data: files["lab.yaml"]}, {Name: "want", Data: []byte(got)}}
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(files["want"]), got); diff != "" {
				t.Errorf("not as the file wants it (-want +got):\n%s", diff)
			}
		})
	}
}

// roundTrip checks that a topology says the same after it was written as JSON,
// which is YAML too, and loaded again; and after plain JSON decoding.
func roundTrip(t *testing.T, topology *Topology) {
	t.Helper()
	text, err := json.Marshal(topology)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load("again.yaml", bytes.NewReader(text))
	if err != nil {
		t.Fatalf("what was loaded does not load again: %v\n%s", err, text)
	}
	if diff := cmp.Diff(topology, again, compareAddresses); diff != "" {
		t.Errorf("loaded again, it differs (-first +again):\n%s", diff)
	}
	decoded := new(Topology)
	if err := json.Unmarshal(text, decoded); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(topology, decoded, compareAddresses); diff != "" {
		t.Errorf("decoded from JSON, it differs (-first +decoded):\n%s", diff)
	}
}

func TestLoadFile(t *testing.T) {
	if _, err := LoadFile(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v, want ErrNotExist", err)
	}
	path := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(path, []byte("kind: Other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadFile(path)
	var mistakes Errors
	if !errors.As(err, &mistakes) {
		t.Fatalf("LoadFile = %v, want mistakes", err)
	}
	var first *Mistake
	if !errors.As(err, &first) || first.File != path || first.Line != 1 || first.Column != 1 {
		t.Errorf("the first mistake is %+v, want one at %s:1:1", first, path)
	}
}

// brokenReader fails after a few bytes.
type brokenReader struct{ text *strings.Reader }

var errDisk = errors.New("disk on fire")

func (r brokenReader) Read(p []byte) (int, error) {
	if n, err := r.text.Read(p); err == nil {
		return n, nil
	}
	return 0, errDisk
}

func TestLoadReportsReadErrors(t *testing.T) {
	_, err := Load("lab.yaml", brokenReader{strings.NewReader("apiVersion: labctl/v1\n")})
	if !errors.Is(err, errDisk) || errors.Is(err, ErrInvalid) {
		t.Errorf("Load = %v, want the reader's error and no mistake", err)
	}
}
