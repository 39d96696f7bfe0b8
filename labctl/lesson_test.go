//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	"github.com/native-routing/labctl/labctl/lesson"
	"github.com/native-routing/labctl/topologies"
)

// TestLessons walks and solves every shipped lesson from start to end on a lab:
// every check holds after its step, and where a step has a solution it does not
// hold before.
func TestLessons(t *testing.T) {
	t.Parallel()
	for _, name := range topologies.Lessons() {
		t.Run(name, func(t *testing.T) {
			l := newKillLab(t)
			l.must(l.up()...)
			walkOnTerminal(t, l, name)
			solveAll(t, l, name)
		})
	}
}

func solveAll(t *testing.T, l killLab, name string) {
	file, text, err := topologies.Lesson(name, "en")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := lesson.Parse(file, text)
	if err != nil {
		t.Fatal(err)
	}
	cmd := l.command("lesson", name, "--solve-all", "-o", "json")
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Errorf("labctl lesson --solve-all: %v\n%s", err, exit.Stderr)
	}
	var report struct {
		Steps []struct {
			ID, Missing, MissingBefore string
			Done                       bool
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(report.Steps) != len(parsed.Steps) {
		t.Errorf("%d of %d steps were solved", len(report.Steps), len(parsed.Steps))
	}
	for i, step := range report.Steps {
		if !step.Done {
			t.Errorf("step %s is not done by its solution: %s", step.ID, step.Missing)
		}
		if len(parsed.Steps[i].Solution) > 0 && step.MissingBefore == "" {
			t.Errorf("step %s is done before anybody does it", step.ID)
		}
	}
	for _, step := range parsed.Steps { // in the last stage some fail, and none is wrongly typed
		for _, c := range step.Commands {
			err := l.command(c.Args...).Run()
			if errors.As(err, &exit) && exit.ExitCode() == 2 {
				t.Errorf("step %s: %s is wrong usage", step.ID, c)
			}
		}
	}
}

// walkOnTerminal is a student who looks around, leaves, comes back in another
// language, and leaves by Ctrl-C.
func walkOnTerminal(t *testing.T, l killLab, name string) {
	s := onTerminal(t, l.command("lesson", name, "--lang", "en"))
	s.expect(`1/\d+  [^\r]*\r\n(?s:.*)help >`)
	s.send("hint\n")
	s.expect(`labctl stage baseline(?s:.*)help >`)
	s.send("labctl exec router -- ip route | grep x\n")
	s.expect(`Not run: no \| here(?s:.*)help >`)
	s.send("labctl exec router -- hostname\n")
	s.expect(`\r\nrouter\r\n(?s:.*)help >`)
	s.send("\n")
	s.expect(`done(?s:.*)2/\d+ (?s:.*)help >`)
	s.send("quit\n")
	if code := s.exit(); code != 0 {
		t.Errorf("quit: %d", code)
	}
	s = onTerminal(t, l.command("lesson", name, "--lang", "ko"))
	s.expect(`2단계부터(?s:.*)2/\d+ (?s:.*)help >`)
	s.send("skip\n")
	s.expect(`3/\d+ (?s:.*)help >`)
	s.send("\x03")
	s.expect(`3단계에서 나왔습니다`)
	if code := s.exit(); code != 0 {
		t.Errorf("Ctrl-C: %d", code)
	}
}
