package ui

import (
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

const columnGap = "   "

// Grid is rows of cells in aligned columns. Cells may bear a [Style]'s colours
// and wide characters; both are aligned by what is seen.
type Grid struct {
	// Indent stands before every line.
	Indent string
	header []string
	rows   [][]string
}

// NewGrid returns a grid with a header; without any it has rows alone.
func NewGrid(header ...string) *Grid {
	return &Grid{header: header}
}

// Row adds a row. It may have fewer or more cells than the header.
func (g *Grid) Row(cells ...string) {
	g.rows = append(g.rows, cells)
}

// Len returns the number of rows, without the header.
func (g *Grid) Len() int { return len(g.rows) }

// Write prints the header and rows, with three spaces between columns and none
// at a line's end. It fits [Write] as its table.
func (g *Grid) Write(w io.Writer) error {
	lines := g.rows
	if len(g.header) > 0 {
		lines = append([][]string{g.header}, lines...)
	}
	widths := columnWidths(lines)
	var b strings.Builder
	for _, cells := range lines {
		b.WriteString(strings.TrimRight(g.Indent+joinCells(cells, widths), " "))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func columnWidths(lines [][]string) []int {
	var widths []int
	for _, cells := range lines {
		for i, cell := range cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], ansi.StringWidth(flatten(cell)))
		}
	}
	return widths
}

func joinCells(cells []string, widths []int) string {
	var b strings.Builder
	for i, cell := range cells {
		if i > 0 {
			b.WriteString(columnGap)
		}
		b.WriteString(pad(flatten(cell), widths[i]))
	}
	return b.String()
}
