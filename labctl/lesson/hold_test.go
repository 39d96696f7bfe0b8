package lesson_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/labctl/lesson"
)

// fakeLab answers commands by their text.
type fakeLab struct {
	stage   string
	err     error
	outputs map[string]string // a command that is not here fails
	files   map[string]string
	calls   atomic.Int32
	// waited is closed when the second command that runs meanwhile begins.
	waited chan struct{}
}

func (f *fakeLab) Stage(context.Context) (string, error) { return f.stage, f.err }

func (f *fakeLab) Run(ctx context.Context, c lesson.Command) (string, int) {
	switch c.String() {
	case "labctl capture":
		select {
		case <-f.waited:
			return "seen", 0
		case <-ctx.Done():
			return "", 1
		}
	case "labctl send":
		if f.calls.Add(1) == 2 {
			close(f.waited)
		}
		return "", 0
	}
	output, ok := f.outputs[c.String()]
	if !ok {
		return "first\nno such thing\n", 1
	}
	return output, 0
}

func (f *fakeLab) ReadFile(path string) ([]byte, error) {
	text, ok := f.files[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

func TestMissing(t *testing.T) {
	for _, c := range []struct{ check, want string }{
		{"stage: baseline", ""},
		{"stage: bgp", "the lab is in stage baseline, and should be in bgp (labctl stage bgp)"},
		{"passes: labctl good", ""},
		{"passes: labctl bad", "labctl bad fails, and should work: no such thing"},
		{"fails: labctl bad", ""},
		{"fails: labctl good", "labctl good works, and should fail"},
		{`output: labctl good | contains "two" | lacks "four"`, ""},
		{`output: labctl good | contains "four"`, `labctl good does not say "four"`},
		{`output: labctl good | contains "one" | lacks "two"`, `labctl good still says "two"`},
		{`output: labctl good | matches "^t.o$"`, ""},
		{`output: labctl good | matches "^o$"`, "labctl good says nothing like ^o$"},
		{`output: labctl bad | contains "first"`, ""},
		{`output: labctl capture | meanwhile labctl send | contains "seen"`, ""},
		{`file: a.md | contains "x"`, ""},
		{`file: a.md | contains "y"`, `a.md does not say "y"`},
		{`file: b.md | contains "y"`, "there is no file b.md"},
	} {
		check, err := lesson.ParseCheck(c.check)
		if err != nil {
			t.Errorf("%s: %v", c.check, err)
			continue
		}
		lab := &fakeLab{stage: "baseline", outputs: map[string]string{"labctl good": "one\ntwo\nthree\n"}, files: map[string]string{"a.md": "x"}, waited: make(chan struct{})}
		got, err := lesson.Step{Checks: []lesson.Check{check}}.Missing(t.Context(), lab, lang.Printer{})
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.check, got, err, c.want)
		}
	}
}

// TestMissingFirst: one thing at a time, and what cannot be asked is no fault of
// the student's.
func TestMissingFirst(t *testing.T) {
	var step lesson.Step
	for _, line := range []string{"passes: labctl a", "passes: labctl b"} {
		check, err := lesson.ParseCheck(line)
		if err != nil {
			t.Fatal(err)
		}
		step.Checks = append(step.Checks, check)
	}
	got, err := step.Missing(t.Context(), &fakeLab{}, lang.Printer{})
	if err != nil || !strings.HasPrefix(got, "labctl a fails") || strings.Contains(got, "labctl b") {
		t.Errorf("%q, %v", got, err)
	}
	broken := errors.New("no lab")
	check, err := lesson.ParseCheck("stage: x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (lesson.Step{Checks: []lesson.Check{check}}).Missing(t.Context(), &fakeLab{err: broken}, lang.Printer{}); !errors.Is(err, broken) {
		t.Errorf("without a lab: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := step.Missing(ended, &fakeLab{}, lang.Printer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestProgress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a", "b.json")
	p, err := lesson.LoadProgress(file)
	if err != nil || !cmp.Equal(p, lesson.Progress{}) {
		t.Fatalf("a new one: %+v, %v", p, err)
	}
	hint := func(text string) []lesson.Block { return []lesson.Block{{Lines: []string{text}}} }
	l := &lesson.Lesson{Steps: []lesson.Step{{ID: "a", Hints: [][]lesson.Block{hint("1"), hint("2")}}, {ID: "b"}}}
	for _, want := range []string{"1", "2", ""} {
		blocks, ok := p.Hint(l.Steps[0])
		if ok != (want != "") || ok && blocks[0].Lines[0] != want {
			t.Errorf("hint %v, %t, want %q", blocks, ok, want)
		}
	}
	p.Step = "b"
	p.Finish("a", true)
	p.Finish("a", false)
	p.Finish("gone", false)
	if err := p.Save(file); err != nil {
		t.Fatal(err)
	}
	again, err := lesson.LoadProgress(file)
	if diff := cmp.Diff(p, again); err != nil || diff != "" {
		t.Errorf("%v (-saved +loaded):\n%s", err, diff)
	}
	if at, done := again.At(l), again.Count(l); at != 1 || done != 1 {
		t.Errorf("at %d, %d done", at, done)
	}
	again.Step = "gone"
	if at := again.At(l); at != 0 {
		t.Errorf("at %d after the step is gone", at)
	}
}
