package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Format is how a command prints its result.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
	JUnit Format = "junit"
)

// FormatFlag is the value of a command's --output flag (a pflag.Value).
type FormatFlag struct {
	// Format is what the user chose; at first the default.
	Format  Format
	allowed []Format
}

// NewFormat returns a flag that takes the allowed formats, the first of which is
// the default. Without any it takes table, json and yaml.
func NewFormat(allowed ...Format) *FormatFlag {
	if len(allowed) == 0 {
		allowed = []Format{Table, JSON, YAML}
	}
	return &FormatFlag{Format: allowed[0], allowed: slices.Clone(allowed)}
}

// String returns the chosen format.
func (f *FormatFlag) String() string { return string(f.Format) }

// Set chooses a format; one that the command does not write is an error that
// names those it does.
func (f *FormatFlag) Set(s string) error {
	if !slices.Contains(f.allowed, Format(s)) {
		return fmt.Errorf("unknown format %q: want %s", s, oneOf(f.Names()))
	}
	f.Format = Format(s)
	return nil
}

// Type is the word for the value in a command's help.
func (f *FormatFlag) Type() string { return "format" }

// Usage is the flag's line in a command's help.
func (f *FormatFlag) Usage() string { return "how to print the result: " + oneOf(f.Names()) }

// Names returns the allowed formats, for completion.
func (f *FormatFlag) Names() []string {
	names := make([]string, len(f.allowed))
	for i, a := range f.allowed {
		names[i] = string(a)
	}
	return names
}

func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// JUnitWriter is a result that can be written as a JUnit report.
type JUnitWriter interface {
	WriteJUnit(w io.Writer) error
}

// Write prints a result in format f. JSON and YAML come from value, whose json
// tags give the names in both; a table comes from the function; JUnit needs a
// value that is a [JUnitWriter].
func Write(w io.Writer, f Format, value any, table func(w io.Writer) error) error {
	switch f {
	case Table:
		return table(w)
	case JSON:
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(value)
	case YAML:
		return writeYAML(w, value)
	case JUnit:
		if j, ok := value.(JUnitWriter); ok {
			return j.WriteJUnit(w)
		}
	}
	return fmt.Errorf("write %T as %q: no such format for this result", value, f)
}

// writeYAML goes by way of JSON, which is YAML too: the names and the order of
// the fields are then the same in both.
func writeYAML(w io.Writer, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return err
	}
	blockStyle(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

// blockStyle lets the encoder lay out what was read in JSON's braces and quotes.
func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		blockStyle(child)
	}
}
