package ui

import (
	"fmt"
	"io"
	"slices"
)

// The columns of a step's line.
const (
	statusWidth  = 6
	stepWidth    = 16
	elapsedWidth = 6
)

var (
	brailleSpinner = [...]string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}
	asciiSpinner   = [...]string{"|", "/", "-", `\`}
)

// spinner returns a running step's sign, in a status's width.
func (p *Progress) spinner() string {
	if p.Style.unicode {
		return pad(brailleSpinner[p.frame%len(brailleSpinner)], statusWidth)
	}
	return pad(asciiSpinner[p.frame%len(asciiSpinner)], statusWidth)
}

// line tells of t: status, step, time and detail in columns.
func (p *Progress) line(t *Task, status, detail string) string {
	elapsed := fmt.Sprintf("%*s", elapsedWidth, Duration(p.Now().Sub(t.start)))
	line := status + pad(t.step, stepWidth) + p.Style.Dim(elapsed)
	if detail != "" {
		line += "  " + detail
	}
	return line
}

// redraw prints finished lines over the running steps' block, and the block
// anew under them. All goes out in one write, so that nothing flickers. The lock
// is held.
func (p *Progress) redraw(finished ...string) {
	_, lines := terminalSize(p.w)
	block := p.block(lines - 1)
	text := repaint(p.w, p.drawn, append(finished, block...), p.ellipsis())
	p.drawn = len(block)
	io.WriteString(p.w, text)
}

// block returns the running steps' lines, at most limit, for what has scrolled
// off the screen cannot be drawn again.
func (p *Progress) block(limit int) []string {
	running := slices.Concat(p.running, p.parts)
	shown := running
	limit = max(limit, 1)
	if len(shown) > limit {
		shown = shown[:limit-1]
	}
	var lines []string
	for _, t := range shown {
		lines = append(lines, p.line(t, p.Style.Warn(p.spinner()), t.detail))
	}
	if rest := len(running) - len(shown); rest > 0 {
		lines = append(lines, p.Style.Dim(fmt.Sprintf("%*s%s %d more", statusWidth, "", p.ellipsis(), rest)))
	}
	return lines
}

func (p *Progress) ellipsis() string {
	if p.Style.unicode {
		return "…"
	}
	return "..."
}
