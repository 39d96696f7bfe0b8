package lang

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/text/language"
)

// English is the language of the keys.
const English = "en"

// Names lists the languages that labctl speaks, English first.
func Names() []string { return []string{English, "ko"} }

// For returns the printer of a language that is named as BCP 47 does (ko,
// ko-KR); an error that lists the languages where labctl does not speak it.
func For(name string) (Printer, error) {
	tag, err := language.Parse(name)
	if err == nil {
		if matched, ok := match(tag); ok {
			return load(matched)
		}
	}
	return Printer{}, fmt.Errorf("labctl does not speak %q (it speaks %s)", name, strings.Join(Names(), ", "))
}

// FromLocale returns the printer of the environment's language: of LC_ALL,
// LC_MESSAGES and LANG the first that is set decides, as locale(7) has it.
// It speaks English where that is a language which labctl does not speak.
func FromLocale(env func(string) string) (Printer, error) {
	locale := cmp.Or(env("LC_ALL"), env("LC_MESSAGES"), env("LANG"))
	locale, _, _ = strings.Cut(locale, ".") // ko_KR.UTF-8
	locale, _, _ = strings.Cut(locale, "@") // de_DE@euro
	tag, err := language.Parse(locale)      // takes ko_KR as ko-KR, and neither C nor POSIX
	if err != nil {
		return Printer{}, nil
	}
	name, _ := match(tag)
	return load(name)
}

// match finds the language that labctl speaks and that serves who asked for tag.
func match(tag language.Tag) (string, bool) {
	spoken := make([]language.Tag, len(Names()))
	for i, name := range Names() {
		spoken[i] = language.Make(name)
	}
	_, i, confidence := language.NewMatcher(spoken).Match(tag)
	if confidence == language.No {
		return English, false
	}
	return Names()[i], true
}

// load reads a language's catalogue.
func load(name string) (Printer, error) {
	if name == English || !slices.Contains(Names(), name) {
		return Printer{}, nil
	}
	translate, err := translator(name)
	if err != nil {
		return Printer{}, err
	}
	return Printer{name: name, translate: translate}, nil
}
