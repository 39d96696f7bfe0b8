package lesson

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/native-routing/labctl/labctl/lang"
)

// commandLimit ends a command of a check that does not end by itself.
const commandLimit = 20 * time.Second

// Lab is what a lesson needs of the lab that it is about.
type Lab interface {
	// Stage returns the stage that the lab is in.
	Stage(ctx context.Context) (string, error)
	// Run runs a command of labctl: what it prints, both streams in one, and its
	// exit code.
	Run(ctx context.Context, c Command) (output string, code int)
	// ReadFile reads a file that a student made.
	ReadFile(path string) ([]byte, error)
}

// Missing tries the checks of a step up to the first that does not hold, and says
// what is missing, in the student's language: one thing at a time. It is empty
// where the step is done. An error is a lab that could not be asked.
func (s Step) Missing(ctx context.Context, lab Lab, say lang.Printer) (string, error) {
	for _, c := range s.Checks {
		missing, err := c.missing(ctx, lab, say)
		if err != nil {
			return "", fmt.Errorf("%s: %w", c, err)
		}
		if missing != "" {
			return missing, nil
		}
	}
	return "", ctx.Err()
}

// missing is empty where the check holds.
func (c Check) missing(ctx context.Context, lab Lab, say lang.Printer) (string, error) {
	switch c.Kind {
	case Stage:
		stage, err := lab.Stage(ctx)
		if err != nil || stage == c.Stage {
			return "", err
		}
		return say.Sprintf("the lab is in stage %s, and should be in %s (labctl stage %s)", stage, c.Stage, c.Stage), nil
	case File:
		data, err := lab.ReadFile(c.Path)
		if errors.Is(err, fs.ErrNotExist) {
			return say.Sprintf("there is no file %s", c.Path), nil
		}
		if err != nil {
			return "", err
		}
		return c.untrue(say, string(data)), nil
	}
	output, code := c.run(ctx, lab)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	switch {
	case c.Kind == Passes && code != 0:
		return say.Sprintf("%s fails, and should work: %s", c.Command, lastLine(output)), nil
	case c.Kind == Fails && code == 0:
		return say.Sprintf("%s works, and should fail", c.Command), nil
	}
	return c.untrue(say, output), nil
}

// untrue is the first demand that a text does not meet.
func (c Check) untrue(say lang.Printer, text string) string {
	what := c.Command.String()
	if c.Kind == File {
		what = c.Path
	}
	for _, t := range c.Tests {
		switch {
		case t.Holds(text):
		case t.Kind == Lacks:
			return say.Sprintf("%s still says %q", what, t.Text)
		case t.Kind == Matches:
			return say.Sprintf("%s says nothing like %s", what, t.Text)
		default:
			return say.Sprintf("%s does not say %q", what, t.Text)
		}
	}
	return ""
}

// lastLine is where a command says what came of it.
func lastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.TrimSpace(printable(lines[len(lines)-1]))
}

// run runs the command of a check and, while it does, what is to happen
// meanwhile, again and again: nobody knows when the first is ready for it.
func (c Check) run(ctx context.Context, lab Lab) (string, int) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	if c.Meanwhile == nil {
		return lab.Run(ctx, c.Command)
	}
	type end struct {
		output string
		code   int
	}
	ended := make(chan end, 1)
	go func() {
		output, code := lab.Run(ctx, c.Command)
		ended <- end{output, code}
	}()
	for {
		select {
		case e := <-ended:
			return e.output, e.code
		default:
			lab.Run(ctx, *c.Meanwhile)
		}
	}
}
