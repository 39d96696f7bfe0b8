package difference

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what is found into the golden files")

// TestBetween compares the whole list: before and after are looks as JSON.
func TestBetween(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			before, after := lookOf(t, archive, "before.json"), lookOf(t, archive, "after.json")
			var got strings.Builder
			for _, d := range Between("router", before, after) {
				fmt.Fprintf(&got, "%s: %s %s %s\n", d.Node, d.Sign, d.Table, d.Text)
			}
			if same := Between("router", before, before); len(same) != 0 {
				t.Errorf("a look differs from itself: %v", same)
			}
			last := &archive.Files[len(archive.Files)-1]
			if *update {
				last.Data = []byte(got.String())
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(last.Data), got.String()); diff != "" {
				t.Errorf("not as the file wants it (-want +got):\n%s", diff)
			}
		})
	}
}

func lookOf(t *testing.T, archive *txtar.Archive, name string) Look {
	t.Helper()
	var look Look
	for _, f := range archive.Files {
		if f.Name == name {
			if err := json.Unmarshal(f.Data, &look); err != nil {
				t.Fatal(err)
			}
			return look
		}
	}
	t.Fatalf("there is no %s", name)
	return look
}
