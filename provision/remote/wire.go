package remote

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// wire is the connection below SSH. It knows when the peer was last heard, and
// the first of what it said.
type wire struct {
	net.Conn
	start  time.Time
	heard  atomic.Int64 // nanoseconds after start
	broken atomic.Bool  // a read has failed, so what was read may not be all

	mu    sync.Mutex
	first []byte
}

// greetingSize is how much of the peer's first words is kept: a version line of
// SSH has at most 255 bytes.
const greetingSize = 512

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(int64(time.Since(w.start)))
		w.mu.Lock()
		if room := greetingSize - len(w.first); room > 0 {
			w.first = append(w.first, p[:min(n, room)]...)
		}
		w.mu.Unlock()
	}
	if err != nil {
		w.broken.Store(true)
	}
	return n, err
}

// silence is for how long nothing has come.
func (w *wire) silence() time.Duration { return time.Since(w.start) - time.Duration(w.heard.Load()) }

// greeting returns the peer's first line, and whether it speaks SSH (it may say
// other lines before its version). An unfinished line says nothing yet.
func (w *wire) greeting() (first string, isSSH bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range bytes.Lines(w.first) {
		if bytes.HasPrefix(l, []byte("SSH-")) {
			return string(l), true
		}
	}
	l, _, ended := bytes.Cut(w.first, []byte("\n"))
	if !ended && len(w.first) < greetingSize {
		return "", false
	}
	return strings.TrimSpace(string(l)), false
}
