package remote

import (
	"errors"
	"fmt"
	"strings"
)

// plain are the characters that no login shell gives a meaning to.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@+"

// quote makes one word of s for the node's login shell: sh, bash, dash, ksh, zsh,
// or fish, in which a backslash escapes within single quotes too and so must
// stand outside of them.
func quote(s string) string {
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	var b strings.Builder
	b.WriteByte('\'')
	for i := range len(s) {
		switch c := s[i]; c {
		case '\'', '\\':
			b.WriteString(`'\`)
			b.WriteByte(c)
			b.WriteByte('\'')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// markName is the variable in the environment of what one run started.
const markName = "LABCTL_RUN"

// path is what PATH is for root: sshd and sudo leave out the sbin directories on
// some systems.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var errArgument = errors.New("cannot be passed on")

// line is the command line for the node's login shell. A command without a mark
// cannot be found again.
func line(become, environment, argv []string, mark string) (string, error) {
	words := append([]string{"exec"}, become...)
	words = append(words, "env", path)
	if mark != "" {
		words = append(words, markName+"="+mark)
	}
	for _, e := range environment {
		name, _, ok := strings.Cut(e, "=")
		if !ok || !variable(name) {
			return "", fmt.Errorf("environment %q: %w (want NAME=VALUE)", e, errArgument)
		}
	}
	words = append(words, environment...)
	switch {
	case len(argv) == 0 || argv[0] == "":
		return "", fmt.Errorf("no command: %w", errArgument)
	case strings.ContainsRune(argv[0], '=') || argv[0][0] == '-':
		return "", fmt.Errorf("command %q: %w (env takes it for its own)", argv[0], errArgument)
	}
	words = append(words, argv...)
	for _, w := range words {
		if strings.IndexByte(w, 0) >= 0 {
			return "", fmt.Errorf("%q: %w (a NUL byte)", w, errArgument)
		}
	}
	return quoteAll(words), nil
}

func variable(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	return name != "" && strings.Trim(name, letters+"0123456789") == "" && strings.Contains(letters, name[:1])
}
