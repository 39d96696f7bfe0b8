package ui

import (
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Screen is a block of lines on a terminal that is drawn anew in its place. Like
// [Progress] it hides no cursor and sets no mode: what it drew last stays.
type Screen struct {
	w     io.Writer
	drawn int
}

// NewScreen returns a screen on w; false where w is no terminal that understands
// control sequences. env is os.Getenv, or a test's own.
func NewScreen(w io.Writer, env func(string) string) (*Screen, bool) {
	return &Screen{w: w}, capable(w, env)
}

// Show draws lines in place of those of before, as many as fit on the terminal.
func (s *Screen) Show(lines []string) error {
	_, height := terminalSize(s.w)
	if limit := max(height-1, 1); len(lines) > limit {
		lines = append(lines[:limit-1:limit-1], "...")
	}
	text := repaint(s.w, s.drawn, lines, "...")
	s.drawn = len(lines)
	_, err := io.WriteString(s.w, text)
	return err
}

// repaint is what draws lines over the drawn ones above the cursor, and leaves
// the cursor under them at a line's start, where the terminal's own echo of
// Ctrl-C does no harm.
func repaint(w io.Writer, drawn int, lines []string, ellipsis string) string {
	columns, _ := terminalSize(w)
	var b strings.Builder
	b.WriteByte('\r')
	if drawn > 0 {
		b.WriteString(ansi.CursorUp(drawn))
	}
	for _, line := range lines {
		// A line that fills its last column would leave the cursor in a place
		// on which terminals disagree.
		b.WriteString(ansi.Truncate(strings.TrimRight(line, "\n"), columns-1, ellipsis))
		b.WriteString(ansi.EraseLineRight + "\n")
	}
	b.WriteString(ansi.EraseScreenBelow)
	return b.String()
}
