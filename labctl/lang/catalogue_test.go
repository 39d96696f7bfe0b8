package lang_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies"
)

// TestCatalogues: every sentence that the code says through a printer is in every
// language's catalogue, with the same verbs, and nothing else is.
func TestCatalogues(t *testing.T) {
	used := usedKeys(t)
	if len(used) < 200 {
		t.Fatalf("found %d sentences: this test does not see the code", len(used))
	}
	for _, name := range lang.Names()[1:] {
		catalogue, err := lang.Messages(name)
		if err != nil {
			t.Fatal(err)
		}
		in := map[string]string{}
		for file, messages := range catalogue {
			for english, translated := range messages {
				if other, twice := in[english]; twice {
					t.Errorf("%s: %q is in %s too", file, english, other)
				}
				in[english] = file
				if where := used[english]; where == "" {
					t.Errorf("%s: nobody says %q", file, english)
				}
				if diff := cmp.Diff(verbs(t, english), verbs(t, translated)); diff != "" {
					t.Errorf("%s: the verbs of %q are not those of %q (-english +%s):\n%s", file, translated, english, name, diff)
				}
				if strings.TrimSpace(translated) == "" {
					t.Errorf("%s: %q is not translated", file, english)
				}
			}
		}
		for _, english := range slices.Sorted(keys(used)) {
			if in[english] == "" {
				t.Errorf("%s lacks %q (%s)", name, english, used[english])
			}
		}
	}
}

// TestEachOnce: a key that is twice in a file is one too many, of which JSON says nothing.
func TestEachOnce(t *testing.T) {
	files, err := filepath.Glob("*/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no catalogues", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		decoder := json.NewDecoder(strings.NewReader(string(data)))
		seen := map[string]bool{}
		for n := 0; ; n++ {
			token, err := decoder.Token()
			if err != nil {
				break
			}
			if text, ok := token.(string); ok && n%2 == 1 {
				if seen[text] {
					t.Errorf("%s has %q twice", file, text)
				}
				seen[text] = true
			}
		}
	}
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

var verb = regexp.MustCompile(`%(?:\[(\d+)\])?([-+# 0]*[\d.*]*[a-zA-Z%])`)

// verbs are the verbs of a format by the argument that each of them prints.
func verbs(t *testing.T, format string) map[int]string {
	found, next := map[int]string{}, 1
	for _, m := range verb.FindAllStringSubmatch(format, -1) {
		if m[2] == "%" {
			continue
		}
		at := next
		if m[1] != "" {
			at, _ = strconv.Atoi(m[1]) // the expression takes digits alone
		}
		if was, ok := found[at]; ok && was != m[2] {
			t.Errorf("%q prints argument %d as %%%s and as %%%s", format, at, was, m[2])
		}
		found[at], next = m[2], at+1
	}
	return found
}

// usedKeys finds every sentence that goes through a printer, and where it is
// said: in the code that calls one, in the shipped topologies, and the fates of packets.
func usedKeys(t *testing.T) map[string]string {
	used := map[string]string{}
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				for _, arg := range sentences(t, set, call) {
					if text, ok := literal(arg); ok {
						used[text] = set.Position(call.Pos()).String()
					} else {
						t.Errorf("%s: what is said is no literal, so nobody can see that it is translated", set.Position(call.Pos()))
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range topologies.Names() {
		lab, err := topologies.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for stage, s := range lab.Stages.All() {
			for _, text := range []string{s.Description, s.Teaches} {
				if text != "" {
					used[strings.ReplaceAll(text, "%", "%%")] = name + ", stage " + stage
				}
			}
		}
	}
	addFates(t, used)
	return used
}

// addFates adds how the ways of packets end, which causes tell in these words.
func addFates(t *testing.T, used map[string]string) {
	const file = "../../topologies/path/trace.go"
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Fate" {
			text, _ := literal(spec.Values[0])
			used[text] = file
		}
		return true
	})
}

// sentences are the arguments of a call that are keys: of x.Sprintf, where x is
// not fmt, and of what the code calls say and plural.
func sentences(t *testing.T, set *token.FileSet, call *ast.CallExpr) []ast.Expr {
	if len(call.Args) == 0 || strings.HasPrefix(set.Position(call.Pos()).Filename, "../lang/") {
		return nil
	}
	switch f := call.Fun.(type) {
	case *ast.Ident:
		switch {
		case f.Name == "say":
			return call.Args[:1]
		case f.Name == "plural" && len(call.Args) == 4:
			return call.Args[2:]
		}
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); f.Sel.Name != "Sprintf" || ok && x.Name == "fmt" {
			return nil
		}
		if strings.HasSuffix(set.Position(call.Pos()).Filename, "check/tables.go") && len(call.Args) == 2 {
			if many, ok := call.Args[0].(*ast.Ident); ok && many.Name == "many" {
				return nil // plural, whose callers are looked at
			}
		}
		return call.Args[:1]
	}
	return nil
}

// literal is the value of a string, also of one in several parts.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		left, ok := literal(e.X)
		right, also := literal(e.Y)
		return left + right, ok && also
	}
	return "", false
}
