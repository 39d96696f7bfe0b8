//go:build linux

package daemon

import (
	"context"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/vishvananda/netns"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/bgp"
	"github.com/native-routing/labctl/agent/datapath"
	"github.com/native-routing/labctl/agent/dns"
	"github.com/native-routing/labctl/agent/lb"
	"github.com/native-routing/labctl/agent/peer"
	"github.com/native-routing/labctl/agent/pod"
	"github.com/native-routing/labctl/agent/probe"
	"github.com/native-routing/labctl/agent/route"
	"github.com/native-routing/labctl/agent/web"
)

// part is one concern of a node. Each looks, compares and acts by itself.
type part interface {
	// Set gives the state to hold, and returns at once.
	Set(api.State)
	// Run works until ctx ends, and leaves everything in place.
	Run(context.Context)
	// Objects is how things stand for the state that was set last. Settled means
	// that all of it was looked at, and nothing is pending or failed.
	Objects() (objects []api.Object, settled bool)
}

// parts are all that an agent does, and what they tell each other:
//
//	routes    the pod gateway and routes to other nodes' pods
//	speaker   → the routes that BGP taught to routes
//	pods      → their links and processes to datapath, their readiness to peers
//	datapath  → which pods are reached to peers, and when the tunnel may open to routes
//	peers     → the readiness of all pods to balancer and names
//	datapath  → its maps to balancer
//	balancer  → which addresses became services to datapath
type parts struct {
	routes   *route.Reconciler
	pods     *pod.Manager
	datapath *datapath.Datapath
	balancer *lb.Manager
	peers    *peer.Exchange
	names    *dns.Server
	page     *web.Server
	speaker  *bgp.Speaker

	mu    sync.Mutex
	maps  datapath.Maps
	state api.State
	told  map[string]peer.State // what balancer and names know

	// What is told to peers is told by one at a time, the newest last.
	telling sync.Mutex
	reached map[string]bool // by UID
	ready   map[string]bool // whether a pod was told to be ready, by UID
}

func newParts(config Config) (*parts, error) {
	p := &parts{names: dns.New(), page: web.New()}
	report := func(concern string) func(error) { return reporter(config.Log.With("part", concern)) }
	var err error
	if p.routes, err = route.New(route.Config{Namespace: netns.None(), Sysctls: config.Sysctls, Report: report("routes")}); err != nil {
		return nil, err
	}
	p.speaker = bgp.New(bgp.Config{Log: config.Log.With("part", "bgp"), Report: report("bgp"), OnLearned: p.routes.Learn})
	p.pods, err = pod.New(pod.Config{
		DataDir: config.DataDir, Cgroup: config.Cgroup, Executable: config.Executable,
		Namespace: netns.None(), Report: report("pods"),
	})
	if err != nil {
		return nil, err
	}
	p.datapath, err = datapath.New(datapath.Config{
		PinDir: config.BPFDir, Cgroup: config.Cgroup, Namespace: netns.None(), Report: report("datapath"), OnMaps: p.newMaps, OnPods: p.tellReached, OnTunnel: p.routes.Guard,
	})
	if err != nil {
		return nil, err
	}
	p.balancer = lb.New(lb.Config{Report: report("balancer"), OnAdded: p.forgetFlows})
	p.peers = peer.New(peer.Config{Report: report("peers"), OnChange: p.tellReadiness})
	p.pods.OnChange(p.tellPods)
	return p, nil
}

func (p *parts) all() []part {
	return []part{p.routes, p.pods, p.datapath, p.balancer, p.peers, p.names, p.page, p.speaker}
}

// set gives every part the state.
func (p *parts) set(state api.State) {
	p.mu.Lock()
	p.state = state
	p.mu.Unlock()
	for _, one := range p.all() {
		one.Set(state)
	}
	p.tellPods()
}

// held is the state that was set last.
func (p *parts) held() api.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// run runs every part until ctx ends.
func (p *parts) run(ctx context.Context) {
	var all sync.WaitGroup
	for _, one := range p.all() {
		all.Go(func() { one.Run(ctx) })
	}
	all.Wait()
}

