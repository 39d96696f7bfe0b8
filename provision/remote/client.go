package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"
)

// sessions is how many commands run at once on one connection; more wait. sshd's
// MaxSessions is 10, and one is kept free for ending others.
const sessions = 8

// Client reaches one node over one connection, which it keeps, and makes anew
// when it broke. Its methods are safe for concurrent use.
type Client struct {
	config  Config
	slots   chan struct{} // one for each command that may run
	dialing chan struct{} // held by who makes a connection
	reaping chan struct{} // held by who ends commands
	closed  context.Context
	close   context.CancelCauseFunc

	mu      sync.Mutex
	current *link
	// orphans are the marks of commands that were cut short and may still run.
	orphans map[string]bool
	// rooted says that Become was seen to work.
	rooted bool
	// puts serializes writers of one file.
	puts map[string]chan struct{}
}

// Dial connects to a node, and pins its host key if it has none. It goes on
// trying while the node refuses, resets or does not answer, until Patience or ctx
// ends; then the error matches [ErrUnreachable]. [ErrHostKey], [ErrAuth] and
// [ErrNotSSH] are final.
func Dial(ctx context.Context, config Config) (*Client, error) {
	c, err := New(config)
	if err != nil {
		return nil, err
	}
	if _, err := c.link(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// New is Dial that does not connect yet: the first call does.
func New(config Config) (*Client, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		config: config, slots: make(chan struct{}, sessions), dialing: make(chan struct{}, 1), reaping: make(chan struct{}, 1),
		orphans: map[string]bool{}, puts: map[string]chan struct{}{},
	}
	c.closed, c.close = context.WithCancelCause(context.Background())
	return c, nil
}

// Close ends the connection. Calls that are under way fail with [ErrClosed]; it
// does not wait for them, and what they run on the node is not ended.
func (c *Client) Close() error {
	c.close(ErrClosed)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		c.current.fail(ErrClosed)
	}
	return nil
}

// link returns the connection, made anew where there is none.
func (c *Client) link(ctx context.Context) (*link, error) {
	caller := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, c.config.Patience, errPatience)
	defer cancel()
	stop := context.AfterFunc(c.closed, cancel)
	defer stop()
	// Who waits for another's try has spent its patience too when that one has.
	if err := take(ctx, c.dialing); err != nil {
		return nil, c.noLink(caller, fmt.Errorf("%s: %w: another call is connecting (%w)", c.config.at(), ErrUnreachable, err))
	}
	defer func() { <-c.dialing }()
	c.mu.Lock()
	current := c.current
	c.mu.Unlock()
	if current != nil && current.err() == nil {
		return current, nil
	}
	l, err := c.config.connect(ctx)
	if err != nil {
		return nil, c.noLink(caller, err)
	}
	// What a lost connection left running must not meet the call that is made again.
	if _, err := c.reap(ctx, l, ""); err != nil {
		l.fail(ErrClosed)
		return nil, c.noLink(caller, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Err() != nil {
		l.fail(ErrClosed)
		return nil, fmt.Errorf("%s: %w", c.config.Node, ErrClosed)
	}
	c.current = l
	return l, nil
}

// noLink puts what the caller did before what it led to.
func (c *Client) noLink(caller context.Context, err error) error {
	if c.closed.Err() != nil {
		return fmt.Errorf("%s: %w", c.config.Node, ErrClosed)
	}
	return err
}

// channel opens a channel, over a new connection where the present one turns out
// to be broken: nothing was begun on it yet.
func (c *Client) channel(ctx context.Context, kind string, payload []byte) (*link, ssh.Channel, <-chan *ssh.Request, error) {
	for again := false; ; again = true {
		l, err := c.link(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		channel, requests, err := l.open(ctx, kind, payload)
		var refused *ssh.OpenChannelError
		switch {
		case err == nil:
			return l, channel, requests, nil
		case ctx.Err() != nil:
			return nil, nil, nil, ctx.Err()
		case errors.As(err, &refused) && kind == "session":
			return nil, nil, nil, fmt.Errorf("%s: %w (MaxSessions in its sshd_config must be 10 or more)", c.config.Node, err)
		case errors.As(err, &refused):
			return nil, nil, nil, fmt.Errorf("%s: %w", c.config.Node, err)
		}
		l.fail(fmt.Errorf("%w: %w", ErrLost, err))
		<-l.done
		if again {
			return nil, nil, nil, fmt.Errorf("%s: %w", c.config.Node, l.err())
		}
	}
}

// take takes a place in a channel that is used as a semaphore.
func take(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var _ io.Closer = (*Client)(nil)
