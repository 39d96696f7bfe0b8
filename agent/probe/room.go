//go:build linux

package probe

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// room is a network namespace in which sockets are made: one thread stands in
// it. A socket stays in the namespace that it was made in, so whatever else is
// done with it takes no thread. The nil room is the process's own namespace.
type room struct{ calls chan func() }

// enter puts a thread into the namespace at path. The thread ends with leave,
// and never runs anything else.
func enter(path string) (*room, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	defer file.Close()
	r := &room{calls: make(chan func())}
	inside := make(chan error)
	go onThread(func() {
		err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		inside <- err
		if err != nil {
			return
		}
		for call := range r.calls {
			call()
		}
	})
	if err := <-inside; err != nil {
		return nil, fmt.Errorf("enter the network namespace %s: %w", path, err)
	}
	return r, nil
}

// onThread runs f on a thread that ends with it. That is never the process's
// first thread: it does not end, and /proc would show the process in whatever
// namespace it was left.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // never unlocked: the thread ends with this goroutine
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

// do runs f in the namespace and waits for it.
func (r *room) do(f func() error) error {
	if r == nil {
		return f()
	}
	done := make(chan error)
	r.calls <- func() { done <- f() }
	return <-done
}

func (r *room) leave() {
	if r != nil {
		close(r.calls)
	}
}
