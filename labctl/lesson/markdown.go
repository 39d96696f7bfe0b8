package lesson

import (
	"strconv"
	"strings"

	"github.com/yuin/goldmark/ast"
)

// blocks turns a node of a document into what a terminal can show. What it
// cannot is a mistake, so that nothing of a lesson is lost on the way.
func (r *reader) blocks(n ast.Node) []Block {
	switch n := n.(type) {
	case *ast.Paragraph, *ast.TextBlock:
		return []Block{{Kind: Paragraph, Spans: r.spans(n)}}
	case *ast.Heading:
		return []Block{{Kind: Heading, Spans: r.spans(n)}}
	case *ast.List:
		return r.items(n)
	case *ast.FencedCodeBlock:
		return []Block{r.fenced(n)}
	}
	r.wrong(r.line(n), "a lesson has paragraphs, lists, headings and fenced code; this is %s", kindText(n))
	return nil
}

// fenced is a block of code or of commands to be tried.
func (r *reader) fenced(n *ast.FencedCodeBlock) Block {
	b := Block{Kind: Code}
	switch language := string(n.Language(r.source)); language {
	case fenceCommands:
		b.Kind = Commands
	case fenceText:
	case fenceCheck, fenceHint, fenceSolution:
		r.wrong(r.line(n), "a %s belongs to a step, after its heading (## Title {#name})", language)
	default:
		r.wrong(r.line(n), "a block of %q; there are %s, %s, %s, %s and %s", language, fenceCommands, fenceCheck, fenceHint, fenceSolution, fenceText)
	}
	lines := n.Lines()
	for i := range lines.Len() {
		segment := lines.At(i)
		b.Lines = append(b.Lines, strings.TrimRight(string(segment.Value(r.source)), "\r\n"))
	}
	return b
}

// items are those of a list. A list within a list would need more than a line
// of a terminal has.
func (r *reader) items(list *ast.List) (blocks []Block) {
	number := list.Start
	for item := list.FirstChild(); item != nil; item = item.NextSibling() {
		b := Block{Kind: Item, Marker: "-"}
		if list.IsOrdered() {
			b.Marker = strconv.Itoa(number) + "."
			number++
		}
		for n := item.FirstChild(); n != nil; n = n.NextSibling() {
			switch n.(type) {
			case *ast.Paragraph, *ast.TextBlock:
				if len(b.Spans) > 0 {
					b.Spans = append(b.Spans, Span{Text: " "})
				}
				b.Spans = append(b.Spans, r.spans(n)...)
			default:
				r.wrong(r.line(n), "an item of a list has text alone; this is %s", kindText(n))
			}
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// spans are the words of a node.
func (r *reader) spans(n ast.Node) (spans []Span) {
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		switch c := c.(type) {
		case *ast.Text:
			words := string(c.Segment.Value(r.source))
			if c.SoftLineBreak() || c.HardLineBreak() {
				words += " "
			}
			spans = append(spans, Span{Text: words})
		case *ast.String:
			spans = append(spans, Span{Text: string(c.Value)})
		case *ast.CodeSpan:
			spans = append(spans, Span{Text: plain(r.spans(c)), Look: Literal})
		case *ast.Emphasis:
			spans = append(spans, Span{Text: plain(r.spans(c)), Look: Strong})
		case *ast.AutoLink:
			spans = append(spans, Span{Text: string(c.URL(r.source))})
		case *ast.Link:
			spans = append(spans, r.spans(c)...)
			spans = append(spans, Span{Text: " (" + string(c.Destination) + ")"})
		default:
			r.wrong(r.line(n), "a terminal cannot show %s", kindText(c))
		}
	}
	return spans
}

func plain(spans []Span) string {
	var b strings.Builder
	for _, s := range spans {
		b.WriteString(s.Text)
	}
	return strings.TrimSpace(b.String())
}

func kindText(n ast.Node) string { return "a Markdown " + n.Kind().String() }
