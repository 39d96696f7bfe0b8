// Package lang says to a student, in the student's language, what labctl found.
//
// An English format is the key of its translation, so whoever writes a sentence
// writes it whole, in one call, as it reads in English. The translations into a
// language are the files of its folder: ko/check.json maps the English formats
// of labctl/check to Korean ones.
package lang

import (
	"fmt"
	"strings"
)

// Printer puts sentences into one language. The zero Printer speaks English.
// It may be used by several goroutines at once.
type Printer struct {
	// name is the language's; empty in English.
	name string
	// translate returns another language's format for an English one, and false
	// where there is none. It is nil in English.
	translate func(english string) (string, bool)
}

// Language is the printer's language, as --lang takes it: "en", "ko".
func (p Printer) Language() string {
	if p.name == "" {
		return English
	}
	return p.name
}

// Sprintf formats as fmt.Sprintf does, with the translation of the format
// where the printer's language has one, and with english itself otherwise. A
// translation may name its arguments by their index (%[2]s). Numbers are never
// grouped: a port is 8080 in every language.
func (p Printer) Sprintf(english string, args ...any) string {
	if p.translate != nil {
		if format, ok := p.translate(english); ok {
			return fmt.Sprintf(format, args...)
		}
	}
	return fmt.Sprintf(english, args...)
}

// Text returns the translation of a text that is no format, such as what a
// topology says of its stages; the text itself where there is none.
func (p Printer) Text(english string) string {
	var none []any
	return p.Sprintf(strings.ReplaceAll(english, "%", "%%"), none...)
}
