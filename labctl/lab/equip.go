package lab

import (
	"context"
	"fmt"
	"maps"
	"path"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// equip puts the agent's executable on a node.
func (u *up) equip(ctx context.Context, node string) error {
	c, err := u.agents.connect(ctx, node)
	if err != nil {
		return err
	}
	agent, err := u.agentFile(c.node.Arch())
	if err != nil {
		return err
	}
	put, err := c.node.Put(ctx, agent)
	if err != nil {
		return fmt.Errorf("put the agent on %s: %w", node, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.equipped[node] = put
	return nil
}

// learnUplinks looks at the uplink of every node, and keeps those that are not
// as VirtualBox makes them: the agents watch them, and checks expect them.
func (u *up) learnUplinks(ctx context.Context) error {
	seen := maps.Clone(u.saved.Uplinks)
	if seen == nil {
		seen = topo.Uplinks{}
	}
	err := u.each(ctx, func(ctx context.Context, name string) ([]provision.Change, error) {
		c, err := u.agents.connect(ctx, name)
		if err != nil {
			return nil, err
		}
		uplink, err := c.node.Uplink(ctx)
		if err != nil {
			return nil, fmt.Errorf("look at the uplink of %s: %w", name, err)
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		if uplink == topo.NATUplink() {
			delete(seen, name)
		} else {
			seen[name] = uplink
		}
		return nil, nil
	})
	if err != nil {
		return err
	}
	if maps.Equal(seen, u.saved.Uplinks) {
		return nil
	}
	u.saved.Uplinks = seen
	return u.Store.Save(u.Name, u.saved)
}

// startAgents keeps the agent running on every node.
func (u *up) startAgents(ctx context.Context) error {
	return u.each(ctx, func(ctx context.Context, name string) ([]provision.Change, error) {
		c, err := u.agents.connect(ctx, name)
		if err != nil {
			return nil, err
		}
		service := provision.Service{
			Name: "agent",
			Argv: []string{path.Join(c.node.Dir(), "agent"), "--run", c.node.RunDir(), "--data", c.node.Dir(),
				"--bpf", c.node.BPFDir(), "--cgroup", c.node.Cgroup()},
		}
		changes, err := c.node.EnsureService(ctx, service)
		if err == nil && u.answers(ctx, name) != nil {
			service.Restart = "it did not answer"
			var again []provision.Change
			again, err = c.node.EnsureService(ctx, service)
			changes = append(changes, again...)
			if err == nil {
				err = u.answers(ctx, name)
			}
		}
		if err != nil {
			return changes, fmt.Errorf("start the agent of %s: %w (its log is %s)", name, err, path.Join(c.node.Dir(), "agent.log"))
		}
		if u.equipped[name] && len(changes) == 0 {
			changes = []provision.Change{{Verb: provision.Created, Node: name, Object: "executable of its agent"}}
		}
		return changes, nil
	})
}

// answers asks an agent that was started for its version, until it has opened
// its socket.
func (u *up) answers(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, u.patient(openTime))
	defer cancel()
	for {
		_, err := call(ctx, u.agents, node, api.GetVersion, api.None{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Millisecond):
		}
	}
}
