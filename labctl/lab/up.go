package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

const (
	// parallel bounds how many nodes are worked on at once.
	parallel = 16
	// settleTime is how long agents may take to hold what they were given, and
	// settleEach what each node adds: on one machine all of them load their
	// programs at once.
	settleTime = 15 * time.Second
	settleEach = time.Second
	// An agent is asked again after settlePoll, then less and less often.
	settlePoll = 5 * time.Millisecond
	settleSlow = 100 * time.Millisecond
	// openTime is how long an agent may take until it answers for the first
	// time. It takes milliseconds; one that hangs is started anew after this.
	openTime = 2 * time.Second
)

// Wanted is what up is asked for.
type Wanted struct {
	Topology *topo.Topology
	Source   string
	Digest   string
	// Stage is entered. Where it is empty, the lab stays in the stage that it is
	// in, and a new lab begins in the topology's first.
	Stage string
	// Objects are the topology's workloads.
	Objects manifest.Objects
}

// UpReport is what up did.
type UpReport struct {
	Lab     string             `json:"lab"`
	Stage   string             `json:"stage,omitempty"`
	Changes []provision.Change `json:"changes"`
	// Workloads are the topology's objects, and what became of each.
	Workloads []workload.Change `json:"workloads,omitempty"`
	// Refused are the objects that agents will not make, and why.
	Refused []Refusal     `json:"refused,omitempty"`
	Remarks []string      `json:"remarks,omitempty"`
	Took    time.Duration `json:"tookNanoseconds"`
}

// Refusal is an object that an agent refuses.
type Refusal struct {
	Node   string `json:"node"`
	Object string `json:"object"`
	Reason string `json:"reason"`
}

// up is one run of Up.
type up struct {
	*Lab
	topology *topo.Topology // that of the stage
	saved    Saved
	agents   *agents
	states   map[string]api.State

	// only are the nodes to work on; all of them where it is empty.
	only []string

	mu     sync.Mutex
	report UpReport
	// equipped are the nodes that were given another executable of the agent.
	equipped map[string]bool
	inPlace  int // objects that the agents hold, after settle
}

// Up makes a lab real, or brings a running one in line with what is wanted. It
// may be repeated and cut short at any moment: each step looks, compares and
// acts, and what is as it should be is left alone.
func (l *Lab) Up(ctx context.Context, wanted Wanted) (UpReport, error) {
	start := time.Now()
	if err := l.Fit(ctx, wanted.Topology); err != nil {
		return UpReport{}, err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return UpReport{}, err
	}
	defer unlock()
	wanted.Stage = l.stageOf(wanted) // another up may have entered it just now
	staged, err := wanted.Topology.Stage(wanted.Stage)
	if err != nil {
		return UpReport{}, err
	}
	saved, workloads, err := l.remember(wanted)
	if err != nil {
		return UpReport{}, err
	}
	u := l.newUp(staged, saved)
	defer u.agents.Close()
	u.report.Lab, u.report.Stage, u.report.Workloads = l.Name, wanted.Stage, workloads
	err = u.run(ctx)
	u.report.Took = time.Since(start)
	return u.report, err
}

// stageOf is the stage that up enters.
func (l *Lab) stageOf(w Wanted) string {
	names := w.Topology.Stages.Names()
	if w.Stage != "" || len(names) == 0 {
		return w.Stage
	}
	if saved, err := l.Store.Load(l.Name); err == nil && slices.Contains(names, saved.Stage) {
		return saved.Stage
	}
	return names[0]
}

func (l *Lab) newUp(staged *topo.Topology, saved Saved) *up {
	u := &up{Lab: l, topology: staged, saved: saved, agents: l.agents(), states: map[string]api.State{}, equipped: map[string]bool{}}
	u.report.Changes = []provision.Change{}
	return u
}

// run is the way of up from top to bottom.
func (u *up) run(ctx context.Context) error {
	return u.carryOut(ctx, []step{
		{name: "nodes", do: u.nodes},
		{name: "links", do: u.links},
		{name: "agents", do: u.startAgents},
		{name: "state", do: u.sendStates},
		{name: "settle", do: u.settle, told: u.standing},
		{name: "prune", do: u.prune},
	})
}

// step is one of a workflow's.
type step struct {
	name string
	do   func(context.Context) error
	// told is what the step says of itself, where that is not its changes.
	told func() string
}

func (u *up) carryOut(ctx context.Context, steps []step) error {
	for _, s := range steps {
		step := u.Story.Start(s.name)
		before := len(u.report.Changes)
		if err := s.do(ctx); err != nil {
			step.Fail(err)
			return fmt.Errorf("%s: %w", s.name, err)
		}
		detail := summary(u.report.Changes[before:])
		if s.told != nil {
			detail = s.told()
		}
		step.Done(detail)
	}
	return nil
}

// summary counts changes by their verb: "4 created, 1 changed".
func summary(changes []provision.Change) string {
	if len(changes) == 0 {
		return "unchanged"
	}
	var parts []string
	for _, verb := range []provision.Verb{provision.Created, provision.Started, provision.Changed, provision.Stopped, provision.Removed} {
		n := 0
		for _, c := range changes {
			if c.Verb == verb {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, verb))
		}
	}
	return strings.Join(parts, ", ")
}

// changed adds to the report. Node by node, each node's changes stay in order.
func (u *up) changed(changes ...provision.Change) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.report.Changes = append(u.report.Changes, changes...)
}

// names are the nodes to work on, in the order of the file.
func (u *up) names() []string {
	return slices.DeleteFunc(u.topology.Nodes.Names(), func(n string) bool {
		return len(u.only) > 0 && !slices.Contains(u.only, n)
	})
}

