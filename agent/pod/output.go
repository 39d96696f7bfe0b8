//go:build linux

package pod

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// output is a container's log: a file that is set aside as <file>.1 when it is
// full, and begun anew. A nil output swallows what it is given.
type output struct {
	path string
	done sync.WaitGroup

	mu   sync.Mutex
	file *os.File
	size int64
}

func openOutput(path string) (*output, error) {
	o := &output{path: path}
	if err := o.open(); err != nil {
		return nil, err
	}
	return o, nil
}

func (o *output) open() error {
	f, err := os.OpenFile(o.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	o.file, o.size = f, info.Size()
	return nil
}

// pipe is where a process writes to the log. The caller closes it when the
// process has it.
func (o *output) pipe() (*os.File, error) {
	if o == nil {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	o.done.Go(func() {
		defer r.Close()
		_, _ = io.CopyBuffer(o, struct{ io.Reader }{r}, make([]byte, 4<<10))
	})
	return w, nil
}

// Write never fails: a container must not end for its log.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size+int64(len(b)) > maxLog {
		_ = os.Rename(o.path, o.path+".1")
		_ = o.file.Close()
		o.file, o.size = nil, 0
	}
	if o.file == nil && o.open() != nil {
		return len(b), nil
	}
	n, _ := o.file.Write(b)
	o.size += int64(n)
	return len(b), nil
}

// drainTime is for what is still in the pipes of a container that has ended.
const drainTime = 100 * time.Millisecond

// close waits a moment for what is still in pipes: a process that got away from
// its container may hold one for ever.
func (o *output) close() {
	if o == nil {
		return
	}
	drained := make(chan struct{})
	go func() { o.done.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(drainTime):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil {
		_ = o.file.Close()
	}
}
