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

// answerTime is how long an agent may take to answer. The longest of its
// operations, a trace into silence, takes about one second.
const answerTime = 4 * time.Second

// agents are the connections to the agents of one lab, each opened when it is
// first needed and kept until Close.
type agents struct {
	lab *Lab

	mu   sync.Mutex
	open map[string]*connection
}

type connection struct {
	node   provision.Node
	client *api.Client
}

func (l *Lab) agents() *agents { return &agents{lab: l, open: map[string]*connection{}} }

// Close drops every connection.
func (a *agents) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.open {
		c.client.Close()
		_ = c.node.Close() // nothing was written that could be lost
	}
	a.open = map[string]*connection{}
}

// connect opens a node once.
func (a *agents) connect(ctx context.Context, name string) (*connection, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.open[name]; c != nil {
		return c, nil
	}
	node, err := a.lab.Provider.OpenNode(ctx, a.lab.Name, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	socket := path.Join(node.RunDir(), "agent.sock")
	c := &connection{node: node, client: api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return node.Dial(ctx, "unix", socket)
	})}
	a.open[name] = c
	return c, nil
}

// call asks the agent of a node. An agent that does not answer is said to be
// so, with the cure; what an agent answers is passed on as it is.
func call[Request, Response any](ctx context.Context, a *agents, node string, e api.Endpoint[Request, Response], request Request) (Response, error) {
	var none Response
	c, err := a.connect(ctx, node)
	if err != nil {
		return none, err
	}
	within, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	response, err := e.Call(within, c.client, request)
	var answered *api.Error
	if err != nil && !errors.As(err, &answered) && ctx.Err() == nil {
		return none, fmt.Errorf("the agent of %s does not answer: %w (labctl up starts it again)", node, err)
	}
	if err != nil {
		return none, fmt.Errorf("agent of %s: %w", node, err)
	}
	return response, nil
}
