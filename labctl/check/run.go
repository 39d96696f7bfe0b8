package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
	"github.com/native-routing/labctl/topologies/topo"
)

// Subject is what is verified: a lab in one of its stages.
type Subject struct {
	// Topology is that of the stage, as it was deployed.
	Topology   *topo.Topology
	Stage      string
	Exceptions []topo.Exception
	Uplinks    topo.Uplinks
	// Cluster is what the agents were told last, with the containers of all pods.
	// Only services need it.
	Cluster api.Cluster
	// Patience is how many times as long as a namespace of this machine the lab's
	// nodes may take for everything: emulated machines are slow. 0 is 1.
	Patience int
	// Say puts what the report says to a reader into the reader's language. Names,
	// commands, and what kernels, agents and pods say of themselves stay as they are.
	Say lang.Printer
}

func (s Subject) patience() int { return max(s.Patience, 1) }

// patient is how long to wait for what takes d at most on a namespace.
func (s Subject) patient(d time.Duration) time.Duration { return d * time.Duration(s.patience()) }

// Selection narrows a verification; empty means all.
type Selection struct {
	Nodes  []string
	Groups []Group
}

func (s Selection) has(g Group) bool { return len(s.Groups) == 0 || slices.Contains(s.Groups, g) }

func (s Selection) node(n string) bool { return len(s.Nodes) == 0 || slices.Contains(s.Nodes, n) }

// verification is one run: what must hold, and what was found.
type verification struct {
	say      lang.Printer
	topology *topo.Topology
	healthy  path.Lab
	flows    []flow
	session  uint32
	echoWait time.Duration // how long an echo is waited for
	patience int           // times as long as on namespaces

	mu        sync.Mutex
	errs      map[string]error // why nothing can be told of a node
	probeErrs map[string]error // why its probes told nothing
	tables    map[string]api.Tables
	decisions map[string][]api.Decision
	echoes    map[int]api.PingResult // by flow
	traced    map[int]api.TraceResult
	sightings map[uint32][]sighting // by probe
	warnings  []string
	// witnessing are the nodes that looked out for packets from start to end.
	witnessing map[string]bool
	// blind are those that did not, and why.
	blind map[string]error

	observed path.Lab
}

// Run verifies the routes of a lab. It always returns a report: what could not
// be told is in it, with the reason. ctx ends it early, as unknown.
func Run(ctx context.Context, subject Subject, prober Prober, selection Selection) Report {
	start := time.Now()
	v := newVerification(subject)
	v.look(ctx, prober)
	v.observed = observedLab(v.healthy, v.tables)
	if selection.has(Ping) || selection.has(Tracepath) {
		v.probe(ctx, prober, selection)
	}
	report := Report{Lab: subject.Topology.Metadata.Name, Stage: subject.Stage, Warnings: v.warnings}
	for _, r := range v.judge(selection) {
		if selection.node(r.Node) {
			report.Results = append(report.Results, r)
		}
	}
	report.Causes, report.Summary = summarize(report.Results)
	report.Took = time.Since(start)
	return report
}

func newVerification(s Subject) *verification {
	healthy := path.Predict(s.Topology, s.Uplinks)
	return &verification{
		say:      s.Say,
		topology: s.Topology, healthy: healthy, flows: flows(s.Topology, s.Exceptions, healthy), session: rand.Uint32(),
		patience: s.patience(), echoWait: s.patient(echoTimeout),
		errs: map[string]error{}, probeErrs: map[string]error{}, tables: map[string]api.Tables{}, decisions: map[string][]api.Decision{},
		echoes: map[int]api.PingResult{}, traced: map[int]api.TraceResult{}, sightings: map[uint32][]sighting{},
		witnessing: map[string]bool{}, blind: map[string]error{},
	}
}

// patient is how long to wait for what takes d at most on a namespace.
func (v *verification) patient(d time.Duration) time.Duration { return d * time.Duration(v.patience) }

// each calls do for every node at once and waits.
func (v *verification) each(do func(node string)) {
	var all sync.WaitGroup
	for _, n := range v.healthy.Nodes {
		all.Go(func() { do(n.Name) })
	}
	all.Wait()
}

