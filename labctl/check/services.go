package check

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
	"github.com/native-routing/labctl/topologies/topo"
)

// The groups of "verify services", in the order of a report.
const (
	Pods     Group = "pods"
	Maps     Group = "maps"
	Reach    Group = "reach"
	Direct   Group = "direct"
	Service  Group = "service"
	Spread   Group = "spread"
	NodePort Group = "nodeport"
	Source   Group = "source"
	Reverse  Group = "reverse"
	DNS      Group = "dns"
	Drops    Group = "drops"
)

// ServiceGroups lists the groups of "verify services" in their order.
func ServiceGroups() []Group {
	return []Group{Pods, Maps, Reach, Direct, Service, Spread, NodePort, Source, Reverse, DNS, Drops}
}

// ServiceProber looks into the pods and the datapath of a running lab, as
// [Prober] does into its nodes. Pods, Services and Drops are asked only of nodes
// of the cluster.
type ServiceProber interface {
	Prober
	// Services are read from the kernel's maps.
	Services(ctx context.Context, node string) (api.ServiceTable, error)
	Pods(ctx context.Context, node string) (api.PodList, error)
	// Fetch has one result for each target, in order.
	Fetch(ctx context.Context, node string, targets []api.FetchTarget) ([]api.FetchResult, error)
	// Drops are the packets and socket calls that the node's datapath has refused
	// since it was loaded, by the reason in Cilium's words; what was forwarded is not
	// among them.
	Drops(ctx context.Context, node string) (map[string]uint64, error)
	// Status is what the node's agent says of all that it holds.
	Status(ctx context.Context, node string) (api.Status, error)
}

// RunServices verifies the pods and services of a lab, as [Run] does its routes.
func RunServices(ctx context.Context, subject Subject, prober ServiceProber, selection Selection) Report {
	return runServices(ctx, subject, bounded{prober, subject.patient(lookLimit), subject.patient}, selection)
}

// looks is how often a lab is verified whose pods change under the verifier's hands.
const looks = 3

func runServices(ctx context.Context, subject Subject, prober ServiceProber, selection Selection) Report {
	start := time.Now()
	var report Report
	for range looks {
		s := newServices(subject, selection)
		s.run(ctx, prober)
		report = s.report(subject, selection)
		if report.Passed() || !s.changed(ctx, prober) {
			break
		}
	}
	report.Took = time.Since(start)
	return report
}

func (s *services) report(subject Subject, selection Selection) Report {
	report := Report{Lab: subject.Topology.Metadata.Name, Stage: subject.Stage}
	for _, r := range s.judge() {
		if selection.node(r.Node) {
			report.Results = append(report.Results, r)
		}
	}
	report.Warnings = s.warnings
	report.Causes, report.Summary = summarize(report.Results)
	return report
}

