package ui

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"
)

// Duration returns d as a reader wants it: 0.08s, 1.4s, 2m03s, 1h02m.
func Duration(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d.Round(10*time.Millisecond) < time.Second:
		return fmt.Sprintf("%.2fs", d.Round(10*time.Millisecond).Seconds())
	case d.Round(100*time.Millisecond) < time.Minute:
		return fmt.Sprintf("%.1fs", d.Round(100*time.Millisecond).Seconds())
	case d.Round(time.Second) < time.Hour:
		s := int(d.Round(time.Second).Seconds())
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	default:
		m := int(d.Round(time.Minute).Minutes())
		return fmt.Sprintf("%dh%02dm", m/60, m%60)
	}
}

// Plural returns a count with its noun: "1 node", "3 nodes", "2 addresses".
func Plural(n int, noun string) string {
	if n != 1 {
		noun = plural(noun)
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func plural(noun string) string {
	for _, hiss := range []string{"s", "x", "ch", "sh"} {
		if strings.HasSuffix(noun, hiss) {
			return noun + "es"
		}
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok && strings.TrimRight(stem, "aeiou") == stem {
		return stem + "ies"
	}
	return noun + "s"
}

// Wrap breaks prose into lines of at most width columns, between words and never
// within one: k8s-w0 is a name. None where there are no words.
func Wrap(text string, width int) []string {
	var lines []string
	for _, word := range strings.Fields(text) {
		last := len(lines) - 1
		if last < 0 || ansi.StringWidth(lines[last])+1+ansi.StringWidth(word) > width {
			lines = append(lines, word)
			continue
		}
		lines[last] += " " + word
	}
	return lines
}

// firstLine returns the first line of s that is not blank, without terminal
// sequences: what comes from elsewhere must not move the cursor.
func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(ansi.Strip(s)), "\n")
	return strings.TrimRight(flatten(line), " ")
}

// flatten turns what would break a line into spaces, and leaves colours alone.
func flatten(s string) string {
	return strings.Map(func(r rune) rune {
		if r != ansi.ESC && unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-ansi.StringWidth(s), 0))
}
