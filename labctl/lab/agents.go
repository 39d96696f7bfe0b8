package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/provision"
)

const (
	// answerTime is how long an agent may take to answer from what it holds.
	answerTime = 4 * time.Second
	// watchPeriod is how often an agent that sends is asked for a sign of life.
	watchPeriod = time.Second
)

// agents are the connections to the agents of one lab, each opened when it is
// first needed and kept until Close.
type agents struct {
	lab *Lab

	mu   sync.Mutex
	open map[string]*connection
}

// connection is one node's. Its own lock lets slow nodes be opened side by side.
type connection struct {
	mu     sync.Mutex
	node   provision.Node
	client *api.Client

	clock  sync.Once
	offset time.Duration // how much the node's clock is ahead of this machine's
}

func (l *Lab) agents() *agents { return &agents{lab: l, open: map[string]*connection{}} }

// Close drops every connection.
func (a *agents) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.open {
		c.mu.Lock()
		if c.node != nil {
			c.client.Close()
			_ = c.node.Close() // nothing was written that could be lost
		}
		c.mu.Unlock()
	}
	a.open = map[string]*connection{}
}

// connect opens a node once.
func (a *agents) connect(ctx context.Context, name string) (*connection, error) {
	a.mu.Lock()
	c := a.open[name]
	if c == nil {
		c = &connection{}
		a.open[name] = c
	}
	a.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c, nil
	}
	node, err := a.lab.Provider.OpenNode(ctx, a.lab.Name, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	socket := path.Join(node.RunDir(), "agent.sock")
	c.node = node
	dial := func(ctx context.Context) (net.Conn, error) { return node.Dial(ctx, "unix", socket) }
	c.client = api.NewMultiplexedClient(dial)
	if a.lab.sharesKernel() {
		c.client = api.NewClient(dial)
	}
	return c, nil
}

// ahead is how much a node's clock is ahead of this machine's, as far as that is
// known: the same for all that is asked of the node.
func (a *agents) ahead(ctx context.Context, c *connection) time.Duration {
	if a.lab.sharesKernel() {
		return 0
	}
	c.clock.Do(func() {
		within, cancel := context.WithTimeout(ctx, a.lab.patient(answerTime))
		defer cancel()
		c.offset, _ = api.ClockOffset(within, c.client) // an agent that does not answer is told by whatever is asked next
	})
	return c.offset
}

// call asks the agent of a node. An agent that does not answer is said to be
// so, with the cure; what an agent answers is passed on as it is.
func call[Request, Response any](ctx context.Context, a *agents, node string, e api.Endpoint[Request, Response], request Request) (Response, error) {
	var none Response
	c, err := a.connect(ctx, node)
	if err != nil {
		return none, err
	}
	within, cancel := context.WithTimeout(ctx, a.lab.patient(answerTime))
	defer cancel()
	response, err := e.Call(within, c.client, request)
	return response, said(ctx, node, err)
}

// said puts the node's name to what its agent answers, and the cure to silence.
func said(ctx context.Context, node string, err error) error {
	var answered *api.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil: // the same words whatever was asked
		return fmt.Errorf("the agent of %s does not answer: it takes calls and keeps silent: %w (labctl up starts it again)", node, context.DeadlineExceeded)
	case !errors.As(err, &answered) && ctx.Err() == nil:
		return fmt.Errorf("the agent of %s does not answer: %w (labctl up starts it again)", node, err)
	}
	return fmt.Errorf("agent of %s: %w", node, err)
}

// probe asks the agent of a node to send packets, which takes as long as it
// takes until ctx ends. An agent that hangs is told by its silence to other
// questions meanwhile, within answerTime and one watchPeriod.
func probe[Request, Response any](ctx context.Context, a *agents, node string, e api.Endpoint[Request, Response], request Request) (Response, error) {
	var none Response
	c, err := a.connect(ctx, node)
	if err != nil {
		return none, err
	}
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		for {
			select {
			case <-watched.Done():
				return
			case <-time.After(watchPeriod):
			}
			within, stop := context.WithTimeout(watched, a.lab.patient(answerTime))
			_, err := api.GetVersion.Call(within, c.client, api.None{})
			stop()
			if err != nil {
				cancel(err)
				return
			}
		}
	}()
	response, err := e.Call(watched, c.client, request)
	if err != nil && ctx.Err() == nil && watched.Err() != nil {
		err = context.Cause(watched)
	}
	return response, said(ctx, node, err)
}
