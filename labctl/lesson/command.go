package lesson

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Program is what every command of a lesson runs.
const Program = "labctl"

// Command is a labctl command line. No shell sees it.
type Command struct {
	// Args are those after the program's name.
	Args []string
}

// String is the command as it is written in a lesson, and typed into a shell.
func (c Command) String() string {
	words := []string{Program}
	for _, a := range c.Args {
		words = append(words, quoted(a))
	}
	return strings.Join(words, " ")
}

// quoted is a word as a line of a lesson has it.
func quoted(word string) string {
	if word == "" || word == "|" || strings.ContainsFunc(word, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(special, r)
	}) {
		return strconv.Quote(word)
	}
	return word
}

// special are the characters that mean something to a shell: outside of quotes
// they are refused, so that no line looks like more than it is.
const special = "\"'`$<>&;|\\*?()#"

// ParseCommand reads one line: words between spaces, of which those in double
// quotes may hold anything. It must call labctl, and no lesson.
func ParseCommand(line string) (Command, error) {
	parts, err := split(line)
	if err != nil {
		return Command{}, err
	}
	if len(parts) != 1 {
		return Command{}, errors.New("no | here: a command is one call of labctl")
	}
	return command(parts[0])
}

func command(words []string) (Command, error) {
	switch {
	case len(words) == 0 || words[0] != Program:
		return Command{}, fmt.Errorf("a command begins with %s (labctl exec NODE -- COMMAND runs one on a node)", Program)
	case len(words) == 1:
		return Command{}, fmt.Errorf("%s alone does nothing: say what it is to do", Program)
	}
	for _, w := range words[1:] {
		if w == "--" {
			break
		}
		if slices.Contains([]string{"lesson", "ssh"}, w) {
			return Command{}, fmt.Errorf("labctl %s waits for somebody at a terminal", w)
		}
	}
	return Command{Args: words[1:]}, nil
}

// split cuts a line into parts between bars, and each part into words.
func split(line string) ([][]string, error) {
	parts := [][]string{nil}
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimLeftFunc(rest, unicode.IsSpace) {
		last := &parts[len(parts)-1]
		switch {
		case rest[0] == '|':
			parts, rest = append(parts, nil), rest[1:]
			continue
		case rest[0] == '"':
			literal, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return nil, fmt.Errorf("a quote that does not end: %s", rest)
			}
			word, err := strconv.Unquote(literal)
			if err != nil {
				return nil, fmt.Errorf("%s is no quoted text: %w", literal, err)
			}
			if rest = rest[len(literal):]; rest != "" && !unicode.IsSpace(rune(rest[0])) {
				return nil, fmt.Errorf("a space is missing after %s", literal)
			}
			*last = append(*last, word)
			continue
		}
		end := strings.IndexFunc(rest, unicode.IsSpace)
		if end < 0 {
			end = len(rest)
		}
		word := rest[:end]
		if at := strings.IndexAny(word, special); at >= 0 {
			return nil, fmt.Errorf("%q in %s: there is no shell here (put the word into double quotes)", word[at:at+1], word)
		}
		*last, rest = append(*last, word), rest[end:]
	}
	return parts, nil
}
