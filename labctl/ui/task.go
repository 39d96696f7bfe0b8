package ui

import "time"

// Task is one step of a [Progress] that has begun. The first of Done and Fail
// ends it; what comes later changes nothing.
type Task struct {
	progress *Progress
	step     string
	detail   string
	start    time.Time
}

// Update says what the step is at. Only a live story shows it.
func (t *Task) Update(detail string) {
	p := t.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	t.detail = firstLine(detail)
	if p.mode == Live && !p.closed {
		p.redraw()
	}
}

// Done ends the step well and says what it did: "4 created", "unchanged".
func (t *Task) Done(detail string) {
	p := t.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(t, "ok", p.Style.Good, firstLine(detail))
}

// Fail ends the step with the first line of err, whole telling being the
// command's. A nil err ends it well.
func (t *Task) Fail(err error) {
	if err == nil {
		t.Done("")
		return
	}
	p := t.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(t, "FAIL", p.Style.Bad, firstLine(err.Error()))
}
