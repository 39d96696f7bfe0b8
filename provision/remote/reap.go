package remote

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/native-routing/labctl/provision"
)

// cleanup is how long a command that is cut short is looked for and ended.
const cleanup = 10 * time.Second

// reaper ends every process with one of the marks that are its arguments (each
// after an -e), with SIGTERM first and SIGKILL after half a second. A process that
// is forked meanwhile has the mark too and is found by the next look. It fails where
// something lives after five seconds.
const reaper = `signal=TERM looks=0
while marked=$(grep -slzxF "$@" /proc/[0-9]*/environ); [ -n "$marked" ]; do
	pids=
	for file in $marked; do
		pid=${file#/proc/}
		pids="$pids ${pid%/environ}"
	done
	[ $looks -eq 5 ] && signal=KILL
	case $looks in 0|5) kill -$signal $pids; kill -CONT $pids ;; [6-9]|[1-4]?) kill -$signal $pids ;; 50) echo "$pids"; exit 1 ;; esac 2>/dev/null
	looks=$((looks + 1))
	sleep 0.1
done
exit 0`

// orphan remembers a command that may still run. A reaper has no mark.
func (c *Client) orphan(mark string) {
	if mark == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orphans[mark] = true
}

// reap ends all commands that were cut short.
func (c *Client) reap(ctx context.Context, l *link) error {
	if err := take(ctx, c.reaping); err != nil {
		return err
	}
	defer func() { <-c.reaping }()
	c.mu.Lock()
	var marks, argv []string
	for mark := range c.orphans {
		marks = append(marks, mark)
	}
	c.mu.Unlock()
	if len(marks) == 0 {
		return nil
	}
	slices.Sort(marks)
	argv = []string{"sh", "-c", reaper, "sh"}
	for _, mark := range marks {
		argv = append(argv, "-e", markName+"="+mark)
	}
	command, err := line(c.config.Become, nil, argv, "")
	if err != nil {
		return err
	}
	channel, requests, err := l.open(ctx, "session", nil)
	if err != nil {
		return fmt.Errorf("%s: end what was cut short: %w", c.config.Node, err)
	}
	defer channel.Close()
	r := newRun(l, channel, requests)
	var said tail
	r.begin(command, provision.Command{Stdout: &said, Stderr: &said}, func(error) {})
	select {
	case <-r.ended:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return fmt.Errorf("%s: end what was cut short: %w", c.config.Node, l.err())
	}
	if err := c.outcome(r, argv, ""); err != nil {
		return fmt.Errorf("%s: end what was cut short: %w (%s)", c.config.Node, err, said.String())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, mark := range marks {
		delete(c.orphans, mark)
	}
	return nil
}

// cut ends the command of r and what it started, and returns ctx's error. It
// looks once more after the command has told its end: before that, sshd may not
// even have started it.
func (c *Client) cut(ctx context.Context, r *run, mark string) error {
	within, cancel := context.WithTimeout(context.Background(), cleanup)
	defer cancel()
	stop := context.AfterFunc(c.closed, cancel)
	defer stop()
	for ended := false; ; {
		c.orphan(mark)
		err := c.reap(within, r.link)
		if err != nil {
			c.orphan(mark) // for the next connection
			return fmt.Errorf("%w (%s may still have it running: %w)", ctx.Err(), c.config.Node, err)
		}
		if ended {
			break
		}
		select {
		case <-r.exit:
			ended = true
		case <-time.After(drainGrace):
		}
	}
	r.channel.Close()
	select {
	case <-r.ended:
	case <-time.After(drainGrace):
	}
	return ctx.Err()
}

// tail keeps the last of what was written to it, for an error's text.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 2000

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(bytes.TrimSpace(t.text)), "?")
}