// each works on all of them at once, within bounds. The changes come out in the
// order of the file.
func (u *up) each(ctx context.Context, do func(ctx context.Context, node string) ([]provision.Change, error)) error {
	names := u.names()
	changes := make([][]provision.Change, len(names))
	errs := make([]error, len(names))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, name := range names {
		group.Go(func() error {
			changes[i], errs[i] = do(ctx, name)
			return nil
		})
	}
	_ = group.Wait() // the errors of all nodes are joined below
	u.changed(slices.Concat(changes...)...)
	return errors.Join(errs...)
}

// nodes makes every node and puts the agent on it at once: where nodes come one
// after another, as VMs do, a long upload does not wait for the last of them.
func (u *up) nodes(ctx context.Context) error {
	err := u.each(ctx, func(ctx context.Context, node string) ([]provision.Change, error) {
		changes, err := u.Provider.EnsureNode(ctx, u.topology, node)
		if err != nil {
			return changes, err
		}
		return changes, u.equip(ctx, node)
	})
	if err != nil {
		return err
	}
	return u.learnUplinks(ctx)
}

func (u *up) links(ctx context.Context) error {
	changes, err := u.Provider.EnsureLinks(ctx, u.topology)
	u.changed(changes...)
	return err
}

// sendStates gives every agent what it is to hold.
func (u *up) sendStates(ctx context.Context) error {
	cluster, err := u.saved.Workloads.Cluster(u.topology, u.saved.Uplinks)
	if err != nil {
		return err
	}
	for _, name := range u.names() {
		state, err := desired(u.topology, u.saved.Uplinks, cluster, name)
		if err != nil {
			return err
		}
		u.states[name] = state
	}
	return u.each(ctx, func(ctx context.Context, name string) ([]provision.Change, error) {
		before, err := call(ctx, u.agents, name, api.GetStatus, api.None{})
		if err != nil {
			return nil, err
		}
		applied, err := call(ctx, u.agents, name, api.PutState, u.states[name])
		if err != nil {
			return nil, err
		}
		if applied.Changed {
			return []provision.Change{{Verb: provision.Changed, Node: name, Object: "state of its agent", Detail: "generation " + applied.Generation}}, nil
		}
		return setBack(name, before), nil
	})
}

// setBack are the sysctls and the insides of pods that somebody changed, which
// an agent puts right when it is given its state.
func setBack(node string, before api.Status) []provision.Change {
	var changes []provision.Change
	for _, o := range before.Objects {
		if (o.Kind == "sysctl" || o.Kind == "pod") && o.Condition == api.Drifted {
			changes = append(changes, provision.Change{Verb: provision.Changed, Node: node, Object: o.Kind + " " + o.Name, Detail: "was drifted: " + o.Reason})
		}
	}
	return changes
}

// settle waits until every agent holds what it was given, object by object.
func (u *up) settle(ctx context.Context) error {
	patience := u.patient(settleTime + time.Duration(len(u.topology.Nodes))*settleEach)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	refused := make(map[string][]Refusal)
	var mu sync.Mutex
	err := u.each(ctx, func(ctx context.Context, name string) ([]provision.Change, error) {
		status, err := u.settled(ctx, name, patience)
		mu.Lock()
		defer mu.Unlock()
		for _, o := range status.Objects {
			if o.Condition == api.InPlace {
				u.inPlace++
			}
			if o.Condition == api.Refused {
				refused[name] = append(refused[name], Refusal{name, o.Kind + " " + o.Name, o.Reason})
			}
		}
		return nil, err
	})
	for _, name := range u.names() {
		u.report.Refused = append(u.report.Refused, refused[name]...)
	}
	return err
}

// standing is how the objects of all agents stand after settle.
func (u *up) standing() string {
	s := fmt.Sprintf("%d objects in place", u.inPlace)
	if n := len(u.report.Refused); n > 0 {
		s += fmt.Sprintf(", %d refused", n)
	}
	return s
}

// settled asks one agent until it has settled, and names what is not there when
// ctx ends, after patience. One that is too busy to answer is asked again.
func (u *up) settled(ctx context.Context, node string, patience time.Duration) (api.Status, error) {
	var last api.Status
	for pause := settlePoll; ; pause = min(pause*3/2, settleSlow) {
		status, err := call(ctx, u.agents, node, api.GetStatus, api.None{})
		switch {
		case err == nil && status.Settled && status.Generation == u.states[node].Generation:
			return status, nil
		case err == nil:
			last = status
		case ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded):
			return status, err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return last, ctx.Err() // interrupted
			}
			return last, unsettled(node, last, patience)
		case <-time.After(pause):
		}
	}
}

func unsettled(node string, status api.Status, patience time.Duration) error {
	var objects []string
	for _, o := range status.Objects {
		if o.Condition == api.Failed || o.Condition == api.Pending {
			objects = append(objects, strings.TrimSuffix(fmt.Sprintf("%s %s is %s: %s", o.Kind, o.Name, o.Condition, o.Reason), ": "))
		}
	}
	if len(objects) == 0 {
		objects = []string{"its agent did not say why"}
	}
	return fmt.Errorf("%s has not settled after %s: %s", node, patience, strings.Join(objects, "; "))
}

// prune removes what an earlier topology of the same lab had and this one has not.
func (u *up) prune(ctx context.Context) error {
	seen, err := u.Provider.Observe(ctx, u.Name)
	if err != nil {
		return err
	}
	u.report.Remarks = append(seen.Remarks, unplaced(u.saved.Workloads)...)
	var stale []string
	for _, n := range seen.Nodes {
		if _, wanted := u.topology.Nodes.Get(n.Name); !wanted {
			stale = append(stale, n.Name)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	changes, err := u.Provider.Destroy(ctx, u.Name, stale...)
	u.changed(changes...)
	return err
}
