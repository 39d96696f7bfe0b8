//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
)

const (
	// killGrace is between SIGTERM and SIGKILL for a command that is cut short.
	killGrace = 500 * time.Millisecond
	// drainGrace is for what a killed command's descendants still hold open.
	drainGrace = 100 * time.Millisecond

	// The shell's exit statuses for a command that could not be started.
	statusNotExecutable = 126
	statusNotFound      = 127
)

// Run runs a command on the node: this machine's own executables, with the
// node's network, hostname, /etc/hosts and /sys. A command that is not there is
// an error for which both errors.Is(err, exec.ErrNotFound) and errors.As with a
// *provision.ExitError of code 127 hold. Where ctx ends, the command and what it
// started in its process group get SIGTERM, half a second later SIGKILL, and
// the error is ctx's. An interactive command gets SIGHUP too, as from a terminal
// that goes away.
//
// An interactive command stays in the caller's process group, which the
// terminal's signals reach as a whole: the caller should ignore SIGINT and
// SIGQUIT meanwhile.
func (n *Node) Run(ctx context.Context, cmd provision.Command) error {
	if len(cmd.Argv) == 0 {
		return fmt.Errorf("%s: no command", n.name)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	path, err := lookPath(cmd.Argv)
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	c := &exec.Cmd{Path: path, Args: cmd.Argv, Env: append(append(os.Environ(), n.environment()...), cmd.Env...)}
	if !cmd.Interactive {
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	var streams streams
	defer streams.close()
	if err := streams.attach(c, cmd); err != nil {
		return fmt.Errorf("%s: %s: %w", n.name, cmd.Argv[0], err)
	}
	c, err = n.start(c)
	if err != nil {
		return fmt.Errorf("%s: start %s: %w", n.name, cmd.Argv[0], startError(cmd.Argv, err))
	}
	streams.begin()
	stopped := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(stopped)
		endWithContext(ctx, c.Process, !cmd.Interactive, ended)
	}()
	waitErr := c.Wait()
	close(ended)
	<-stopped
	if err := ctx.Err(); err != nil {
		streams.drain(drainGrace)
		return err
	}
	if err := streams.drain(0); err != nil {
		return fmt.Errorf("%s: %s: %w", n.name, cmd.Argv[0], err)
	}
	return exitError(cmd.Argv, waitErr)
}

func lookPath(argv []string) (string, error) {
	path, err := exec.LookPath(argv[0])
	switch {
	case err == nil, errors.Is(err, exec.ErrDot):
		return path, nil
	case errors.Is(err, os.ErrPermission):
		return "", fmt.Errorf("%w (%w)", err, &provision.ExitError{Argv: argv, Code: statusNotExecutable})
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("%w (%w)", err, &provision.ExitError{Argv: argv, Code: statusNotFound})
	default: // a path that is not there
		return "", fmt.Errorf("%w: %w (%w)", exec.ErrNotFound, err, &provision.ExitError{Argv: argv, Code: statusNotFound})
	}
}

// startError classes what only execve found, such as a script whose interpreter is missing.
func startError(argv []string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: %w (%w)", exec.ErrNotFound, err, &provision.ExitError{Argv: argv, Code: statusNotFound})
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%w (%w)", err, &provision.ExitError{Argv: argv, Code: statusNotExecutable})
	default:
		return err
	}
}

func exitError(argv []string, err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	status := exit.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return &provision.ExitError{Argv: argv, Code: 128 + int(status.Signal()), Signal: unix.SignalName(status.Signal())}
	}
	return &provision.ExitError{Argv: argv, Code: status.ExitStatus()}
}

// endWithContext ends the process (with its group) where ctx ends before it.
func endWithContext(ctx context.Context, p *os.Process, group bool, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	signal := func(s syscall.Signal) {
		if group {
			_ = unix.Kill(-p.Pid, s)
			return
		}
		_ = p.Signal(s)
	}
	signal(unix.SIGTERM)
	if !group {
		signal(unix.SIGHUP) // an interactive shell heeds only this
	}
	signal(unix.SIGCONT)
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
	// Once more for those of the group that outlived their leader.
	signal(unix.SIGKILL)
}

// streams carries input and output where they are not files. os/exec would wait
// for its input to end, which a terminal's or a network's never does.
type streams struct {
	stdin   func()
	copies  []func() error
	closers []io.Closer // the child's ends
	reads   []*os.File
	wait    sync.WaitGroup
	mu      sync.Mutex
	err     error
}

func (s *streams) attach(c *exec.Cmd, cmd provision.Command) error {
	switch in := cmd.Stdin.(type) {
	case nil:
	case *os.File:
		c.Stdin = in
	default:
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		c.Stdin = r
		s.closers = append(s.closers, r)
		s.stdin = func() {
			_, _ = io.Copy(w, in) // a command need not read all of it
			w.Close()
		}
	}
	out, err := s.output(cmd.Stdout)
	if err != nil {
		return err
	}
	if out != nil {
		c.Stdout = out
	}
	if cmd.Stderr != nil && sameWriter(cmd.Stderr, cmd.Stdout) {
		c.Stderr = c.Stdout
		return nil
	}
	if out, err = s.output(cmd.Stderr); err != nil {
		return err
	}
	if out != nil {
		c.Stderr = out
	}
	return nil
}

// sameWriter keeps output and errors in order where they go to one place.
func sameWriter(a, b io.Writer) bool {
	defer func() { _ = recover() }() // types that cannot be compared
	return a == b
}

func (s *streams) output(w io.Writer) (*os.File, error) {
	switch out := w.(type) {
	case nil:
		return nil, nil
	case *os.File:
		return out, nil
	}
	r, child, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, child)
	s.reads = append(s.reads, r)
	s.copies = append(s.copies, func() error {
		_, err := io.Copy(w, r)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	})
	return child, nil
}

// begin closes the child's ends here and copies.
func (s *streams) begin() {
	for _, c := range s.closers {
		c.Close()
	}
	s.closers = nil
	if s.stdin != nil {
		go s.stdin()
	}
	for i, copy := range s.copies {
		s.wait.Go(func() {
			if err := copy(); err != nil {
				// Nobody reads any more: let the command know.
				s.reads[i].Close()
				s.mu.Lock()
				s.err = errors.Join(s.err, err)
				s.mu.Unlock()
			}
		})
	}
}

// drain waits until all output is read, or for the given time where it is not 0.
func (s *streams) drain(limit time.Duration) error {
	done := make(chan struct{})
	go func() { s.wait.Wait(); close(done) }()
	if limit == 0 {
		<-done
	} else {
		select {
		case <-done:
		case <-time.After(limit):
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *streams) close() {
	for _, c := range s.closers {
		c.Close()
	}
	for _, r := range s.reads {
		r.Close()
	}
}
