package vagrant

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

const (
	// maxLine bounds a line of Vagrant's; what is beyond it is passed over.
	maxLine = 1 << 20
	// maxTail is how much of the standard error is kept for an error's text.
	maxTail = 4096
)

// listener hears what vagrant prints: it logs it, hands over the events, and
// keeps what says why it failed.
type listener struct {
	on func(event)

	mu   sync.Mutex
	log  io.Writer
	line []byte // what is there of the next one
	tail []byte // of the standard error

	exitType, exitText string
	lastError          string
	begun, ended       []string // machines whose action began, and ended well
}

// stdout is the listener as what vagrant writes to.
type stdout listener

func (s *stdout) Write(p []byte) (int, error) {
	l := (*listener)(s)
	for rest := p; len(rest) > 0; {
		part, after, whole := bytes.Cut(rest, []byte("\n"))
		if len(l.line) < maxLine {
			l.line = append(l.line, part...)
		}
		if whole {
			l.end()
		}
		rest = after
	}
	return len(p), nil
}

// end takes what there is as a line.
func (l *listener) end() {
	line := strings.TrimRight(string(l.line), "\r")
	l.line = l.line[:0]
	if line != "" {
		l.hear(line)
	}
}

func (l *listener) hear(line string) {
	e, ok := parseEvent(line)
	kind, text, said := e.said()
	if !percent.MatchString(text) {
		l.mu.Lock()
		fmt.Fprintln(l.log, line)
		l.mu.Unlock()
	}
	if !ok {
		return
	}
	switch {
	case e.Type == "error-exit":
		l.exitType, l.exitText = e.data(0), strings.TrimSpace(e.data(1))
	case said && kind == "error":
		l.lastError = text
	case e.Type == "action" && e.data(1) == "start":
		l.begun = append(l.begun, e.Target)
	case e.Type == "action" && e.data(1) == "end":
		l.ended = append(l.ended, e.Target)
	}
	if l.on != nil {
		l.on(e)
	}
}

// stderr is the listener as what vagrant writes its errors to: those that it
// meets before it can do anything else, and those that Ruby tells for it.
type stderr listener

// How Ruby tells of an exception that nobody caught: where it was raised and what
// it says, then a line for each caller. The places are of no use to our user.
var (
	raisedAt = regexp.MustCompile("(?m)^\\S+:\\d+:in [`'][^\n]*?': ")
	calledBy = regexp.MustCompile(`(?m)^[ \t]+from \S+:\d+:in .*\n`)
)

func (s *stderr) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tail = calledBy.ReplaceAll(append(s.tail, p...), nil)
	s.tail = s.tail[max(0, len(s.tail)-maxTail):]
	return s.log.Write(p)
}

// failure is all that was heard of why vagrant failed.
func (l *listener) failure(log string, args []string, err error) error {
	f := &failure{command: args[0], exit: err, kind: l.exitType, text: l.exitText, log: log, begun: l.begun, ended: l.ended}
	for _, other := range []string{l.lastError, raisedAt.ReplaceAllString(string(l.tail), "")} {
		if f.text == "" {
			f.text = strings.TrimSpace(other)
		}
	}
	return f
}
