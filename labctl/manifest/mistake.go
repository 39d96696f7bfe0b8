package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrInvalid matches, with errors.Is, every error that says that a manifest is
// not as it should be: trying again does not help.
var ErrInvalid = errors.New("invalid manifest")

// Mistake is one thing that is wrong in a manifest.
type Mistake struct {
	// File is the name that was given to [Decode].
	File string `json:"file"`
	// Document, Line and Column count from 1, the lines from the beginning of the
	// file; the document is 0 for a mistake between documents.
	Document int `json:"document,omitempty"`
	Line     int `json:"line"`
	Column   int `json:"column"`
	// Object is what the document describes, such as Deployment webpod; empty
	// where that is not known.
	Object string `json:"object,omitempty"`
	// Field is the path of the value, such as spec.ports[0].port; empty where
	// the object as a whole is meant.
	Field string `json:"field,omitempty"`
	// Wrong says what is wrong, and Cure what would be right.
	Wrong string `json:"wrong"`
	Cure  string `json:"cure"`
}

// Error is the mistake on one line: file:line:column: document, object: field:
// what is wrong; what would be right.
func (m *Mistake) Error() string {
	text := place(m.File, m.Line, m.Column, m.Document, m.Object, m.Field) + m.Wrong
	if m.Cure != "" {
		text += "; " + m.Cure
	}
	return text
}

// Is matches ErrInvalid.
func (m *Mistake) Is(target error) bool { return target == ErrInvalid }

// Notice is a field that changes nothing in a lab, and harms nothing either.
type Notice struct {
	File     string `json:"file"`
	Document int    `json:"document"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Object   string `json:"object,omitempty"`
	Field    string `json:"field"`
	// Text says what the lab does instead.
	Text string `json:"text"`
}

// String is the notice on one line, like [Mistake.Error].
func (n Notice) String() string {
	return place(n.File, n.Line, n.Column, n.Document, n.Object, n.Field) + n.Text
}

func place(file string, line, column, document int, object, field string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", file, line, column)
	var about []string
	if document > 0 {
		about = append(about, fmt.Sprintf("document %d", document))
	}
	if object != "" {
		about = append(about, object)
	}
	if len(about) > 0 {
		b.WriteString(strings.Join(about, ", ") + ": ")
	}
	if field != "" {
		b.WriteString(field + ": ")
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

func (e Errors) sorted() Errors {
	all := slices.Clone(e)
	slices.SortStableFunc(all, func(a, b *Mistake) int {
		return comparePositions(a.Line, a.Column, b.Line, b.Column)
	})
	return all
}

func comparePositions(line, column, otherLine, otherColumn int) int {
	return cmp.Or(cmp.Compare(line, otherLine), cmp.Compare(column, otherColumn))
}
