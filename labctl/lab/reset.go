package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/provision"
)

// cureTime is how long agents may take to see that what a hand added is gone;
// they take a tenth of a second.
const cureTime = 2 * time.Second

// ResetReport is what reset undid, and what it could not.
type ResetReport struct {
	Lab    string             `json:"lab"`
	Stage  string             `json:"stage,omitempty"`
	Undone []provision.Change `json:"undone"`
	// Left are what still differs from the stage.
	Left []Drift       `json:"left,omitempty"`
	Took time.Duration `json:"tookNanoseconds"`
}

// Drift is an object that is not as the stage has it.
type Drift struct {
	Node   string `json:"node"`
	Object string `json:"object"`
	Reason string `json:"reason"`
	// Cure is the command on the node that takes away what a hand added; empty
	// where there is none.
	Cure string `json:"cure,omitempty"`
}

// Reset brings nodes of the lab back to what its stage says, all of them where
// none is named: it undoes what hands changed, took away and added. It may be cut
// short at any moment and repeated.
func (l *Lab) Reset(ctx context.Context, nodes ...string) (ResetReport, error) {
	start := time.Now()
	report := ResetReport{Lab: l.Name, Undone: []provision.Change{}}
	unlock, err := l.lock(ctx)
	if err != nil {
		return report, err
	}
	defer unlock()
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return report, err
	}
	staged, err := saved.Topology.Stage(saved.Stage)
	if err != nil {
		return report, err
	}
	u := l.newUp(staged, saved)
	defer u.agents.Close()
	steps := u.tuning()
	if len(nodes) > 0 {
		u.only = nodes
		steps[0].do = u.linksOfSome
	}
	err = u.carryOut(ctx, append(steps, step{name: "hands", do: u.undoHands}))
	if err == nil {
		report.Left, err = u.drifts(ctx)
	}
	report.Stage, report.Undone, report.Took = saved.Stage, u.report.Changes, time.Since(start)
	return report, err
}

// linksOfSome is links for the nodes that are meant.
func (u *up) linksOfSome(ctx context.Context) error {
	linker, ok := u.Provider.(provision.NodeLinker)
	if !ok {
		return fmt.Errorf("%s mends the links of all nodes together (labctl reset without a node)", u.Provider.Name())
	}
	changes, err := linker.EnsureNodeLinks(ctx, u.topology, u.names()...)
	u.changed(changes...)
	return err
}

// undoHands takes away what hands added and no step before saw: the agents name
// the command for each. Where the machines are not the lab's it stays.
func (u *up) undoHands(ctx context.Context) error {
	if _, borrowed := u.Provider.(provision.Borrower); borrowed {
		return nil
	}
	before, err := u.drifts(ctx)
	if err != nil {
		return err
	}
	before = slices.DeleteFunc(before, func(d Drift) bool { return d.Cure == "" })
	if len(before) == 0 {
		return nil
	}
	for _, d := range before {
		c, err := u.agents.connect(ctx, d.Node)
		if err != nil {
			return err
		}
		// What went with another, such as a route with its link, is gone already;
		// what stays is seen below.
		_ = c.node.Run(ctx, provision.Command{Argv: strings.Fields(d.Cure)})
	}
	left, err := u.awaited(ctx, before)
	if err != nil {
		return err
	}
	for _, d := range before {
		if !slices.Contains(left, d) {
			u.changed(provision.Change{Verb: provision.Changed, Node: d.Node, Object: d.Object, Detail: d.Cure})
		}
	}
	return nil
}

// awaited are those drifts that there still are when all of them are gone, or
// after cureTime.
func (u *up) awaited(ctx context.Context, drifts []Drift) ([]Drift, error) {
	for until := time.Now().Add(cureTime); ; {
		left, err := u.drifts(ctx)
		if err != nil {
			return nil, err
		}
		left = slices.DeleteFunc(left, func(d Drift) bool { return !slices.Contains(drifts, d) })
		if len(left) == 0 || time.Now().After(until) {
			return left, nil
		}
		select {
		case <-ctx.Done():
			return left, ctx.Err()
		case <-time.After(settlePoll):
		}
	}
}

// drifts asks the agents what is not as the stage has it, in the order of the file.
func (u *up) drifts(ctx context.Context) ([]Drift, error) {
	var mu sync.Mutex
	found := map[string][]Drift{}
	err := u.each(ctx, func(ctx context.Context, node string) ([]provision.Change, error) {
		status, err := call(ctx, u.agents, node, api.GetStatus, api.None{})
		mu.Lock()
		defer mu.Unlock()
		found[node] = driftsOf(node, status)
		return nil, err
	})
	var all []Drift
	for _, node := range u.names() {
		all = append(all, found[node]...)
	}
	return all, err
}

// driftsOf are the objects of a node that somebody changed. A peer that is not
// heard of is no such object: it follows from one, and is heard of again some
// seconds after that is mended.
func driftsOf(node string, status api.Status) []Drift {
	var found []Drift
	for _, o := range status.Objects {
		if o.Condition == api.Drifted && o.Kind != "peer" {
			found = append(found, Drift{Node: node, Object: o.Kind + " " + o.Name, Reason: o.Reason, Cure: o.Cure})
		}
	}
	return found
}
