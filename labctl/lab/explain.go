package lab

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/explain"
	"github.com/native-routing/labctl/labctl/ladder"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
)

// ExplainRequest is what to explain, as it was typed.
type ExplainRequest struct {
	From, To string
	explain.Options
	// Probe sends packets and lets all nodes capture them.
	Probe bool
	// Timeout is how long an answer is waited for.
	Timeout time.Duration
	Printer lang.Printer
}

// maxRounds bounds how often the kernels are asked for more: each hop takes one.
const maxRounds = 100

// ErrEndless is a way whose questions do not end.
var ErrEndless = errors.New("the way does not end")

// Explain follows one packet and its reply, by the kernels' own answers, and
// then by what captures on all nodes see of it.
func (l *Lab) Explain(ctx context.Context, r ExplainRequest) (explain.Report, error) {
	report := explain.Report{Lab: l.Name, From: r.From, To: r.To}
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return report, err
	}
	report.Stage = saved.Stage
	agents := l.agents()
	defer agents.Close()
	w, err := l.world(ctx, agents, saved)
	if err != nil {
		return report, err
	}
	if report.Question, err = w.Ask(r.From, r.To, r.Options); err != nil {
		return report, err
	}
	x := explainer{agents: agents, world: w}
	if report.Ways, err = x.predict(ctx, report.Question); err != nil {
		return report, err
	}
	report.Verdict = explain.Judge(r.Printer, w, report.Question, report.Ways)
	for _, n := range w.Nodes {
		if n.Silent != "" {
			report.Warnings = append(report.Warnings, n.Silent)
		}
		report.Warnings = append(report.Warnings, n.Missing...)
	}
	if r.Probe && r.SourcePort == 0 { // a probe would be another connection
		x.observe(ctx, r, &report)
	}
	return report, ctx.Err()
}

// world is the lab with what all nodes hold, as far as they answer.
func (l *Lab) world(ctx context.Context, agents *agents, saved Saved) (*explain.World, error) {
	staged, err := saved.Topology.Stage(saved.Stage)
	if err != nil {
		return nil, err
	}
	w := &explain.World{
		Planned: path.Predict(staged, saved.Uplinks),
		Answers: map[explain.Ask]api.PathDecision{}, Places: map[explain.Place]bool{},
	}
	w.Wires = w.Planned.Wires
	if w.Cluster, err = saved.Workloads.Cluster(staged, saved.Uplinks); err != nil {
		return nil, err
	}
	for _, s := range saved.Topology.Stages {
		if s.Name == staged.Stages[0].Name {
			continue
		}
		other, err := saved.Topology.Stage(s.Name)
		if err != nil {
			return nil, err
		}
		w.Stages = append(w.Stages, explain.Stage{Name: s.Name, Lab: path.Predict(other, saved.Uplinks), Masquerade: other.Cluster.Masquerade})
	}
	w.Nodes = make([]explain.Node, len(w.Planned.Nodes))
	var all sync.WaitGroup
	for i, n := range w.Planned.Nodes {
		all.Go(func() {
			snapshot, err := call(ctx, agents, n.Name, api.GetSnapshot, api.SnapshotRequest{})
			w.Nodes[i] = explain.Node{Name: n.Name, Snapshot: snapshot}
			if err != nil {
				w.Nodes[i].Silent = err.Error()
			}
		})
	}
	all.Wait()
	return w, ctx.Err()
}

// explainer asks the agents what a prediction lacks.
type explainer struct {
	agents *agents
	world  *explain.World
}

func (x explainer) predict(ctx context.Context, q explain.Question) ([]explain.Way, error) {
	if q.Packet.SourcePort != 0 {
		x.world.Places[explain.Place{Node: q.From.Node}] = true
		if err := x.look(ctx, q.From.Node, nil, []netip.Addr{q.Packet.From}); err != nil {
			return nil, err
		}
	}
	for range maxRounds {
		ways, open := explain.Predict(x.world, q)
		if len(open) == 0 {
			return ways, nil
		}
		if err := x.ask(ctx, open); err != nil {
			return nil, err
		}
	}
	return nil, ErrEndless
}

