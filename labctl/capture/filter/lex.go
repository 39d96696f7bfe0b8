package filter

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// token is a word, a number, an address or an operator.
type token struct {
	kind   kind
	text   string
	offset int
}

type kind int

const (
	tokenEnd      kind = iota
	tokenWord          // tcp, 80, 10.0.0.1, 80-90, curl-pod
	tokenEscaped       // \tcp, without the backslash
	tokenMAC           // 08:00:27:00:00:01
	tokenIPv6          // fe80::1
	tokenOperator      // ( ) [ ] : and what calculates and compares
)

var (
	wordPattern = regexp.MustCompile(`^[A-Za-z0-9_]([-.A-Za-z0-9_]*[A-Za-z0-9_])?`)
	macPattern  = regexp.MustCompile(`^[0-9A-Fa-f]{1,2}([:-][0-9A-Fa-f]{1,2}){5}`)
	ipv6Pattern = regexp.MustCompile(`^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*`)
)

// operators, the longer ones first.
func operators() []string {
	return []string{
		"&&", "||", "<<", ">>", "==", "!=", "<=", ">=",
		"!", "(", ")", "[", "]", ":", "+", "-", "*", "/", "%", "&", "|", "^", "=", "<", ">",
	}
}

// lex splits an expression into tokens, of which the last is the end.
func lex(expression string) ([]token, *Error) {
	var tokens []token
	symbols := operators()
	for at := 0; at < len(expression); {
		rest := expression[at:]
		if strings.ContainsRune(" \t\r\n", rune(rest[0])) {
			at++
			continue
		}
		t := next(rest, symbols)
		if t.text == "" {
			return nil, &Error{expression, at, 1, "this character has no meaning"}
		}
		t.offset = at
		at += len(t.text)
		if t.kind == tokenEscaped {
			t.text = t.text[1:]
		}
		tokens = append(tokens, t)
	}
	return append(tokens, token{offset: len(expression)}), nil
}

// next is the token that a text begins with; without text where there is none.
func next(rest string, symbols []string) token {
	if mac := macPattern.FindString(rest); mac != "" && !wordGoesOn(rest[len(mac):]) {
		return token{kind: tokenMAC, text: mac}
	}
	if six := ipv6Pattern.FindString(rest); six != "" && strings.Count(six, ":") > 1 {
		if _, err := netip.ParseAddr(six); err == nil {
			return token{kind: tokenIPv6, text: six}
		}
	}
	if strings.HasPrefix(rest, `\`) {
		if word := wordPattern.FindString(rest[1:]); word != "" {
			return token{kind: tokenEscaped, text: rest[:1+len(word)]}
		}
	}
	if word := wordPattern.FindString(rest); word != "" {
		return token{kind: tokenWord, text: word}
	}
	if i := slices.IndexFunc(symbols, func(s string) bool { return strings.HasPrefix(rest, s) }); i >= 0 {
		return token{kind: tokenOperator, text: symbols[i]}
	}
	return token{}
}

func wordGoesOn(rest string) bool {
	return rest != "" && (rest[0] == ':' || wordPattern.MatchString(rest))
}
