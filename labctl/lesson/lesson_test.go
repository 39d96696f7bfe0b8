package lesson_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/labctl/lesson"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/topologies"
)

var update = flag.Bool("update", false, "write what the package gives to testdata")

// TestParse shows for each archive what is read of lesson.md: its skeleton and
// its text on a terminal of 60 columns, or its mistakes.
func TestParse(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no archives", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source := archive.Files[0]
			got := txtar.Archive{Comment: archive.Comment, Files: []txtar.File{source}}
			if l, err := lesson.Parse(source.Name, source.Data); err != nil {
				if !errors.Is(err, lesson.ErrInvalid) {
					t.Errorf("%v does not match ErrInvalid", err)
				}
				got.Files = append(got.Files, txtar.File{Name: "mistakes", Data: []byte(err.Error() + "\n")})
			} else {
				got.Files = append(got.Files, txtar.File{Name: "skeleton", Data: []byte(l.Skeleton())}, txtar.File{Name: "terminal", Data: []byte(onTerminal(l))})
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(&got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(&got))); diff != "" && !*update {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func onTerminal(l *lesson.Lesson) string {
	var b strings.Builder
	show := func(blocks []lesson.Block) {
		for _, line := range lesson.Show(blocks, ui.Style{}, 60) {
			b.WriteString(line + "\n")
		}
	}
	show(l.Intro)
	for _, s := range l.Steps {
		b.WriteString("\n== " + s.Title + "\n\n")
		show(s.Body)
		for _, h := range s.Hints {
			b.WriteString("\nhint\n")
			show(h)
		}
	}
	return b.String()
}

// TestShipped: every shipped lesson is one in every language, about a shipped
// lab, and its languages differ in their texts alone.
func TestShipped(t *testing.T) {
	if len(topologies.Lessons()) == 0 {
		t.Fatal("no lessons")
	}
	for _, name := range topologies.Lessons() {
		skeleton := ""
		for _, language := range lang.Names() {
			file, text, err := topologies.Lesson(name, language)
			if err != nil {
				t.Fatal(err)
			}
			l, err := lesson.Parse(file, text)
			if err != nil {
				t.Error(err)
				continue
			}
			if l.Language != language {
				t.Errorf("%s: there is none in %s", name, language)
			}
			if skeleton == "" {
				skeleton = l.Skeleton()
			}
			if diff := cmp.Diff(skeleton, l.Skeleton()); diff != "" {
				t.Errorf("%s is another lesson (-english +%s):\n%s", file, language, diff)
			}
			lab, err := topologies.Load(l.Topology)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, s := range l.Steps {
				for _, c := range s.Checks {
					if _, ok := lab.Stages.Get(c.Stage); c.Kind == lesson.Stage && !ok {
						t.Errorf("%s:%d: lab %s has no stage %s", file, c.Line, l.Topology, c.Stage)
					}
				}
			}
		}
	}
}

func TestFind(t *testing.T) {
	l := &lesson.Lesson{Steps: []lesson.Step{{ID: "a"}, {ID: "b"}}}
	for name, want := range map[string]int{"1": 0, "2": 1, "b": 1, "0": -1, "3": -1, "-1": -1, "c": -1, "": -1} {
		at, ok := l.Find(name)
		if !ok {
			at = -1
		}
		if at != want {
			t.Errorf("Find(%q) = %d, want %d", name, at, want)
		}
	}
}

// FuzzParse: no file makes the parser panic, mistakes have places in the file,
// and what is written of a lesson's checks and commands is read as the same.
func FuzzParse(f *testing.F) {
	for _, name := range topologies.Lessons() {
		_, text, err := topologies.Lesson(name, lang.English)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("---\ntitle: t\ntopology: x\nlanguage: en\n---\n## A {#a}\n```check\noutput: labctl x \"a b\" | matches \"^a\"\n```\n"))
	f.Fuzz(func(t *testing.T, source []byte) {
		l, err := lesson.Parse("x.md", source)
		var mistakes lesson.Errors
		if errors.As(err, &mistakes) {
			for _, m := range mistakes {
				if m.Line < 1 || m.Line > bytes.Count(source, []byte("\n"))+1 {
					t.Errorf("%s: no such line", m)
				}
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		onTerminal(l)
		for _, s := range l.Steps {
			for _, c := range s.Checks {
				if again, err := lesson.ParseCheck(c.String()); err != nil || again.String() != c.String() {
					t.Errorf("%s is read as %s, %v", c, again, err)
				}
			}
			for _, c := range s.Solution {
				if again, err := lesson.ParseCommand(c.String()); err != nil || !cmp.Equal(again, c) {
					t.Errorf("%s is read as %s, %v", c, again, err)
				}
			}
		}
	})
}
