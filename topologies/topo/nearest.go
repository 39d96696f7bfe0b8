package topo

import "strings"

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
		if edits := distance(strings.ToLower(word), strings.ToLower(c)); edits < fewest {
			best, fewest = c, edits
		}
	}
	return best
}

// distance counts the bytes to insert, delete or replace to turn a into b
// (Levenshtein's distance).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
