package lang

import (
	"embed"
	"encoding/json"
	"fmt"
	"path"

	"golang.org/x/text/language"
	"golang.org/x/text/message/catalog"
)

//go:embed ko/*.json
var files embed.FS

// Messages reads the translations into a language: for each file its own, by
// their English formats.
func Messages(name string) (map[string]map[string]string, error) {
	entries, err := files.ReadDir(name)
	if err != nil {
		return nil, fmt.Errorf("read the catalogue of %s: %w", name, err)
	}
	all := map[string]map[string]string{}
	for _, e := range entries {
		data, err := files.ReadFile(path.Join(name, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the catalogue of %s: %w", name, err)
		}
		var messages map[string]string
		if err := json.Unmarshal(data, &messages); err != nil {
			return nil, fmt.Errorf("read the catalogue %s: %w", path.Join(name, e.Name()), err)
		}
		all[e.Name()] = messages
	}
	return all, nil
}

// translator returns what looks formats up in a language's catalogue.
func translator(name string) (func(string) (string, bool), error) {
	tag := language.Make(name)
	built := catalog.NewBuilder(catalog.Fallback(tag))
	messages, err := Messages(name)
	if err != nil {
		return nil, err
	}
	for _, file := range messages {
		for english, format := range file {
			if err := built.SetString(tag, english, format); err != nil {
				return nil, fmt.Errorf("%s: translation of %q: %w", name, english, err)
			}
		}
	}
	return func(english string) (string, bool) {
		var found format
		err := built.Context(tag, &found).Execute(english)
		return string(found), err == nil
	}, nil
}

// format takes a message from the catalogue as it stands there: message.Printer
// would group the digits of its numbers, and a port is no 8,080.
type format string

// Render is catalog's: it gets the message.
func (f *format) Render(message string) { *f = format(message) }

// Arg is catalog's: no message depends on its arguments.
func (f *format) Arg(int) any { return nil }
