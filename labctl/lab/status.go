package lab

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// StatusReport is how a lab stands.
type StatusReport struct {
	Lab      string       `json:"lab"`
	Provider string       `json:"provider"`
	Stage    string       `json:"stage,omitempty"`
	Source   string       `json:"source"`
	Since    time.Time    `json:"since"`
	Nodes    []NodeStatus `json:"nodes"`
	Remarks  []string     `json:"remarks,omitempty"`
}

// NodeStatus is how one node stands.
type NodeStatus struct {
	Name      string              `json:"name"`
	Role      topo.Role           `json:"role,omitempty"`
	State     provision.NodeState `json:"state"`
	Detail    string              `json:"detail,omitempty"`
	Addresses []string            `json:"addresses,omitempty"`
	PodCIDR   string              `json:"podCIDR,omitempty"`
	// Agent is what the node's agent says; nil where it does not answer, and
	// AgentError is why.
	Agent      *api.Status `json:"agent,omitempty"`
	AgentError string      `json:"agentError,omitempty"`
}

// The states of a node beyond those that a provider knows.
const (
	nodeMissing provision.NodeState = "missing" // up makes it
	nodeStale   provision.NodeState = "stale"   // not of the topology any more; up removes it
)

// Healthy means that every node runs, and its agent holds all it was given with
// nothing changed behind its back.
func (r StatusReport) Healthy() bool {
	return !slices.ContainsFunc(r.Nodes, func(n NodeStatus) bool {
		return n.State != provision.NodeRunning || n.Agent == nil || !n.Agent.Settled || n.Count(api.Drifted)+n.Count(api.Failed) > 0
	})
}

// Count returns how many objects of the node are in a condition.
func (n NodeStatus) Count(c api.Condition) int {
	if n.Agent == nil {
		return 0
	}
	count := 0
	for _, o := range n.Agent.Objects {
		if o.Condition == c {
			count++
		}
	}
	return count
}

// Status looks at every node of the lab. What cannot be told of a node is in
// the report, not an error.
func (l *Lab) Status(ctx context.Context) (StatusReport, error) {
	seen, err := l.observe(ctx)
	if err != nil {
		return StatusReport{}, err
	}
	agents := l.agents()
	defer agents.Close()
	return l.look(ctx, agents, seen)
}

// observe finds what there is of the lab on the machine.
func (l *Lab) observe(ctx context.Context) (provision.Observation, error) {
	seen, err := l.Provider.Observe(ctx, l.Name)
	if err != nil {
		return seen, fmt.Errorf("look for lab %s: %w", l.Name, err)
	}
	return seen, nil
}

// look asks the agents of the nodes that were seen to run.
func (l *Lab) look(ctx context.Context, agents *agents, seen provision.Observation) (StatusReport, error) {
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return StatusReport{}, err
	}
	report := StatusReport{
		Lab: l.Name, Provider: saved.Provider, Stage: saved.Stage, Source: saved.Source, Since: saved.Since,
		Nodes: nodeStates(saved.Topology, seen), Remarks: slices.Concat(seen.Remarks, unplaced(saved.Workloads)),
	}
	var all sync.WaitGroup
	for i := range report.Nodes {
		node := &report.Nodes[i]
		if node.State != provision.NodeRunning {
			continue
		}
		all.Go(func() {
			status, err := call(ctx, agents, node.Name, api.GetStatus, api.None{})
			if err != nil {
				node.AgentError = err.Error()
				return
			}
			node.Agent = &status
		})
	}
	all.Wait()
	return report, ctx.Err()
}

// Drifts are what of a node is not as its stage has it.
func (n NodeStatus) Drifts() []Drift {
	if n.Agent == nil {
		return nil
	}
	return driftsOf(n.Name, *n.Agent)
}

// nodeStates joins the nodes that should be with those that are.
func nodeStates(t *topo.Topology, seen provision.Observation) []NodeStatus {
	var states []NodeStatus
	for name, n := range t.Nodes.All() {
		s := NodeStatus{Name: name, Role: n.Role, State: nodeMissing, Detail: "labctl up makes it"}
		for _, iface := range n.Interfaces.All() {
			s.Addresses = append(s.Addresses, iface.Address.Addr().String())
		}
		if n.PodCIDR.IsValid() {
			s.PodCIDR = n.PodCIDR.String()
		}
		for _, o := range seen.Nodes {
			if o.Name == name {
				s.State, s.Detail = o.State, o.Detail
			}
		}
		states = append(states, s)
	}
	for _, o := range seen.Nodes {
		if _, wanted := t.Nodes.Get(o.Name); !wanted {
			states = append(states, NodeStatus{Name: o.Name, State: nodeStale, Detail: "labctl up removes it"})
		}
	}
	return states
}
