package manifest_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/native-routing/labctl/labctl/manifest"
)

// breaks are YAML's line breaks.
var breaks = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")

// Whatever the file: no panic, every mistake and notice on a line of it, and
// mistakes or objects, never both.
func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			f.Add(file.Data)
		}
	}
	for _, name := range []string{"webpod.yaml", "curl-pod.yaml"} {
		data, err := os.ReadFile("../../topologies/workloads/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("kind: Pod\napiVersion: v1\nmetadata: &m {managedFields: [{fieldsV1: *m}]}\nspec: *m"))
	f.Add([]byte("kind: List\napiVersion: v1\nitems: &i [*i, {kind: List, items: *i}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objs, notices, err := manifest.Decode("fuzz.yaml", bytes.NewReader(data))
		lines := 1 + strings.Count(breaks.Replace(string(data)), "\n")
		var mistakes manifest.Errors
		if err != nil && (!errors.As(err, &mistakes) || len(mistakes) == 0 || len(objs.Refs) > 0) {
			t.Fatalf("Decode = %v, %v", objs.Refs, err)
		}
		for _, m := range mistakes {
			if m.Line < 1 || m.Line > lines || m.Column < 1 || m.Wrong == "" || m.Cure == "" || bytes.ContainsAny([]byte(m.Error()), "\n\x1b") {
				t.Errorf("mistake %q in a file of %d lines", m, lines)
			}
		}
		for _, n := range notices {
			if n.Line < 1 || n.Line > lines || n.Text == "" {
				t.Errorf("notice %q in a file of %d lines", n, lines)
			}
		}
		if got := len(objs.Deployments) + len(objs.Pods) + len(objs.Services) + len(objs.Namespaces); got != len(objs.Refs) {
			t.Errorf("%d objects, %d names", got, len(objs.Refs))
		}
	})
}
