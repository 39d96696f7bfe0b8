package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"reflect"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/native-routing/labctl/provision"
)

// drainGrace is for output that is still on its way when a command was ended.
const drainGrace = 100 * time.Millisecond

// Run runs a command on the node, as root. Of the local environment nothing goes
// along but TERM, to an interactive command.
//
// A command that is not there is an error for which both
// errors.Is(err, exec.ErrNotFound) and errors.As with a *provision.ExitError of
// code 127 hold. Where ctx ends, the command and all that it started get SIGTERM,
// half a second later SIGKILL, and the error is ctx's; it is returned when they are
// gone, or after 30 seconds with a word that they may not be. A connection that
// breaks meanwhile is [ErrLost].
//
// An interactive command whose Stdin is a terminal gets a terminal there of the
// same size and kind, and the local one is put into raw mode while it runs.
func (c *Client) Run(ctx context.Context, cmd provision.Command) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := c.run(ctx, cmd)
	var exit *provision.ExitError
	switch {
	case err == nil:
		c.mu.Lock()
		c.rooted = true
		c.mu.Unlock()
		return nil
	case errors.As(err, &exit) && exit.Signal == "" && (exit.Code == 1 || exit.Code == statusNotFound):
		// sudo that refuses, or is not there, is not a command that failed.
		if refused := c.mayBecome(ctx); refused != nil {
			return refused
		}
	}
	return err
}

// The shell's exit status for a command that is not there.
const statusNotFound = 127

func (c *Client) run(ctx context.Context, cmd provision.Command) error {
	mark := rand.Text()
	command, err := line(c.config.Become, cmd.Env, cmd.Argv, mark)
	if err != nil {
		return fmt.Errorf("%s: %w", c.config.Node, err)
	}
	if err := take(ctx, c.slots); err != nil {
		return err
	}
	defer func() { <-c.slots }()
	l, channel, requests, err := c.channel(ctx, "session", nil)
	if err != nil {
		return err
	}
	r := newRun(l, channel, requests)
	defer r.channel.Close()
	// A writer that fails ends the command, which would else wait for it for ever.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if cmd.Interactive {
		restore, err := r.terminal(cmd)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", c.config.Node, cmd.Argv[0], err)
		}
		defer restore()
	}
	r.begin(command, cmd, cancel)
	select {
	case <-r.ended:
	case <-ctx.Done():
		err := c.cut(ctx, r, mark)
		if errors.Is(context.Cause(ctx), errWrite) {
			err = fmt.Errorf("%s: %s: %w", c.config.Node, cmd.Argv[0], context.Cause(ctx))
		}
		return err
	case <-l.done:
		select {
		case <-r.ended:
		case <-time.After(drainGrace): // someone does not take its output
		}
	}
	return c.outcome(r, cmd.Argv, mark)
}

// outcome makes the error of a command that ended by itself.
func (c *Client) outcome(r *run, argv []string, mark string) error {
	switch {
	case r.link.lost() != nil: // the last of the output may be lost too
		c.orphan(mark)
		return fmt.Errorf("%s: %s: %w", c.config.Node, argv[0], r.link.lost())
	case r.err != nil:
		return fmt.Errorf("%s: %s: %w", c.config.Node, argv[0], r.err)
	case !r.exited:
		c.orphan(mark)
		return fmt.Errorf("%s: %s: %w before it ended: sshd closed its session", c.config.Node, argv[0], ErrLost)
	case r.signal != "":
		return &provision.ExitError{Argv: argv, Code: 128 + signalNumber(r.signal), Signal: "SIG" + r.signal}
	case r.status == statusNotFound:
		return fmt.Errorf("%s: %w (%w)", c.config.Node, exec.ErrNotFound, &provision.ExitError{Argv: argv, Code: r.status})
	case r.status != 0:
		return &provision.ExitError{Argv: argv, Code: r.status}
	default:
		return nil
	}
}

