// Package lesson reads lessons: Markdown files that lead a student through a lab
// step by step, with commands to try, checks that say whether a step is done,
// hints, and a solution. docs/lessons.md says how one is written.
package lesson

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrInvalid is a file that is no lesson; its mistakes are [Errors].
var ErrInvalid = errors.New("this is no lesson")

// Lesson is one lesson in one language.
type Lesson struct {
	Title string
	// Topology names the lab that it is about.
	Topology string
	// Language is the one that it is written in, as BCP 47 names it.
	Language string
	// Intro is what stands before the first step.
	Intro []Block
	Steps []Step
}

// Step is one step: something to read, and where it has checks something to do
// or to see.
type Step struct {
	// ID names the step in every language of the lesson, and in records of progress.
	ID    string
	Title string
	Line  int
	Body  []Block
	// Commands are those of the body, to be tried.
	Commands []Command
	// Checks hold when the step is done; a step without any is for reading.
	Checks   []Check
	Hints    [][]Block
	Solution []Command
}

// Find returns the place of a step that is named by its ID or by its number,
// which counts from one; false where there is none.
func (l *Lesson) Find(name string) (int, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return n - 1, n >= 1 && n <= len(l.Steps)
	}
	for i, s := range l.Steps {
		if s.ID == name {
			return i, true
		}
	}
	return 0, false
}

// Skeleton is all of a lesson that does not depend on its language, a line for
// each thing. Translations of a lesson have the same skeleton.
func (l *Lesson) Skeleton() string {
	var b strings.Builder
	fmt.Fprintln(&b, "topology", l.Topology)
	for _, s := range l.Steps {
		fmt.Fprintln(&b, "step", s.ID)
		for _, c := range s.Commands {
			fmt.Fprintln(&b, "  command", c)
		}
		for _, c := range s.Checks {
			fmt.Fprintln(&b, "  check", c)
		}
		fmt.Fprintln(&b, "  hints", len(s.Hints))
		for _, c := range s.Solution {
			fmt.Fprintln(&b, "  solution", c)
		}
	}
	return b.String()
}

// Block is a part of a text, one of a paragraph, an item of a list, a heading
// within a step, code, and commands.
type Block struct {
	Kind BlockKind
	// Marker is what stands before an item: a bullet or its number.
	Marker string
	// Spans are the words of what is neither code nor commands.
	Spans []Span
	// Lines are those of code and commands.
	Lines []string
}

// BlockKind is what a block is.
type BlockKind int

// The kinds of a block.
const (
	Paragraph BlockKind = iota
	Item
	Heading
	Code
	Commands
)

// Span is a run of words.
type Span struct {
	Text string
	Look Look
}

// Look is how words stand out.
type Look int

// The looks of words.
const (
	Plain Look = iota
	Strong
	Literal // a name or a command, as it is typed
)

// Mistake is one thing that is wrong with a file.
type Mistake struct {
	File string
	Line int
	Text string
}

func (m Mistake) String() string { return fmt.Sprintf("%s:%d: %s", m.File, m.Line, m.Text) }

// Errors are all that is wrong with a file, by line. They match ErrInvalid.
type Errors []Mistake

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, m := range e {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// Is makes the mistakes match ErrInvalid.
func (e Errors) Is(target error) bool { return target == ErrInvalid }
