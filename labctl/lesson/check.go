package lesson

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Check is one thing that holds when a step is done.
type Check struct {
	Line int
	Kind CheckKind
	// Stage is the one that the lab is to be in.
	Stage string
	// Path is the file that is to be there, from where labctl was called.
	Path string
	// Command is what is run, for all kinds but these two.
	Command Command
	// Meanwhile is run again and again until Command ends; nil where nothing is.
	Meanwhile *Command
	// Tests are made of the output, or of the file.
	Tests []Test
}

// CheckKind is what a check is about.
type CheckKind string

// The kinds of a check, by the words that begin them.
const (
	Stage  CheckKind = "stage"  // the lab is in a stage
	Passes CheckKind = "passes" // a command exits with 0
	Fails  CheckKind = "fails"  // a command exits with another code
	Output CheckKind = "output" // what a command prints, whatever its exit code
	File   CheckKind = "file"   // what is in a file
)

// Test is one demand on a text.
type Test struct {
	Kind TestKind
	Text string
	// expression is Text of a test that matches.
	expression *regexp.Regexp
}

// TestKind is what a test demands.
type TestKind string

// The kinds of a test.
const (
	Contains TestKind = "contains"
	Lacks    TestKind = "lacks"
	Matches  TestKind = "matches" // an expression of Go's regexp; ^ and $ match at lines
)

// Holds says whether a text is as the test demands.
func (t Test) Holds(text string) bool {
	switch t.Kind {
	case Lacks:
		return !strings.Contains(text, t.Text)
	case Matches:
		return t.expression.MatchString(text)
	}
	return strings.Contains(text, t.Text)
}

// String is the check as it is written.
func (c Check) String() string {
	s := string(c.Kind) + ": "
	switch c.Kind {
	case Stage:
		return s + quoted(c.Stage)
	case File:
		s += quoted(c.Path)
	default:
		s += c.Command.String()
	}
	if c.Meanwhile != nil {
		s += " | meanwhile " + c.Meanwhile.String()
	}
	for _, t := range c.Tests {
		s += fmt.Sprintf(" | %s %q", t.Kind, t.Text)
	}
	return s
}

// ParseCheck reads one line:
//
//	stage: NAME
//	passes: labctl …
//	fails: labctl …
//	output: labctl … [| meanwhile labctl …] | contains "…" | lacks "…" | matches "…"
//	file: PATH | contains "…" …
func ParseCheck(line string) (Check, error) {
	kind, rest, found := strings.Cut(strings.TrimSpace(line), ":")
	c := Check{Kind: CheckKind(kind)}
	if !found {
		return c, errors.New("a check is KIND: WHAT, such as passes: labctl verify")
	}
	parts, err := split(rest)
	if err != nil {
		return c, err
	}
	switch c.Kind {
	case Stage:
		c.Stage, err = one(parts, "the name of a stage")
		return c, err
	case File:
		if c.Path, err = one(parts[:1], "the path of a file"); err != nil {
			return c, err
		}
	case Passes, Fails, Output:
		if c.Command, err = command(parts[0]); err != nil {
			return c, err
		}
	default:
		return c, fmt.Errorf("there is no check %q; there are %s, %s, %s, %s and %s", kind, Stage, Passes, Fails, Output, File)
	}
	for _, words := range parts[1:] {
		if err := c.demand(words); err != nil {
			return c, err
		}
	}
	tested := c.Kind == Output || c.Kind == File
	switch {
	case tested && len(c.Tests) == 0:
		return c, fmt.Errorf(`%s: demands nothing (| contains "…")`, c.Kind)
	case !tested && len(parts) > 1:
		return c, fmt.Errorf("%s: is about the exit code alone (output: looks at what is printed)", c.Kind)
	}
	return c, nil
}

// one is the only word of a line.
func one(parts [][]string, what string) (string, error) {
	if len(parts) != 1 || len(parts[0]) != 1 || parts[0][0] == "" {
		return "", fmt.Errorf("here stands %s, and nothing else", what)
	}
	return parts[0][0], nil
}

// demand reads what stands after a bar.
func (c *Check) demand(words []string) error {
	if len(words) > 0 && words[0] == "meanwhile" {
		meanwhile, err := command(words[1:])
		if c.Kind != Output || c.Meanwhile != nil {
			err = errors.New("meanwhile is for output:, once")
		}
		c.Meanwhile = &meanwhile
		return err
	}
	if len(words) != 2 || words[1] == "" {
		return errors.New(`after | stands contains "…", lacks "…", matches "…", or meanwhile labctl …`)
	}
	t := Test{Kind: TestKind(words[0]), Text: words[1]}
	switch t.Kind {
	case Contains, Lacks:
	case Matches:
		expression, err := regexp.Compile("(?m)" + t.Text)
		if err != nil {
			return fmt.Errorf("%q is no regular expression: %w", t.Text, err)
		}
		t.expression = expression
	default:
		return fmt.Errorf("there is no demand %q; there are %s, %s and %s", words[0], Contains, Lacks, Matches)
	}
	c.Tests = append(c.Tests, t)
	return nil
}