// changed says whether pods came, went or became ready since they were looked at.
func (s *services) changed(ctx context.Context, prober ServiceProber) bool {
	var mu sync.Mutex
	changed := false
	s.each(func(node string) {
		if !s.member(node) || s.mute(node) || s.trouble(node) != nil {
			return
		}
		now, err := prober.Pods(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		changed = changed || err == nil && !slices.EqualFunc(s.lists[node].Pods, now.Pods, func(a, b api.PodStatus) bool {
			return a.UID == b.UID && a.Key() == b.Key() && a.Phase == b.Phase && a.Ready == b.Ready && a.PID == b.PID
		})
	})
	return changed
}

// RunAll verifies the routes of a lab, then its services.
func RunAll(ctx context.Context, subject Subject, prober ServiceProber, selection Selection) Report {
	report := Report{Lab: subject.Topology.Metadata.Name, Stage: subject.Stage}
	add := func(part Report) {
		report.Results = append(report.Results, part.Results...)
		report.Warnings = append(report.Warnings, part.Warnings...)
		report.Took += part.Took
	}
	if selection.any(RouteGroups()) {
		add(Run(ctx, subject, prober, selection))
	}
	if selection.any(ServiceGroups()) {
		add(RunServices(ctx, subject, prober, selection))
	}
	report.Causes, report.Summary = summarize(report.Results)
	return report
}

func (s Selection) any(groups []Group) bool { return slices.ContainsFunc(groups, s.has) }

// services is one verification of pods and services. The embedded verification
// follows packets between pods, whose addresses are in its tables as the pod
// gateways' own: packets end where their pod is.
type services struct {
	*verification
	cluster    api.Cluster
	exceptions []topo.Exception
	selection  Selection

	// What was found, by node; a node that could not be asked is in neither map
	// of the pair.
	lists      map[string]api.PodList
	statuses   map[string]api.Status
	tablesOf   map[string]api.ServiceTable
	dropsFirst map[string]map[string]uint64
	dropsLast  map[string]map[string]uint64
	lookErrs   map[string]error

	plan
	differences map[string]map[string][]Cause // of maps, by node and service
	suspects    []string                      // nodes that may be dropping TCP
	swallowers  []netip.AddrPort              // where connections are lost and echoes are not
}

func newServices(subject Subject, selection Selection) *services {
	v := newVerification(subject)
	v.healthy = withPods(v.healthy, subject.Cluster)
	v.flows, v.echoWait = nil, v.patient(fetchTimeout)
	return &services{
		verification: v, cluster: subject.Cluster, exceptions: subject.Exceptions, selection: selection,
		lists: map[string]api.PodList{}, statuses: map[string]api.Status{}, tablesOf: map[string]api.ServiceTable{}, lookErrs: map[string]error{},
		dropsFirst: map[string]map[string]uint64{}, dropsLast: map[string]map[string]uint64{},
		differences: map[string]map[string][]Cause{},
	}
}

// withPods gives every pod's address to its node's pod gateway: that is where a
// packet to the pod ends, as far as routing goes.
func withPods(lab path.Lab, cluster api.Cluster) path.Lab {
	lab.Nodes = slices.Clone(lab.Nodes)
	for i := range lab.Nodes {
		n := &lab.Nodes[i]
		n.Links = slices.Clone(n.Links)
		for k := range n.Links {
			if n.Links[k].Name != path.GatewayDevice {
				continue
			}
			n.Links[k].Addresses = slices.Clone(n.Links[k].Addresses)
			for _, p := range cluster.Pods {
				if p.Node == n.Name {
					n.Links[k].Addresses = append(n.Links[k].Addresses, netip.PrefixFrom(p.Address, p.Address.BitLen()))
				}
			}
		}
	}
	return lab
}

// run looks at all that stands still, then sends and looks again.
func (s *services) run(ctx context.Context, prober ServiceProber) {
	if len(s.cluster.Nodes) == 0 {
		return // no node carries pods
	}
	s.each(func(node string) {
		if s.member(node) {
			s.lookAt(ctx, prober, node)
		}
	})
	s.makePlan()
	s.look(ctx, prober)
	s.observed = withPods(observedLab(s.healthy, s.tables), s.cluster)
	if s.selection.any([]Group{Reach, Direct, Service, Spread, NodePort, Source, Reverse, DNS, Drops}) {
		s.probeServices(ctx, prober)
	}
	s.each(func(node string) {
		if s.member(node) && !s.mute(node) {
			drops, err := prober.Drops(ctx, node)
			s.keep(node, err, func() { s.dropsLast[node] = drops })
			s.lookAtObjects(ctx, prober, node) // what broke meanwhile is told too
		}
	})
}

// mute says whether a node has failed to answer already.
func (s *services) mute(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lookErrs[node] != nil
}

// keep records what a node answered, or why it did not.
func (s *services) keep(node string, err error, record func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.lookErrs[node] = cmp.Or(s.lookErrs[node], err)
		return
	}
	record()
}

func (s *services) lookAt(ctx context.Context, prober ServiceProber, node string) {
	list, err := prober.Pods(ctx, node)
	s.keep(node, err, func() { s.lists[node] = list })
	if errors.Is(err, errHung) || errors.Is(err, context.DeadlineExceeded) {
		s.giveUp(node, err)
	}
	if err != nil {
		return
	}
	s.lookAtObjects(ctx, prober, node)
	table, err := prober.Services(ctx, node)
	if err != nil {
		err = s.unpinned(node, err)
	}
	s.keep(node, err, func() { s.tablesOf[node] = table })
	drops, err := prober.Drops(ctx, node)
	s.keep(node, err, func() { s.dropsFirst[node] = drops })
}

// lookAtObjects asks for what an agent says of all that it holds. Without that
// only causes are missing.
func (s *services) lookAtObjects(ctx context.Context, prober ServiceProber, node string) {
	if status, err := prober.Status(ctx, node); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.statuses[node] = status
	}
}

// giveUp asks nothing more of a node.
func (s *services) giveUp(node string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs[node] = err
}

