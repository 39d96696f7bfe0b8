package lesson

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2/maybe"
)

// Progress is how far a student has come in a lesson. Steps are named by their
// IDs, so it holds in every language and while the lesson grows.
type Progress struct {
	// Step is where the student is; empty at the beginning.
	Step string `json:"step,omitempty"`
	// Done are the steps whose checks held, Solved those of them that labctl solved.
	Done   []string `json:"done,omitempty"`
	Solved []string `json:"solved,omitempty"`
	// Hints counts those that were given of a step.
	Hints map[string]int `json:"hints,omitempty"`
}

// LoadProgress reads a record; a file that is not there is the beginning.
func LoadProgress(file string) (Progress, error) {
	var p Progress
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		return Progress{}, fmt.Errorf("read how far the lesson is: %w (remove %s to begin anew)", err, file)
	}
	return p, nil
}

// Save writes the record, atomically.
func (p Progress) Save(file string) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("record how far the lesson is: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("record how far the lesson is: %w", err)
	}
	if err := maybe.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("record how far the lesson is: %w", err)
	}
	return nil
}

// At returns the place of the step where the student is: the first one where
// the record knows of none, or of one that the lesson has no more.
func (p Progress) At(l *Lesson) int {
	at, _ := l.Find(p.Step)
	return at
}

// Finish notes that a step is done, and by whom.
func (p *Progress) Finish(step string, solved bool) {
	if !slices.Contains(p.Done, step) {
		p.Done = append(p.Done, step)
		if solved {
			p.Solved = append(p.Solved, step)
		}
	}
}

// Hint returns the next hint of a step, and counts it; false where all were given.
func (p *Progress) Hint(s Step) ([]Block, bool) {
	given := p.Hints[s.ID]
	if given >= len(s.Hints) {
		return nil, false
	}
	if p.Hints == nil {
		p.Hints = map[string]int{}
	}
	p.Hints[s.ID]++
	return s.Hints[given], true
}

// Count returns how many steps of a lesson are done.
func (p Progress) Count(l *Lesson) int {
	count := 0
	for _, s := range l.Steps {
		if slices.Contains(p.Done, s.ID) {
			count++
		}
	}
	return count
}