// status joins how all parts stand.
func (p *parts) status() api.Status {
	p.mu.Lock()
	status := api.Status{Node: p.state.Node, Generation: p.state.Generation, Objects: []api.Object{}, Settled: p.state.Generation != ""}
	p.mu.Unlock()
	for _, one := range p.all() {
		objects, settled := one.Objects()
		status.Objects = append(status.Objects, objects...)
		status.Settled = status.Settled && settled
	}
	status.Datapath = p.datapath.Status()
	status.BGP = p.speaker.Status()
	return status
}

func (p *parts) tellPods() {
	p.telling.Lock()
	defer p.telling.Unlock()
	pods := p.pods.Pods()
	p.datapath.SetPods(pods)
	p.tellLocal(pods)
}

// tellReached hears which pods the datapath delivers to.
func (p *parts) tellReached(uids []string) {
	p.telling.Lock()
	defer p.telling.Unlock()
	p.reached = make(map[string]bool, len(uids))
	for _, uid := range uids {
		p.reached[uid] = true
	}
	p.tellLocal(p.pods.Pods())
}

// tellLocal tells peers how the node's pods are. One that has just become ready
// is not, before packets reach it; one that was ready when the agent began is.
func (p *parts) tellLocal(pods []api.PodStatus) {
	was := p.ready
	p.ready = make(map[string]bool, len(pods))
	for i := range pods {
		s := &pods[i]
		ready, known := was[s.UID]
		s.Ready = s.Ready && (ready || !known || p.reached[s.UID])
		p.ready[s.UID] = s.Ready
	}
	p.peers.SetLocal(pods)
}

func (p *parts) tellReadiness() {
	states := p.peers.States()
	p.mu.Lock()
	changes := make(map[string]lb.Readiness)
	for pod, state := range states {
		if p.told[pod] != state {
			changes[pod] = readiness(state)
		}
	}
	for pod := range p.told {
		if _, known := states[pod]; !known {
			changes[pod] = lb.Unknown
		}
	}
	p.told = states
	p.mu.Unlock()
	if len(changes) == 0 {
		return
	}
	ready := make(map[string]bool, len(states))
	for pod, state := range states {
		ready[pod] = state == peer.Ready
	}
	p.balancer.ChangeReadiness(changes)
	p.names.SetReady(ready)
}

func readiness(s peer.State) lb.Readiness {
	switch s {
	case peer.Ready:
		return lb.Ready
	case peer.NotReady:
		return lb.NotReady
	case peer.Terminating:
		return lb.Terminating
	case peer.Gone:
		return lb.Gone
	}
	return lb.Unknown
}

func (p *parts) newMaps(maps datapath.Maps) {
	p.mu.Lock()
	p.maps = maps
	p.mu.Unlock()
	tables, err := lb.KernelMaps(maps.ByName, maps.Clock)
	if err != nil {
		return // nothing is loaded: there is nothing to balance with
	}
	p.balancer.Use(tables)
}

// forgetFlows ends what was under way to addresses before they were services.
func (p *parts) forgetFlows(added []lb.Address) {
	p.mu.Lock()
	maps := p.maps
	p.mu.Unlock()
	for _, a := range added {
		if a.Protocol() == "UDP" && maps.Loaded() {
			_, _ = maps.DeleteFlows(datapath.ToFrontend(a.Proto(), a.AddrPort())) // such a flow is over in a minute anyway
		}
	}
}

// prober sends from the node and its pods.
func (p *parts) prober() *probe.Prober {
	return probe.New(probe.Config{
		Netns: func(key string) (string, bool) {
			for _, s := range p.pods.Pods() {
				if s.Key() == key && s.PID > 0 {
					return filepath.Join("/proc", strconv.Itoa(s.PID), "ns/net"), true
				}
			}
			return "", false
		},
		Resolver: func() probe.Resolver {
			p.mu.Lock()
			defer p.mu.Unlock()
			c := p.state.Cluster
			if c == nil || !c.DNS.IsValid() {
				return probe.Resolver{}
			}
			return probe.Resolver{
				Server: netip.AddrPortFrom(c.DNS, dnsPort),
				Search: []string{"default.svc." + c.Domain, "svc." + c.Domain, c.Domain},
			}
		},
	})
}

// dnsPort is where every name server answers.
const dnsPort = 53
