package workload

import (
	"errors"
	"fmt"

	"github.com/native-routing/labctl/labctl/manifest"
)

// The reasons for which objects are not taken. Trying again does not help.
var (
	// ErrNotFound is an object to delete that there is not.
	ErrNotFound = errors.New("not found")
	// ErrRefused is an object that does not fit the lab, or what is in it.
	ErrRefused = errors.New("refused")
)

// Refusal says which object was not taken, and why.
type Refusal struct {
	Ref manifest.Ref `json:"ref"`
	// Place is file:line of the field, where that is known.
	Place string `json:"place,omitempty"`
	Field string `json:"field,omitempty"`
	// Why says what is wrong, and what would be right.
	Why string `json:"why"`
}

// Error is the refusal on one line: file:line: object: field: why.
func (r *Refusal) Error() string {
	text := r.Ref.String() + ": "
	if r.Place != "" {
		text = r.Place + ": " + text
	}
	if r.Field != "" {
		text += r.Field + ": "
	}
	return text + r.Why
}

// Is matches ErrRefused.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }

// fieldError is a refusal of which only the field is known so far.
func fieldError(field, format string, args ...any) *Refusal {
	return &Refusal{Field: field, Why: fmt.Sprintf(format, args...)}
}

// about fills in which object a refusal is about.
func about(objs manifest.Objects, ref manifest.Ref, err error) error {
	var r *Refusal
	if errors.As(err, &r) {
		filled := *r
		filled.Ref, filled.Place = ref, objs.Where(ref, r.Field)
		return &filled
	}
	return fmt.Errorf("%s: %w", ref, err)
}
