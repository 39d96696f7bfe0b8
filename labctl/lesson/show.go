package lesson

import (
	"strings"
	"unicode"

	"github.com/native-routing/labctl/labctl/ui"
)

// indent is what code and items stand in by.
const indent = "    "

// Show returns blocks as lines for a terminal of so many columns. Code is never
// broken: it is there to be copied.
func Show(blocks []Block, style ui.Style, columns int) []string {
	var lines []string
	for i, b := range blocks {
		if i > 0 && (b.Kind != Item || blocks[i-1].Kind != Item) {
			lines = append(lines, "")
		}
		switch b.Kind {
		case Code, Commands:
			for _, line := range b.Lines {
				line = printable(line)
				if b.Kind == Commands {
					line = style.Bold(line)
				}
				lines = append(lines, strings.TrimRight(indent+line, " "))
			}
		case Item:
			lead := "  " + b.Marker + " "
			for j, line := range ui.Wrap(words(b.Spans, style), columns-len(lead)) {
				if j > 0 {
					lead = strings.Repeat(" ", len(lead))
				}
				lines = append(lines, lead+line)
			}
		case Heading:
			lines = append(lines, style.Bold(printable(plain(b.Spans))))
		default:
			lines = append(lines, ui.Wrap(words(b.Spans, style), columns)...)
		}
	}
	return lines
}

// words are spans in one line. What is typed as it stands is told from the rest
// by how it looks, or by quotes where looks are not to be had.
func words(spans []Span, style ui.Style) string {
	var b strings.Builder
	for _, s := range spans {
		text := printable(s.Text)
		switch {
		case s.Look == Plain:
		case s.Look == Literal && style.Bold("x") == "x":
			text = "`" + text + "`"
		default:
			text = style.Bold(text)
		}
		b.WriteString(text)
	}
	return b.String()
}

// printable takes out what would move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
}
