package topo

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// maxCandidates bounds how many names are compared with one that is unknown.
const maxCandidates = 256

// nearest returns the candidate that was probably meant by word: the one that
// takes the fewest edits, if those are few; empty otherwise.
func nearest(word string, candidates []string) string {
	best, fewest := "", min(1+max(1, (len(word)+1)/3), len(word))
	if len(word) > maxShown || len(candidates) > maxCandidates {
		return ""
	}
	for _, c := range candidates {
		if len(c) > maxShown {
			continue
		}
		if edits := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(c)); edits < fewest {
			best, fewest = c, edits
		}
	}
	return best
}
