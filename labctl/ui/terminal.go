package ui

import (
	"io"

	"golang.org/x/term"
)

// descriptor is what an *os.File has and a buffer has not.
type descriptor interface{ Fd() uintptr }

func isTerminal(w io.Writer) bool {
	f, ok := w.(descriptor)
	return ok && term.IsTerminal(int(f.Fd())) && enableSequences(f.Fd())
}

// terminalSize returns the columns and lines of w, or those of the classic
// terminal where w does not tell.
func terminalSize(w io.Writer) (columns, lines int) {
	if f, ok := w.(descriptor); ok {
		columns, lines, err := term.GetSize(int(f.Fd()))
		if err == nil && columns > 0 && lines > 0 {
			return columns, lines
		}
	}
	return 80, 24
}
