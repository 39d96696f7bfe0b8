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
	first string // its first line that is not SSH's version
	rest  []byte // the line that is not yet whole
	isSSH bool   // its version has come
}

// lineSize is how long a line before or with the version may be, RFC 4253, 4.2.
const lineSize = 255

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(int64(time.Since(w.start)))
		w.greeted(p[:n])
	}
	if err != nil {
		w.broken.Store(true)
	}
	return n, err
}

// silence is for how long nothing has come.
func (w *wire) silence() time.Duration { return time.Since(w.start) - time.Duration(w.heard.Load()) }

// greeted looks for the version in what the peer says first.
func (w *wire) greeted(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isSSH {
		return
	}
	w.rest = append(w.rest, p...)
	for !w.isSSH && len(w.rest) > 0 {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		w.isSSH = bytes.HasPrefix(line, []byte("SSH-"))
		if !whole && len(line) < lineSize {
			break
		}
		if w.first == "" && !w.isSSH {
			w.first = strings.TrimSpace(string(line))
		}
		w.rest = rest
	}
}

// greeting returns the peer's first line, and whether it speaks SSH (it may say
// other lines before its version). An unfinished line says nothing yet.
func (w *wire) greeting() (first string, isSSH bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first, w.isSSH
}
