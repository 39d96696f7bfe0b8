package topologies

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// lessonsDir holds the lessons: NAME.md in English, NAME.LANGUAGE.md in others.
const lessonsDir = "lessons"

// Lessons lists the shipped lessons by name.
func Lessons() []string {
	var names []string
	entries, _ := files.ReadDir(lessonsDir) // the embedded folder is always there
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name(), ".md"); !strings.Contains(name, ".") {
			names = append(names, name)
		}
	}
	return names
}

// Lesson reads a shipped lesson in a language, or in English where it was not
// translated, and says which file that is; ErrNotShipped where there is none.
func Lesson(name, language string) (file string, text []byte, err error) {
	if !slices.Contains(Lessons(), name) {
		return "", nil, fmt.Errorf("lesson %s: %w (there are %s)", name, ErrNotShipped, strings.Join(Lessons(), ", "))
	}
	file = name + ".md"
	if _, err := fs.Stat(files, path.Join(lessonsDir, name+"."+language+".md")); err == nil {
		file = name + "." + language + ".md"
	}
	text, err = files.ReadFile(path.Join(lessonsDir, file))
	return file, text, err
}
