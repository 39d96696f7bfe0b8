package topo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrInvalid matches, with errors.Is, every error that says that a topology, or
// a name that was given for something of it, is not as it should be: trying
// again does not help.
var ErrInvalid = errors.New("invalid topology")

// Mistake is one thing that is wrong in a topology file.
type Mistake struct {
	// File is the name that was given to [Load].
	File string `json:"file"`
	// Line and Column count from 1; the column in characters.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Field is the path of the value, such as nodes.k8s-ctr.interfaces.eth1.address;
	// empty where the file as a whole is meant.
	Field string `json:"field,omitempty"`
	// Wrong says what is wrong, and Cure what would be right.
	Wrong string `json:"wrong"`
	Cure  string `json:"cure"`
}

// Error is the mistake on one line: file:line:column: field: what is wrong; what would be right.
func (m *Mistake) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", m.File, m.Line, m.Column)
	if m.Field != "" {
		b.WriteString(m.Field + ": ")
	}
	b.WriteString(m.Wrong)
	if m.Cure != "" {
		b.WriteString("; " + m.Cure)
	}
	return b.String()
}

// Errors are all mistakes of a file, by line. It matches [ErrInvalid].
type Errors []*Mistake

// Error has one line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, m := range e {
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the mistakes one by one.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, m := range e {
		errs[i] = m
	}
	return errs
}

// Is matches ErrInvalid.
func (e Errors) Is(target error) bool { return target == ErrInvalid }

// sorted returns the mistakes by line, without those that an alias repeats.
func (e Errors) sorted() Errors {
	all := slices.Clone(e)
	slices.SortStableFunc(all, func(a, b *Mistake) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	type place struct {
		line, column int
		key, wrong   string
	}
	seen := make(map[place]bool, len(all))
	return slices.DeleteFunc(all, func(m *Mistake) bool {
		p := place{m.Line, m.Column, m.Field[strings.LastIndex(m.Field, ".")+1:], m.Wrong}
		repeated := seen[p]
		seen[p] = true
		return repeated
	})
}

// invalid is a wrong name that did not come from a file.
type invalid string

func (i invalid) Error() string { return string(i) }

func (i invalid) Is(target error) bool { return target == ErrInvalid }
