package vagrant

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quote writes s as a single-quoted Ruby literal, in which only the backslash
// and the quote mean something. Control characters and what is no UTF-8 are an
// error: Ruby would read some of them as others (a CR LF as one LF).
func quote(s string) (string, error) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return "", fmt.Errorf("%q cannot stand in a Vagrantfile (use printable characters)", s)
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'", nil
}
