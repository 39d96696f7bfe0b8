package ui

import (
	"io"
	"runtime"
	"strings"
)

// Style colours words. Colour only stresses: what is printed must say the same
// without it. The zero Style leaves text as it is.
type Style struct {
	colour  bool
	unicode bool
}

// NewStyle returns the style for w: plain unless w is a terminal that takes
// colours, and the environment has neither NO_COLOR (https://no-color.org) nor
// TERM=dumb. env is os.Getenv, or a test's own.
func NewStyle(w io.Writer, env func(string) string) Style {
	if !capable(w, env) {
		return Style{}
	}
	return Style{colour: env("NO_COLOR") == "", unicode: hasUnicode(env)}
}

// capable reports whether w is a terminal that understands control sequences.
func capable(w io.Writer, env func(string) string) bool {
	return env("TERM") != "dumb" && isTerminal(w)
}

// hasUnicode reports whether the terminal has glyphs beyond ASCII. The kernel's
// own console (TERM=linux) takes UTF-8 but its font lacks them.
func hasUnicode(env func(string) string) bool {
	if runtime.GOOS == "windows" {
		return true
	}
	if env("TERM") == "linux" {
		return false
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(env(name)); locale != "" {
			return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
		}
	}
	return false
}

// Good marks what is as it should be.
func (s Style) Good(text string) string { return s.sgr("32", "39", text) }

// Bad marks a failure.
func (s Style) Bad(text string) string { return s.sgr("31", "39", text) }

// Warn marks what deserves a look.
func (s Style) Warn(text string) string { return s.sgr("33", "39", text) }

// Dim marks what may be passed over.
func (s Style) Dim(text string) string { return s.sgr("2", "22", text) }

// Bold marks a heading.
func (s Style) Bold(text string) string { return s.sgr("1", "22", text) }

// sgr ends a colour by its own code and not by a reset, so that styles nest.
func (s Style) sgr(on, off, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + on + "m" + text + "\x1b[" + off + "m"
}