// probeServices sends echoes, while every node looks out for them, and requests
// to backends and pages. What these tell of the ways decides how often services
// are called.
func (s *services) probeServices(ctx context.Context, prober ServiceProber) {
	s.each(func(node string) {
		if s.trouble(node) == nil {
			s.watch(ctx, prober, node)
		}
	})
	var both sync.WaitGroup
	both.Go(func() { s.exchangeEchoes(ctx, prober) })
	both.Go(func() { s.ask(ctx, prober, s.whole(s.straight()), s.manner()) })
	both.Wait()
	s.repeat(ctx, prober, s.straight(), s.lostOnTheWay)
	s.spare()
	s.ask(ctx, prober, s.whole(s.called()), s.manner())
	s.forgetHalves()
	s.repeat(ctx, prober, s.called(), s.lossExpected)
}

func (s *services) exchangeEchoes(ctx context.Context, prober ServiceProber) {
	s.each(func(node string) {
		if s.trouble(node) == nil && s.selection.node(node) {
			s.sendEchoes(ctx, prober, node)
		}
	})
	s.each(func(node string) {
		if s.trouble(node) == nil {
			s.collect(ctx, prober, node)
		}
	})
	for probe := range s.sightings {
		s.sightings[probe] = slices.DeleteFunc(s.sightings[probe], s.besideTheWay)
	}
}

// straight are the rows to backends' own addresses and to pages.
func (s *services) straight() (rows []int) {
	for _, c := range s.directs {
		rows = append(rows, c.row)
	}
	for _, c := range s.pages {
		rows = append(rows, c.row)
	}
	return rows
}

// called are the rows to services, by address or by name.
func (s *services) called() (rows []int) {
	straight := s.straight()
	slices.Sort(straight)
	for row := range s.rows {
		if _, ok := slices.BinarySearch(straight, row); !ok {
			rows = append(rows, row)
		}
	}
	return rows
}

// lostOnTheWay says whether the echo on the same way as a request was lost too.
func (s *services) lostOnTheWay(row int) bool {
	for _, c := range s.directs {
		if c.row == row {
			return s.followed(c.flow).lost()
		}
	}
	for _, c := range s.pages {
		if c.row == row {
			return s.followed(c.flow).lost()
		}
	}
	return false
}

// lossExpected says whether requests of a row are lost by what is known of the ways.
func (s *services) lossExpected(row int) bool {
	for _, c := range s.balanced {
		if c.row == row {
			return len(c.backends) == 0 || slices.ContainsFunc(s.balancedOf(c).shares, part.lost)
		}
	}
	for _, c := range s.ports {
		if c.row == row {
			return len(c.backends) == 0 || c.flow >= 0 && s.followed(c.flow).lost() || slices.ContainsFunc(s.balancedPort(c).shares, part.lost)
		}
	}
	return false
}

// besideTheWay is a sighting on a device that joins a pod to its node: the way
// of a packet between nodes is told without it, whichever of them the datapath
// passes over.
func (s *services) besideTheWay(seen sighting) bool {
	n, _ := s.healthy.Node(seen.node)
	_, known := n.Link(seen.Device)
	return !known || seen.Device == path.GatewayDevice
}

// judge turns what was found into results, in the fixed order of a report.
func (s *services) judge() []Result {
	if len(s.cluster.Nodes) == 0 {
		return nil
	}
	if !s.cluster.KubeProxyReplacement && len(s.cluster.Services) > 0 && s.selection.any(ServiceGroups()) {
		s.warn(s.say.Sprintf("services do not work here, by the topology's own word: nothing balances them, so they are not checked (cluster.kubeProxyReplacement: true)"))
	}
	s.compareMaps()
	s.suspects = s.filters()
	var results []Result
	for _, g := range []struct {
		group Group
		judge func() []Result
	}{
		{Pods, s.judgePods}, {Maps, s.judgeMaps}, {Reach, s.judgeReach}, {Direct, s.judgeDirect},
		{Service, s.judgeServices}, {Spread, s.judgeSpread}, {NodePort, s.judgeNodePorts},
		{Source, s.judgeSources}, {Reverse, s.judgeReverse}, {DNS, s.judgeNames}, {Drops, s.judgeDrops},
	} {
		if s.selection.has(g.group) {
			results = append(results, g.judge()...)
		}
	}
	return results
}

// member says whether a node is one of the cluster's.
func (s *services) member(node string) bool {
	return slices.ContainsFunc(s.cluster.Nodes, func(n api.Node) bool { return n.Name == node })
}

// unseen marks a result about a node that could not be asked.
func (s *services) unseen(r Result, node string) Result {
	r = s.unknown(r, node)
	if err := s.lookErrs[node]; err != nil {
		r.Causes = []Cause{{Node: node, Reason: err.Error()}}
	}
	return r
}

// shortKey is the key of a pod or a service without the namespace that goes
// without saying.
func shortKey(key string) string { return strings.TrimPrefix(key, "default/") }
