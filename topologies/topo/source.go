package topo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

const (
	// maxFile in bytes. A lab of a thousand nodes takes a fifth of it.
	maxFile = 1 << 20
	// maxMistakes bounds the report of a file that is wrong throughout.
	maxMistakes = 1000
)

// fieldPath is where a value stands in the file, such as nodes.router.routes[0].to.
type fieldPath string

func at(names ...string) fieldPath {
	var p fieldPath
	for _, name := range names {
		p = p.key(name)
	}
	return p
}

// key is the path of a key below p. A key that would make the path ambiguous is quoted.
func (p fieldPath) key(name string) fieldPath {
	if !plainKey(name) {
		name = show(name)
		if !strings.HasPrefix(name, `"`) {
			name = strconv.Quote(name)
		}
	}
	if p == "" {
		return fieldPath(name)
	}
	return p + "." + fieldPath(name)
}

func (p fieldPath) index(i int) fieldPath {
	return p + "[" + fieldPath(strconv.Itoa(i)) + "]"
}

func plainKey(name string) bool {
	for _, r := range name {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_') {
			return false
		}
	}
	return name != "" && len(name) <= maxShown
}

// position counts lines and columns from 1.
type position struct{ line, column int }

// mark is where a field stands: its key (where it has one) and its value.
type mark struct{ key, value position }

// source is a file under examination: where each of its fields stands, and
// which mistakes were found so far.
type source struct {
	name     string
	marks    map[fieldPath]mark
	mistakes Errors
	full     bool // maxMistakes were found
	// noted are the fields with a mistake, and all that hold one.
	noted, holdsNoted map[fieldPath]bool
	// misspelt are the fields that an unknown key probably stands for.
	misspelt map[fieldPath]bool
}

func newSource(name string) *source {
	return &source{
		name: name, marks: map[fieldPath]mark{},
		noted: map[fieldPath]bool{}, holdsNoted: map[fieldPath]bool{}, misspelt: map[fieldPath]bool{},
	}
}

// has says whether the file has the field.
func (s *source) has(p fieldPath) bool {
	_, ok := s.marks[p]
	return ok
}

// absent says that the file does not have the field, under no name like it.
func (s *source) absent(p fieldPath) bool { return !s.has(p) && !s.misspelt[p] }

// keyOf is where the key of a field stands; the root has only a value.
func (s *source) keyOf(p fieldPath) position {
	if m := s.marks[p]; m.key != (position{}) {
		return m.key
	}
	return s.marks[p].value
}

// wrong notes a mistake in the value of a field.
func (s *source) wrong(p fieldPath, what, cure string) {
	s.note(s.marks[p].value, p, what, cure)
}

// wrongKey notes a mistake in the key of a field, or one that concerns all that is below it.
func (s *source) wrongKey(p fieldPath, what, cure string) {
	s.note(s.keyOf(p), p, what, cure)
}

func (s *source) note(where position, p fieldPath, what, cure string) {
	if s.full {
		return
	}
	if where == (position{}) {
		where = position{1, 1}
	}
	s.mistakes = append(s.mistakes, &Mistake{
		File: s.name, Line: where.line, Column: where.column, Field: string(p), Wrong: what, Cure: cure,
	})
	s.full = len(s.mistakes) == maxMistakes
	s.noted[p] = true
	for p != "" {
		s.holdsNoted[p] = true
		p = p[:max(0, strings.LastIndexAny(string(p), ".["))]
	}
}

// err returns the mistakes found, or nil.
func (s *source) err() error {
	if len(s.mistakes) == 0 {
		return nil
	}
	sorted := s.mistakes.sorted()
	if s.full {
		last := sorted[len(sorted)-1]
		sorted = append(sorted, &Mistake{
			File: s.name, Line: last.Line, Column: last.Column,
			Wrong: fmt.Sprintf("the file has more than %d mistakes", maxMistakes), Cure: "mend these first",
		})
	}
	return sorted
}

// parse reads the only document of the file; nil where a mistake makes all else pointless.
func (s *source) parse(data []byte) *yaml.Node {
	if len(data) > maxFile {
		s.note(position{}, "", fmt.Sprintf("the file is larger than %d KiB", maxFile>>10), "a topology is a few KiB: is this the right file?")
		return nil
	}
	if s.illegible(data) {
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, next yaml.Node
	err := decoder.Decode(&document)
	if err == nil {
		err = decoder.Decode(&next)
	} else if errors.Is(err, io.EOF) {
		s.note(position{}, "", "the file is empty", "start it with apiVersion: "+APIVersion)
		return nil
	}
	switch {
	case err == nil:
		s.note(position{next.Line, next.Column}, "", "the file holds a second document", "one file describes one lab: put the other one into a file of its own")
	case !errors.Is(err, io.EOF):
		s.syntax(err, data)
		return nil
	}
	return document.Content[0]
}

// illegible finds the first byte that no YAML file may hold. The parser would
// refuse it too, without saying where it is.
func (s *source) illegible(data []byte) bool {
	where := position{1, 1}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			s.note(where, "", fmt.Sprintf("byte 0x%02x is no UTF-8", data[i]), "save the file as UTF-8")
			return true
		case r == '\n':
			where = position{where.line + 1, 0}
		case r == '\uFEFF' && i == 0:
			where.column--
		case !legible(r):
			s.note(where, "", fmt.Sprintf("character %U is not allowed in YAML", r), "take it out")
			return true
		}
		where.column++
		i += size
	}
	return false
}

// legible holds for characters that a topology may contain, literally or escaped.
func legible(r rune) bool {
	return r == '\n' || r == '\r' || r == '\t' || unicode.IsGraphic(r) && r != unicode.ReplacementChar || unicode.Is(unicode.Cf, r) && r != '\uFEFF' && !bidirectional(r)
}

// bidirectional characters make a line read otherwise than it is.
func bidirectional(r rune) bool {
	return '\u202A' <= r && r <= '\u202E' || '\u2066' <= r && r <= '\u2069'
}

// yaml.v3 has no type for syntax errors: their line is only in the text.
var (
	syntaxError   = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?s:(.*))$`)
	unknownAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced$`)
)

func (s *source) syntax(err error, data []byte) {
	where, what := position{1, 1}, err.Error()
	if m := unknownAnchor.FindStringSubmatch(what); m != nil {
		s.note(positionOf(data, "*"+m[1]), "", "alias *"+show(m[1])+" has no anchor before it", "write &"+show(m[1])+" in front of the value that is meant")
		return
	}
	if m := syntaxError.FindStringSubmatch(what); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			where.line = line
		}
		what = m[2]
	}
	s.note(where, "", "this is not YAML: "+printable(what), "look at this line and the one before it: indentation (no tabs), colons, brackets, quotes")
}

// positionOf is where the text stands for the first time.
func positionOf(data []byte, text string) position {
	before, _, found := bytes.Cut(data, []byte(text))
	if !found {
		return position{}
	}
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	return position{bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(line) + 1}
}

// maxShown bounds, in bytes, how much of a value a message repeats.
const maxShown = 64

// show is a value of the file as messages repeat it: short, and without
// anything that a terminal would take for more than text.
func show(value string) string {
	short := value
	if len(short) > maxShown {
		short = strings.ToValidUTF8(short[:maxShown], "") + "…"
	}
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r == ' ' || r == '"' || !unicode.IsPrint(r) }) {
		return strconv.Quote(short)
	}
	return short
}

// printable is a text of more than one word without control characters.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
	if len(text) > 4*maxShown {
		text = strings.ToValidUTF8(text[:4*maxShown], "") + "…"
	}
	return text
}
