package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// lockTime is how long a change waits for another one of the same lab.
const lockTime = 2 * time.Minute

// Fit says whether this machine can carry the topology: nil, or an ErrUnmet
// with every hindrance and its cure.
func (l *Lab) Fit(ctx context.Context, t *topo.Topology) error {
	errs := []error{ErrUnmet}
	for _, f := range l.hindrances(ctx, t) {
		if f.Severity == provision.Missing {
			errs = append(errs, finding(f))
		}
	}
	if len(errs) == 1 {
		return nil
	}
	return unmet(errs)
}

// unmet is ErrUnmet and its hindrances, each on a line of its own.
type unmet []error

func (u unmet) Unwrap() []error { return u }

func (u unmet) Error() string {
	lines := make([]string, len(u))
	for i, err := range u {
		lines[i] = err.Error()
	}
	return lines[0] + ":\n  " + strings.Join(lines[1:], "\n  ")
}

// hindrance is what is missing, as an error of its class.
type hindrance struct {
	text  string
	class error
}

func (h hindrance) Error() string { return h.text }
func (h hindrance) Unwrap() error { return h.class }

// finding says everything once: a detail may be its class's own words.
func finding(f provision.Finding) error {
	text := f.Subject + ": " + f.Detail
	if f.Cure != "" {
		text += " (" + f.Cure + ")"
	}
	if f.Err != nil && !strings.Contains(f.Detail, f.Err.Error()) {
		text += ": " + f.Err.Error()
	}
	return hindrance{text, f.Err}
}

// lock takes the lab, and says whom it waits for.
func (l *Lab) lock(ctx context.Context) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	var holder string
	unlock, err := l.Store.Lock(ctx, l.Name, func(h string) {
		holder = h
		l.Story.Note("waiting for " + h + ", which holds lab " + l.Name)
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("lab %s is held by %s for more than %s: %w", l.Name, holder, lockTime, err)
	}
	return unlock, err
}

// remember writes what is asked for, before the first change.
func (l *Lab) remember(w Wanted) (Saved, []workload.Change, error) {
	saved := Saved{
		Topology: w.Topology, Source: w.Source, Digest: w.Digest,
		Provider: l.Provider.Name(), Version: l.Version, Since: time.Now().UTC(),
	}
	var shipped []manifest.Ref
	if old, err := l.Store.Load(l.Name); err == nil {
		if old.Provider != saved.Provider {
			return saved, nil, fmt.Errorf("lab %s stands on %s, not on %s: take it down first (labctl down --lab %s)", l.Name, old.Provider, saved.Provider, l.Name)
		}
		saved.Since, saved.Uplinks, saved.Workloads, shipped = old.Since, old.Uplinks, old.Workloads, old.Shipped
		saved.Stage, saved.History = old.Stage, old.History
	}
	saved = saved.enter(w.Stage)
	changes, err := furnish(&saved, shipped, w.Objects)
	if err != nil {
		return saved, nil, fmt.Errorf("workloads: %w", err)
	}
	return saved, changes, l.Store.Save(l.Name, saved)
}