// look reads the tables of every node and asks its FIB.
func (v *verification) look(ctx context.Context, prober Prober) {
	v.each(func(node string) {
		if v.trouble(node) != nil {
			return
		}
		tables, err := prober.Tables(ctx, node)
		var decisions []api.Decision
		if err == nil {
			decisions, err = prober.Lookup(ctx, node, v.queries(node))
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		if err != nil {
			v.errs[node] = err
			return
		}
		v.tables[node], v.decisions[node] = tables, decisions
	})
}

// probe sends the packets, while every node looks out for them.
func (v *verification) probe(ctx context.Context, prober Prober, selection Selection) {
	v.each(func(node string) {
		if v.trouble(node) == nil {
			v.watch(ctx, prober, node)
		}
	})
	v.each(func(node string) {
		if v.trouble(node) == nil && selection.node(node) {
			v.send(ctx, prober, node, selection)
		}
	})
	v.each(func(node string) {
		if v.trouble(node) == nil {
			v.collect(ctx, prober, node)
		}
	})
}

// send pings and traces from one node, both at once.
func (v *verification) send(ctx context.Context, prober Prober, node string, selection Selection) {
	var both sync.WaitGroup
	if targets, flows := v.pings(node); selection.has(Ping) && len(targets) > 0 {
		both.Go(func() {
			results, err := within(ctx, v.patient(pingLimit(targets)), func(ctx context.Context) ([]api.PingResult, error) { return prober.Ping(ctx, node, targets) })
			record(v, node, v.echoes, flows, results, err)
		})
	}
	if targets, flows := v.traces(node); selection.has(Tracepath) && len(targets) > 0 {
		both.Go(func() {
			results, err := within(ctx, v.patient(traceLimit(targets)), func(ctx context.Context) ([]api.TraceResult, error) { return prober.Trace(ctx, node, targets) })
			record(v, node, v.traced, flows, results, err)
		})
	}
	both.Wait()
}

// watch lets a node look out for packets.
func (v *verification) watch(ctx context.Context, prober Prober, node string) {
	if err := prober.StartWitness(ctx, node, v.session); err != nil {
		v.blinded(node, fmt.Errorf("%s: %w", v.say.Sprintf("does not look out for packets"), err))
	}
}

// blinded notes why nobody saw what passed a node.
func (v *verification) blinded(node string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.blind[node] == nil {
		v.blind[node] = err
		v.warnings = append(v.warnings, node+" "+err.Error())
	}
}

func record[T any](v *verification, node string, into map[int]T, flows []int, results []T, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.probeErrs[node] = err
		return
	}
	for i, r := range results {
		into[flows[i]] = r
	}
}

func (v *verification) collect(ctx context.Context, prober Prober, node string) {
	if after, err := prober.Tables(ctx, node); err == nil {
		v.meet(node, after.Neighbours)
	}
	seen, err := prober.StopWitness(ctx, node, v.session)
	if err != nil {
		v.blinded(node, fmt.Errorf("%s: %w", v.say.Sprintf("does not tell which packets it saw"), err))
		return
	}
	if seen.Dropped > 0 {
		v.blinded(node, errors.New(v.say.Sprintf("could not look at all packets, so where some were lost is not known")))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.witnessing[node] = seen.Dropped == 0
	for _, s := range seen.Sightings {
		v.sightings[s.Probe] = append(v.sightings[s.Probe], sighting{node, s})
	}
}

// meet takes a node's neighbour table as it is after the probes: what they
// could not resolve is in it now.
func (v *verification) meet(node string, neighbours []api.Neighbour) {
	v.mu.Lock()
	defer v.mu.Unlock()
	tables := v.tables[node]
	tables.Neighbours = neighbours
	v.tables[node] = tables
}

// trouble is why nothing can be told of a node; nil where something can.
func (v *verification) trouble(node string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.errs[node]
}

func (v *verification) warn(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.warnings = append(v.warnings, text)
}

// judge turns what was found into results, in the fixed order of a report.
func (v *verification) judge(selection Selection) []Result {
	var results []Result
	perNode := func(g Group, do func(path.Node) []Result) {
		if !selection.has(g) {
			return
		}
		for _, n := range v.healthy.Nodes {
			results = append(results, do(n)...)
		}
	}
	perNode(Interfaces, v.interfaces)
	perNode(Forwarding, func(n path.Node) []Result { return []Result{v.forwarding(n)} })
	perNode(Routes, func(n path.Node) []Result { return []Result{v.routes(n)} })
	perNode(FIB, v.fib)
	for i := range v.flows {
		if selection.has(Ping) {
			results = append(results, v.ping(i))
		}
	}
	for i, f := range v.flows {
		if selection.has(Tracepath) && traced(f) {
			results = append(results, v.tracepath(i))
		}
	}
	return results
}

// seen returns a node as its kernel has it; false where that is not known.
func (v *verification) seen(node string) (path.Node, bool) {
	if _, ok := v.tables[node]; !ok {
		return path.Node{}, false
	}
	return v.observed.Node(node)
}

// unknown marks a result that could not be told, with the reason.
func (v *verification) unknown(r Result, node string) Result {
	return v.untold(r, node, cmp.Or(v.errs[node], v.probeErrs[node]))
}

// unwitnessed is the same where a node on the way did not look out for packets.
func (v *verification) unwitnessed(r Result, node string) Result {
	return v.untold(r, node, cmp.Or(v.errs[node], v.blind[node]))
}

func (v *verification) untold(r Result, node string, err error) Result {
	err = cmp.Or(err, errors.New(v.say.Sprintf("the verification ended before it was asked")))
	r.Outcome, r.Seen = Unknown, v.say.Sprintf("could not be told")
	r.Causes = []Cause{{Node: node, Reason: err.Error()}}
	return r
}

// summarize counts the outcomes, and finds which causes explain the most.
func summarize(results []Result) ([]CauseCount, map[Outcome]int) {
	summary := map[Outcome]int{}
	var causes []CauseCount
	for _, r := range results {
		summary[r.Outcome]++
		for _, c := range r.Causes {
			at := slices.IndexFunc(causes, func(k CauseCount) bool { return k.Cause == c.fault() })
			if at < 0 {
				causes = append(causes, CauseCount{Cause: c.fault()})
				at = len(causes) - 1
			}
			causes[at].Results++
		}
	}
	slices.SortStableFunc(causes, func(a, b CauseCount) int { return b.Results - a.Results })
	return causes, summary
}