// ask fetches the answers to open questions, of all nodes at once.
func (x explainer) ask(ctx context.Context, open []explain.Ask) error {
	queries, pods := map[string][]explain.Ask{}, map[string][]string{}
	for _, a := range open {
		if a.Query == (api.PathQuery{}) {
			pods[a.Node] = append(pods[a.Node], a.Pod)
			x.world.Places[a.Place] = true
			continue
		}
		queries[a.Node] = append(queries[a.Node], a)
	}
	for node, keys := range pods {
		if err := x.look(ctx, node, keys, nil); err != nil {
			return err
		}
	}
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for _, node := range slices.Sorted(maps.Keys(queries)) {
		all.Go(func() {
			decisions, err := x.paths(ctx, node, queries[node])
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			for i, d := range decisions {
				x.world.Answers[queries[node][i]] = d
			}
		})
	}
	all.Wait()
	return failed
}

func (x explainer) paths(ctx context.Context, node string, asks []explain.Ask) ([]api.PathDecision, error) {
	request := api.PathRequest{}
	for _, a := range asks {
		request.Queries = append(request.Queries, a.Query)
	}
	r, err := call(ctx, x.agents, node, api.LookupPaths, request)
	return answers(node, r.Decisions, len(asks), err)
}

// look fetches the tables of pods of a node, and the flows of clients.
func (x explainer) look(ctx context.Context, node string, pods []string, clients []netip.Addr) error {
	snapshot, err := call(ctx, x.agents, node, api.GetSnapshot, api.SnapshotRequest{Pods: pods, Flows: clients})
	if err != nil {
		return err
	}
	for i := range x.world.Nodes {
		n := &x.world.Nodes[i]
		if n.Name != node {
			continue
		}
		if n.Spaces == nil {
			n.Spaces = map[string]api.Space{}
		}
		maps.Copy(n.Spaces, snapshot.Spaces)
		n.Flows = append(n.Flows, snapshot.Flows...)
		n.Missing = append(n.Missing, snapshot.Missing...)
	}
	return nil
}

// observe sends a probe for each way, one after another so that none is taken
// for another, and compares. What cannot be observed is a warning: the
// prediction stands.
func (x explainer) observe(ctx context.Context, r ExplainRequest, report *explain.Report) {
	p, places := r.Printer, x.places()
	ways := report.Ways
	if !ways[0].AtSender() {
		ways = ways[:1] // who chooses among them is on the way, and chooses once
	}
	for i, way := range ways {
		probe := probeOf(report.Question, way)
		probe.Timeout = r.Timeout
		seen, err := ladder.Observe(ctx, prober{x.agents}, probe, places)
		if err != nil {
			report.Warnings = append(report.Warnings, p.Sprintf("no packet was sent: %s", err))
			return
		}
		report.Observed = append(report.Observed, seen)
		candidates := report.Ways[i : i+1]
		if len(ways) < len(report.Ways) {
			candidates = report.Ways
		}
		if report.Headline == "" {
			report.Headline = explain.CompareAny(p, candidates, seen)
		}
	}
}

// places are where captures are made: all nodes that answer, and the pods that matter.
func (x explainer) places() []ladder.Place {
	var places []ladder.Place
	for _, n := range x.world.Nodes {
		if n.Silent != "" {
			continue
		}
		places = append(places, ladder.Place{Node: n.Name})
		for _, key := range slices.Sorted(maps.Keys(n.Spaces)) {
			places = append(places, ladder.Place{Node: n.Name, Pod: key})
		}
	}
	return places
}

// probeOf is the packet that takes a way: straight to its backend, for a socket
// that calls a service sends there.
func probeOf(q explain.Question, way explain.Way) ladder.Probe {
	probe := ladder.Probe{
		Node: q.From.Node, Pod: q.From.Pod, From: q.Packet.From, To: q.Packet.To, Port: q.Packet.Port, Protocol: q.Packet.Protocol,
		DontFragment: q.Packet.DontFragment,
	}
	if way.AtSender() {
		probe.To, probe.Port = way.Backend.Addr(), way.Backend.Port()
	}
	const headers = 28 // of IPv4 and of an echo
	if q.Packet.Protocol == ladder.ICMP {
		probe.Size = max(q.Packet.Size-headers, 0)
	}
	return probe
}
