// Package lang says to a student, in the student's language, what labctl found.
//
// An English format is the key of its translation, so whoever writes a sentence
// writes it whole, in one call, as it reads in English.
package lang

import "fmt"

// Printer puts sentences into one language. The zero Printer speaks English.
// It may be used by several goroutines at once.
type Printer struct {
	// translate returns another language's format for an English one, and false
	// where there is none. It is nil in English.
	translate func(english string) (string, bool)
}

// Sprintf formats as fmt.Sprintf does, with the translation of the format
// where the printer's language has one, and with english itself otherwise. A
// translation may name its arguments by their index (%[2]s).
func (p Printer) Sprintf(english string, args ...any) string {
	if p.translate != nil {
		if format, ok := p.translate(english); ok {
			return fmt.Sprintf(format, args...)
		}
	}
	return fmt.Sprintf(english, args...)
}