// mayBecome asks once for each client whether root can be had.
func (c *Client) mayBecome(ctx context.Context) error {
	c.mu.Lock()
	known := c.rooted || len(c.config.Become) == 0
	c.mu.Unlock()
	if known {
		return nil
	}
	var said tail
	err := c.run(ctx, provision.Command{Argv: []string{"true"}, Stderr: &said})
	var exit *provision.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s: %w: %s: %s (let it do so without a password: echo '%s ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/labctl, as root there)",
			c.config.at(), ErrBecome, quoteAll(c.config.Become), said.String(), c.config.User)
	}
	if err == nil {
		c.mu.Lock()
		c.rooted = true
		c.mu.Unlock()
	}
	return err
}

// run is one command in its channel.
type run struct {
	link    *link
	channel ssh.Channel
	exit    chan struct{} // closed when its exit was told, or never will be
	ended   chan struct{} // closed when its output is read too

	// Set before exit is closed.
	exited bool
	status int
	signal string
	// Set before ended is closed.
	err error
}

func newRun(l *link, channel ssh.Channel, requests <-chan *ssh.Request) *run {
	r := &run{link: l, channel: channel, exit: make(chan struct{}), ended: make(chan struct{})}
	go r.listen(requests)
	return r
}

// listen reads what sshd tells of the command (RFC 4254, 6.10).
func (r *run) listen(requests <-chan *ssh.Request) {
	var once sync.Once
	told := func() { once.Do(func() { close(r.exit) }) }
	defer told()
	for request := range requests {
		var status struct{ Status uint32 }
		var signal struct {
			Signal     string
			CoreDumped bool
			Message    string
			Language   string
		}
		switch {
		case request.Type == "exit-status" && ssh.Unmarshal(request.Payload, &status) == nil:
			r.exited, r.status = true, int(status.Status)
			told()
		case request.Type == "exit-signal" && ssh.Unmarshal(request.Payload, &signal) == nil:
			r.exited, r.signal = true, signal.Signal
			told()
		}
		if request.WantReply {
			_ = request.Reply(false, nil)
		}
	}
}

var (
	errRefused = errors.New("sshd does not run it")
	errWrite   = errors.New("write its output")
)

// begin starts the command and what copies its streams. A failing writer cancels.
func (r *run) begin(command string, cmd provision.Command, cancel context.CancelCauseFunc) {
	go func() {
		defer close(r.ended)
		ok, err := r.channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{command}))
		switch {
		case err != nil: // the connection, whose end says more
			<-r.exit
			return
		case !ok:
			r.err = errRefused
			return
		}
		go r.feed(cmd.Stdin)
		var outputs sync.WaitGroup
		stdout, stderr := sinks(cmd, cancel)
		outputs.Go(func() { _, _ = io.Copy(stdout, r.channel) })
		outputs.Go(func() { _, _ = io.Copy(stderr, r.channel.Stderr()) })
		<-r.exit
		outputs.Wait()
	}()
}

// feed writes the input. It may wait for its reader longer than the command runs.
func (r *run) feed(in io.Reader) {
	if in != nil {
		_, _ = io.Copy(r.channel, in) // a command need not read all of it
	}
	_ = r.channel.CloseWrite()
}

// sinks are where output goes, in order where both go to one place.
func sinks(cmd provision.Command, cancel context.CancelCauseFunc) (stdout, stderr io.Writer) {
	var together sync.Mutex
	same := cmd.Stdout != nil && cmd.Stderr != nil && reflect.TypeOf(cmd.Stdout) == reflect.TypeOf(cmd.Stderr) &&
		reflect.TypeOf(cmd.Stdout).Comparable() && cmd.Stdout == cmd.Stderr
	sink := func(w io.Writer) io.Writer {
		switch {
		case w == nil:
			return io.Discard
		case same:
			return &writer{w: w, lock: &together, cancel: cancel}
		default:
			return &writer{w: w, lock: new(sync.Mutex), cancel: cancel}
		}
	}
	return sink(cmd.Stdout), sink(cmd.Stderr)
}

type writer struct {
	w      io.Writer
	lock   *sync.Mutex
	cancel context.CancelCauseFunc
}

func (w *writer) Write(p []byte) (int, error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	n, err := w.w.Write(p)
	if err != nil {
		w.cancel(fmt.Errorf("%w: %w", errWrite, err))
	}
	return n, err
}
