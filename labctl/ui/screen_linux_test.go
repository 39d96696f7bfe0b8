package ui

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestScreen: what is shown stands in place of what was, cut to the terminal.
func TestScreen(t *testing.T) {
	env := func(name string) string { return map[string]string{"TERM": "xterm"}[name] }
	tty, received := openPty(t)
	s, ok := NewScreen(tty, env)
	if !ok {
		t.Fatal("a terminal is none")
	}
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprintf("line %d\n", i))
	}
	for _, lines := range [][]string{many, {"first\n", strings.Repeat("long ", 20) + "\n", "third\n"}, {"only\n"}} {
		if err := s.Show(lines); err != nil {
			t.Fatal(err)
		}
	}
	got := received()
	if strings.Contains(got, "line 9\r") || !strings.Contains(got, "line 7\x1b[K\r\n...") {
		t.Errorf("not cut to the terminal's ten lines: %q", got)
	}
	view := newScreen()
	view.vt.Resize(40, 10)
	io.WriteString(view, strings.ReplaceAll(got, "\r\n", "\n"))
	if text := string(view.text()); !strings.HasPrefix(text, "only\ncursor at 0,1 shown true") {
		t.Errorf("at the end there is %q", text)
	}
	if _, ok := NewScreen(new(bytes.Buffer), env); ok {
		t.Error("a buffer is a terminal")
	}
}

func TestWrap(t *testing.T) {
	got := Wrap(" One of  these\nlines is long. ", 12)
	if want := []string{"One of these", "lines is", "long."}; strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("Wrap = %q, want %q", got, want)
	}
	if got := Wrap(" \n ", 12); len(got) != 0 {
		t.Errorf("Wrap of nothing = %q", got)
	}
}
