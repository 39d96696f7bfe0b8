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

// cleanup is how long a command that is cut short is looked for and ended. A
// machine that is emulated takes seconds to begin a session.
const cleanup = 30 * time.Second

// reaper ends every process with one of the marks that are its arguments (each
// after an -e), with SIGTERM first and SIGKILL after half a second. A process that
// is forked meanwhile has the mark too and is found by the next look. It says how
// often it looked in vain for nothing to be left, and fails where something lives
// through 40 looks.
const reaper = `looks=0
while marked=$(grep -slzxF "$@" /proc/[0-9]*/environ); [ -n "$marked" ]; do
	pids= pause=0.1
	for file in $marked; do
		pid=${file#/proc/}
		pids="$pids ${pid%/environ}"
	done
	case $looks in
	0) kill -TERM $pids; kill -CONT $pids ;;
	1) pause=0.4 ;;
	40) echo "processes$pids do not end"; exit 1 ;;
	*) kill -KILL $pids ;;
	esac 2>/dev/null
	looks=$((looks + 1))
	sleep $pause
done
echo $looks`

// orphan remembers a command that may still run. A reaper has no mark.
func (c *Client) orphan(mark string) {
	if mark == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orphans[mark] = true
}

// reap ends all commands that were cut short, and says whether it met the one
// with this mark: then that had begun, and nothing of it can come later.
func (c *Client) reap(ctx context.Context, l *link, mark string) (met bool, err error) {
	if err := take(ctx, c.reaping); err != nil {
		return false, err
	}
	defer func() { <-c.reaping }()
	c.mu.Lock()
	var marks, argv []string
	for mark := range c.orphans {
		marks = append(marks, mark)
	}
	c.mu.Unlock()
	if len(marks) == 0 {
		return false, nil
	}
	slices.Sort(marks)
	argv = []string{"sh", "-c", reaper, "sh"}
	for _, mark := range marks {
		argv = append(argv, "-e", markName+"="+mark)
	}
	said, err := c.session(ctx, l, argv)
	if err != nil {
		return false, fmt.Errorf("%s: end what was cut short: %w", c.config.Node, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, mark := range marks {
		delete(c.orphans, mark)
	}
	return len(marks) == 1 && marks[0] == mark && said != "0", nil
}

// session runs a command on a given connection, without a mark, and returns what
// it says.
func (c *Client) session(ctx context.Context, l *link, argv []string) (string, error) {
	command, err := line(c.config.Become, nil, argv, "")
	if err != nil {
		return "", err
	}
	channel, requests, err := l.open(ctx, "session", nil)
	if err != nil {
		return "", err
	}
	defer channel.Close()
	r := newRun(l, channel, requests)
	var said tail
	r.begin(command, provision.Command{Stdout: &said, Stderr: &said}, func(error) {})
	select {
	case <-r.ended:
	case <-ctx.Done():
		return "", ctx.Err()
	case <-l.done:
		return "", l.err()
	}
	if err := c.outcome(r, argv, ""); err != nil {
		return "", fmt.Errorf("%w (%s)", err, said.String())
	}
	return said.String(), nil
}

// cut ends the command of r and what it started, and returns ctx's error. Where
// nothing of it was met, it looks once more after the command has told its end:
// sshd may not even have started it.
func (c *Client) cut(ctx context.Context, r *run, mark string) error {
	within, cancel := context.WithTimeout(context.Background(), cleanup)
	defer cancel()
	stop := context.AfterFunc(c.closed, cancel)
	defer stop()
	for ended := false; ; {
		c.orphan(mark)
		met, err := c.reap(within, r.link, mark)
		if err != nil {
			return fmt.Errorf("%w (%s may still have it running: %w)", ctx.Err(), c.config.Node, err)
		}
		if met || ended {
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
