package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

const (
	// maxFile in bytes. A manifest for a lab is a few KiB.
	maxFile = 1 << 20
	// maxMistakes bounds the report of a file that is wrong throughout.
	maxMistakes = 500
)

// position counts lines and columns from 1.
type position struct{ line, column int }

// mark is where a field stands: its key (where it has one) and its value.
type mark struct{ key, value position }

// nearestMark is the mark of a field, or of what is nearest above it.
func nearestMark(marks map[string]mark, field string) mark {
	for {
		if m, ok := marks[field]; ok || field == "" {
			if m.value == (position{}) {
				m.value = position{1, 1}
			}
			return m
		}
		field = above(field)
	}
}

// above is the field that holds this one.
func above(field string) string {
	if strings.HasSuffix(field, "]") {
		return field[:max(0, strings.LastIndexByte(field, '['))]
	}
	return field[:max(0, strings.LastIndexByte(field, '.'))]
}

// parse reads the documents of the file, nil for empty ones. It stops at what is no YAML.
func (f *file) parse(data []byte) []*yaml.Node {
	f.lines = countLines(data)
	if len(data) > maxFile {
		f.note(position{}, 0, fmt.Sprintf("the file is larger than %d KiB", maxFile>>10), "a manifest is a few KiB: is this the right file?")
		return nil
	}
	if f.illegible(data) {
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var documents []*yaml.Node
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		switch {
		case errors.Is(err, io.EOF):
			if len(documents) == 0 {
				f.note(position{}, 0, "the file is empty", honouredKinds())
			}
			return documents
		case err != nil:
			f.syntax(err, data, len(documents)+1)
			return documents
		}
		root := &document
		if root.Kind == yaml.DocumentNode {
			root = root.Content[0]
		}
		if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
			root = nil
		}
		documents = append(documents, root)
	}
}

var (
	yamlLine      = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	unknownAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced$`)
	// parserError are the messages for which yaml.v3 counts lines from 0, not
	// from 1 as for those of its scanner (its function parser.fail).
	parserError = regexp.MustCompile(`^did not find expected (?:key|'-' indicator|',' or|node content|<)`)
)

func (f *file) syntax(err error, data []byte, document int) {
	text := err.Error()
	if anchor := unknownAnchor.FindStringSubmatch(text); anchor != nil {
		before, _, _ := bytes.Cut(data, []byte("*"+anchor[1]))
		f.note(position{countLines(before), 1}, document, "alias *"+show(anchor[1])+" has no anchor before it", "write &"+show(anchor[1])+" in front of the value that is meant")
		return
	}
	where := position{1, 1}
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		text = text[len(found[0]):]
		if line, err := strconv.Atoi(found[1]); err == nil {
			if parserError.MatchString(text) {
				line++
			}
			where.line = min(max(line, 1), f.lines)
		}
	}
	f.note(where, document, "this is no YAML: "+printable(text), "look at the indentation and the quotes here and on the line before")
}

// countLines counts lines as YAML does: by LF, CR, both together, and Unicode's
// NEL, LS and PS.
func countLines(data []byte) int {
	lines := 1
	for i, r := range string(data) {
		switch r {
		case '\n', '\u0085', '\u2028', '\u2029':
			lines++
		case '\r':
			if i+1 == len(data) || data[i+1] != '\n' {
				lines++
			}
		}
	}
	return lines
}

// illegible finds the first byte that no YAML file may hold. The parser would
// refuse it too, without saying where it is.
func (f *file) illegible(data []byte) bool {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			f.note(position{countLines(data[:i]), 1}, 0, fmt.Sprintf("byte 0x%02x is no UTF-8", data[i]), "save the file as UTF-8")
			return true
		case r < ' ' && r != '\t' && r != '\r' && r != '\n', r == 0x7f:
			f.note(position{countLines(data[:i]), 1}, 0, fmt.Sprintf("character %U is not allowed in YAML", r), "take it out")
			return true
		}
		i += size
	}
	return false
}

func (f *file) note(where position, document int, wrong, cure string) {
	if f.full() {
		return
	}
	f.mistakes = append(f.mistakes, &Mistake{
		File: f.name, Document: document, Line: max(where.line, 1), Column: max(where.column, 1), Wrong: wrong, Cure: cure,
	})
}

// printable is a text without what a terminal would take for more than text.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, text)
}
