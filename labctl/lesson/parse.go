package lesson

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"gopkg.in/yaml.v3"
)

// maxSize bounds a lesson, in bytes.
const maxSize = 1 << 20

// The fenced blocks that mean something, by the word after the fence.
const (
	fenceCommands = "console"
	fenceCheck    = "check"
	fenceHint     = "hint"
	fenceSolution = "solution"
	fenceText     = "text"
)

// Parse reads a lesson: CommonMark whose front matter has title, topology and
// language, and whose second-level headings, each with an {#id}, begin its steps.
// Whatever is wrong with it is told at once, as Errors.
func Parse(file string, source []byte) (*Lesson, error) {
	r := &reader{file: file, source: source}
	lesson := r.read()
	if len(r.mistakes) > 0 {
		slices.SortStableFunc(r.mistakes, func(a, b Mistake) int { return a.Line - b.Line })
		return nil, r.mistakes
	}
	return lesson, nil
}

// reader turns a file into a lesson.
type reader struct {
	file     string
	source   []byte
	skipped  int // lines before source in the file
	mistakes Errors
}

func (r *reader) wrong(line int, format string, args ...any) {
	r.mistakes = append(r.mistakes, Mistake{File: r.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

func (r *reader) read() *Lesson {
	if len(r.source) > maxSize {
		r.wrong(1, "the file has more than %d bytes", maxSize)
		return nil
	}
	lesson := &Lesson{}
	if !r.frontMatter(lesson) {
		return nil
	}
	document := markdown().Parse(text.NewReader(r.source))
	for n := document.FirstChild(); n != nil; n = n.NextSibling() {
		if heading, ok := n.(*ast.Heading); ok && heading.Level <= 2 {
			r.begin(lesson, heading)
			continue
		}
		if len(lesson.Steps) == 0 {
			lesson.Intro = append(lesson.Intro, r.blocks(n)...)
			continue
		}
		r.add(&lesson.Steps[len(lesson.Steps)-1], n)
	}
	r.finish(lesson)
	return lesson
}

func markdown() parser.Parser {
	return goldmark.New(goldmark.WithParserOptions(parser.WithHeadingAttribute())).Parser()
}

// frontMatter reads what stands between two lines of three dashes, and cuts it
// off; false where it is not there.
func (r *reader) frontMatter(lesson *Lesson) bool {
	const fence = "---\n"
	rest, begins := bytes.CutPrefix(r.source, []byte(fence))
	front, body, ends := bytes.Cut(rest, []byte("\n"+fence))
	if !begins || !ends {
		r.wrong(1, "a lesson begins with --- and title:, topology: and language: up to the next ---")
		return false
	}
	r.skipped = bytes.Count(r.source[:len(r.source)-len(body)], []byte("\n"))
	r.source = body
	var matter map[string]string
	if err := yaml.Unmarshal(front, &matter); err != nil {
		r.wrong(1, "front matter: %s", strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "yaml: "))
		return true
	}
	lesson.Title, lesson.Topology, lesson.Language = matter["title"], matter["topology"], matter["language"]
	keys := []string{"title", "topology", "language"}
	for _, key := range keys {
		if strings.TrimSpace(matter[key]) == "" {
			r.wrong(1, "front matter: %s is missing", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(matter)) {
		if !slices.Contains(keys, key) {
			r.wrong(1, "front matter: there is no key %q; there are %s", key, strings.Join(keys, ", "))
		}
	}
	return true
}

// line is the place of a node in the file.
func (r *reader) line(n ast.Node) int { return r.lineAt(n.Pos()) }

func (r *reader) lineAt(offset int) int {
	return r.skipped + 1 + bytes.Count(r.source[:min(max(offset, 0), len(r.source))], []byte("\n"))
}

// begin begins a step with its heading.
func (r *reader) begin(lesson *Lesson, heading *ast.Heading) {
	line := r.line(heading)
	step := Step{Title: plain(r.spans(heading)), Line: line}
	if heading.Level == 1 {
		r.wrong(line, "a step begins with ##; the title of the lesson is in the front matter")
	}
	if id, ok := heading.AttributeString("id"); ok {
		if name, ok := id.([]byte); ok {
			step.ID = string(name)
		}
	}
	switch {
	case step.Title == "":
		r.wrong(line, "a step needs a title")
	case !isID(step.ID):
		r.wrong(line, "step %q needs a name of small letters, digits and dashes at the end of its heading: ## %s {#name}", step.Title, step.Title)
	case slices.ContainsFunc(lesson.Steps, func(s Step) bool { return s.ID == step.ID }):
		r.wrong(line, "there is a step {#%s} already", step.ID)
	}
	lesson.Steps = append(lesson.Steps, step)
}

// isID keeps names apart from numbers of steps.
func isID(name string) bool {
	return name != "" && len(name) <= 40 && name[0] >= 'a' && name[0] <= 'z' &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// add adds what a node is to a step.
func (r *reader) add(step *Step, n ast.Node) {
	fenced, ok := n.(*ast.FencedCodeBlock)
	if !ok {
		step.Body = append(step.Body, r.blocks(n)...)
		return
	}
	switch string(fenced.Language(r.source)) {
	case fenceCheck:
		r.each(fenced, func(line int, text string) error {
			check, err := ParseCheck(text)
			check.Line = line
			step.Checks = append(step.Checks, check)
			return err
		})
	case fenceSolution:
		step.Solution = append(step.Solution, r.commands(fenced)...)
	case fenceHint:
		step.Hints = append(step.Hints, r.hint(fenced))
	case fenceCommands:
		step.Commands = append(step.Commands, r.commands(fenced)...)
		fallthrough
	default:
		step.Body = append(step.Body, r.blocks(n)...)
	}
}

// each reads the lines of a block, of which those that are empty or begin with
// # say nothing.
func (r *reader) each(block *ast.FencedCodeBlock, read func(line int, text string) error) {
	lines := block.Lines()
	for i := range lines.Len() {
		segment := lines.At(i)
		content := strings.TrimSpace(string(segment.Value(r.source)))
		if content == "" || content[0] == '#' {
			continue
		}
		if err := read(r.lineAt(segment.Start), content); err != nil {
			r.wrong(r.lineAt(segment.Start), "%v", err)
		}
	}
	if lines.Len() == 0 {
		r.wrong(r.line(block), "an empty block")
	}
}

func (r *reader) commands(block *ast.FencedCodeBlock) (commands []Command) {
	r.each(block, func(_ int, text string) error {
		c, err := ParseCommand(text)
		commands = append(commands, c)
		return err
	})
	return commands
}

// hint reads the text of a hint, which is Markdown itself.
func (r *reader) hint(block *ast.FencedCodeBlock) []Block {
	lines := block.Lines()
	if lines.Len() == 0 {
		r.wrong(r.line(block), "an empty hint")
		return nil
	}
	inner := &reader{file: r.file, source: lines.Value(r.source), skipped: r.lineAt(lines.At(0).Start) - 1}
	var blocks []Block
	document := markdown().Parse(text.NewReader(inner.source))
	for n := document.FirstChild(); n != nil; n = n.NextSibling() {
		blocks = append(blocks, inner.blocks(n)...)
	}
	r.mistakes = append(r.mistakes, inner.mistakes...)
	return blocks
}

// finish looks at the lesson as a whole.
func (r *reader) finish(lesson *Lesson) {
	if len(lesson.Steps) == 0 && len(r.mistakes) == 0 {
		r.wrong(r.skipped+1, "a lesson needs steps (## Title {#name})")
	}
	for _, s := range lesson.Steps {
		if len(s.Checks) == 0 && len(s.Solution)+len(s.Hints) > 0 {
			r.wrong(s.Line, "step %s has hints or a solution, and no check that says whether it is done", s.ID)
		}
	}
}
