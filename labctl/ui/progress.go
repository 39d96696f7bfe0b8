package ui

import (
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// Mode is how much of the story is told, and how.
type Mode int

const (
	// Quiet tells nothing, not even failures: the command prints its error.
	Quiet Mode = iota
	// Plain prints one line for each step when it ends.
	Plain
	// Live shows running steps too, redrawn in place on a terminal.
	Live
)

// redrawEvery is short enough for a spinner to turn, and long enough to cost nothing.
const redrawEvery = 100 * time.Millisecond

// Progress tells the story of a workflow as its steps begin and end. It is safe
// for concurrent use. A live one never hides the cursor nor changes the
// terminal's mode, so that an interrupted program leaves nothing to put right.
type Progress struct {
	// Style colours the story; the zero Style by default. Set it before the first Start.
	Style Style
	// Now tells the time; time.Now by default. Set it before the first Start.
	Now func() time.Time

	w    io.Writer
	mode Mode

	mu      sync.Mutex
	running []*Task
	// parts are what Tell told last of the running steps' parts.
	parts []*Task
	// drawn is the number of lines that stand between the last finished line
	// and the cursor.
	drawn  int
	frame  int
	quit   chan struct{}
	done   sync.WaitGroup
	closed bool
}

// NewProgress returns a story told to w. The caller must Close it.
func NewProgress(w io.Writer, mode Mode) *Progress {
	return &Progress{Now: time.Now, w: w, mode: mode}
}

// Auto returns a story told to w, as w takes it: live and in colour on a
// terminal, plain elsewhere, and nothing at all if quiet.
func Auto(w io.Writer, quiet bool) *Progress {
	mode := Plain
	switch {
	case quiet:
		mode = Quiet
	case capable(w, os.Getenv):
		mode = Live
	}
	p := NewProgress(w, mode)
	p.Style = NewStyle(w, os.Getenv)
	return p
}

// Start begins a step. Steps may run at the same time.
func (p *Progress) Start(step string) *Task {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &Task{progress: p, step: firstLine(step), start: p.Now()}
	if p.closed {
		return t
	}
	p.running = append(p.running, t)
	if p.mode == Live {
		p.animate()
		p.redraw()
	}
	return t
}

// Note tells of something beside the steps, such as a fallback taken.
func (p *Progress) Note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell(p.Style.Warn(pad("note", statusWidth)) + firstLine(text))
}

// Tell says what a part of a step, such as one of its nodes, is at: a line of its
// own that lasts as long as the step on a live story, a line on a plain one for
// each thing that is not the same as before.
func (p *Progress) Tell(part, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	part, what = firstLine(part), firstLine(what)
	i := slices.IndexFunc(p.parts, func(t *Task) bool { return t.step == part })
	if i < 0 {
		p.parts = append(p.parts, &Task{progress: p, step: part, start: p.Now()})
		i = len(p.parts) - 1
	}
	same := p.parts[i].detail == what
	p.parts[i].detail = what
	switch {
	case p.mode == Live:
		p.redraw()
	case !same:
		p.tell(p.Style.Dim(pad("..", statusWidth)) + pad(part, stepWidth) + "  " + what)
	}
}

// Close ends the story; steps that still run are told as stopped. Nothing is
// told after it. Close it before anything else is printed on the terminal.
func (p *Progress) Close() {
	p.mu.Lock()
	for _, t := range slices.Clone(p.running) {
		p.finish(t, "stop", p.Style.Warn, t.detail)
	}
	p.closed = true
	quit := p.quit
	p.quit = nil
	p.mu.Unlock()
	if quit != nil {
		close(quit)
	}
	p.done.Wait()
}

// finish ends t once. The lock is held.
func (p *Progress) finish(t *Task, status string, mark func(string) string, detail string) {
	i := slices.Index(p.running, t)
	if i < 0 {
		return
	}
	p.running = slices.Delete(p.running, i, i+1)
	if len(p.running) == 0 {
		p.parts = nil
	}
	p.tell(p.line(t, mark(pad(status, statusWidth)), detail))
}

// tell prints a line that stays. The lock is held.
func (p *Progress) tell(line string) {
	if p.closed {
		return
	}
	switch p.mode {
	case Plain:
		io.WriteString(p.w, line+"\n")
	case Live:
		p.redraw(line)
	}
}

// animate keeps the running steps moving until Close. The lock is held.
func (p *Progress) animate() {
	if p.quit != nil {
		return
	}
	quit := make(chan struct{})
	p.quit = quit
	p.done.Go(func() {
		tick := time.NewTicker(redrawEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				p.turn()
			}
		}
	})
}

func (p *Progress) turn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.running) == 0 {
		return
	}
	p.frame++
	p.redraw()
}
