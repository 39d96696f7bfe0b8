//go:build linux

package pod

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// family tells a sandbox's own children, which os/exec waits for, from those
// that became its children when their parents ended: it is the first process of
// the pod's PID namespace, and nobody else takes their leave.
type family struct {
	changed chan os.Signal

	mu  sync.Mutex
	own map[int]bool
}

func newFamily() *family {
	f := &family{changed: make(chan os.Signal, 1), own: make(map[int]bool)}
	signal.Notify(f.changed, unix.SIGCHLD)
	return f
}

// start starts a child of the sandbox's own. Whoever waited for it calls left.
func (f *family) start(cmd *exec.Cmd) error {
	f.mu.Lock() // or it could end before it is known as an own one
	defer f.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	f.own[cmd.Process.Pid] = true
	return nil
}

func (f *family) left(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.own, pid)
}

// reap buries all others, as long as the process lives.
func (f *family) reap() {
	for range f.changed {
		f.bury()
	}
}

func (f *family) bury() {
	f.mu.Lock()
	defer f.mu.Unlock()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return // it is tried again when the next one ends
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || f.own[pid] || !isDeadChild(pid) {
			continue
		}
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// isDeadChild says whether the process is a zombie of the calling one.
func isDeadChild(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// A process's name is in parentheses, and may hold some.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	return len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(os.Getpid())
}
