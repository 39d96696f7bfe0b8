package manifest

import (
	"strconv"
	"strings"
	"unicode"

	"github.com/agnivade/levenshtein"
)

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

// meant is the cure for a word that is none of the candidates.
func meant(word, what string, candidates []string) string {
	if near := nearest(word, candidates); near != "" {
		return "did you mean " + near + "?"
	}
	return what + " " + strings.Join(candidates, ", ")
}

// nearest returns the candidate that takes the fewest edits to get from word, if
// those are few; empty otherwise.
func nearest(word string, candidates []string) string {
	best, fewest := "", min(1+max(1, (len(word)+1)/3), len(word))
	if len(word) > maxShown {
		return ""
	}
	for _, c := range candidates {
		if edits := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(c)); edits < fewest {
			best, fewest = c, edits
		}
	}
	return best
}
