package check

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
	"github.com/native-routing/labctl/topologies/topo"
)

// clusterSimulator is a lab whose nodes carry pods, and balance by exactly what
// is in their maps: a [ServiceProber] for tests, of which a test may spoil all.
type clusterSimulator struct {
	*simulator
	cluster api.Cluster
	pods    map[string][]api.PodStatus
	maps    map[string]*api.ServiceTable
	growth  map[string]map[string]uint64 // drops that come with every look

	unmasked map[string]bool       // nodes that do not masquerade
	masks    map[string]bool       // nodes that masquerade inside the native CIDR
	portDown map[string]bool       // nodes whose NodePorts swallow what comes from outside
	noSNAT   map[string]bool       // nodes that leave outside callers' addresses in what they pass on
	bare     map[string]bool       // nodes whose sockets name the backend
	biased   map[string]bool       // nodes that prefer their first backend
	fickle   map[string]bool       // nodes that forget affinities
	closed   map[string]bool       // pods on which nothing listens
	stale    map[string]netip.Addr // what nodes' name servers answer for everything
	mute     map[string]bool       // nodes whose name server does not answer
	filters  map[string]bool       // nodes that pass echoes on, and not TCP
	own      map[string]bool       // nodes whose own TCP is lost, and not their echoes
	webless  map[string]bool       // nodes whose own page takes no connection
	bared    map[string]bool       // pods that have lost their address
	stopped  map[string]bool       // pods whose program takes connections and says nothing
	hangs    map[string]bool       // nodes whose agents take calls and do not answer them

	objects map[string][]api.Object
	mapErrs map[string]error // why nodes' maps cannot be read

	// late is how many of the first connections of a node are not made in time,
	// asked how many requests a node was to send, most how many in one call.
	late, asked map[string]int
	// slow nodes connect in time what is late, and are not answered in time.
	slow  bool
	turns map[string]*draws
	most  int
	// meanwhile is done once, when all has been sent.
	meanwhile func()

	mu    sync.Mutex
	looks map[string]uint64
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// shippedCluster is what the lab's own manifests make of a topology: a webpod on
// each node, the service of all, and curl-pod on the first node.
func shippedCluster(t *topo.Topology) api.Cluster {
	c := api.Cluster{
		Name: "default", ServiceCIDR: pfx("10.96.0.0/16"), NativeCIDR: t.Cluster.NativeRoutingCIDR, Masquerade: true, KubeProxyReplacement: true,
		Algorithm: "random", DNS: ip("10.96.0.10"), Domain: "cluster.local",
	}
	for _, name := range t.PodNodes() {
		n, _ := t.Nodes.Get(name)
		_, primary, _ := n.Primary()
		gateway, _ := n.PodGateway()
		address := primary.Address.Addr()
		c.Nodes = append(c.Nodes, api.Node{Name: name, Address: address, PodCIDR: n.PodCIDR, Gateway: gateway,
			ControlPlane: n.Role == topo.RoleControlPlane, Addresses: []netip.Addr{topo.NATUplink().Address.Addr(), address}})
	}
	web := api.Service{Namespace: "default", Name: "webpod", Type: api.ClusterIP, ClusterIP: ip("10.96.66.80"), Ports: []api.ServicePort{{Protocol: "TCP", Port: 80}}}
	dns := api.Service{Namespace: "kube-system", Name: "kube-dns", Type: api.ClusterIP, ClusterIP: c.DNS, InternalLocal: true,
		Ports: []api.ServicePort{{Name: "dns", Protocol: "UDP", Port: 53}, {Name: "dns-tcp", Protocol: "TCP", Port: 53}}}
	whoami := &api.PodSpec{Restart: "Always", Containers: []api.Container{{Name: "webpod", Image: "traefik/whoami", Program: api.ProgramWhoami}}}
	for i, n := range c.Nodes {
		name := "webpod-" + string(rune('a'+i))
		c.Pods = append(c.Pods, api.Pod{Namespace: "default", Name: name, Node: n.Name, Address: n.Gateway.Next(), Spec: whoami})
		web.Backends = append(web.Backends, api.Backend{Address: n.Gateway.Next(), Node: n.Name, Pod: "default/" + name, Ports: []uint16{80}})
		dns.Backends = append(dns.Backends, api.Backend{Address: n.Gateway, Node: n.Name, Ports: []uint16{53, 53}})
	}
	c.Pods = append(c.Pods, api.Pod{Namespace: "default", Name: "curl-pod", Node: c.Nodes[0].Name, Address: c.Nodes[0].Gateway.Next().Next(),
		Spec: &api.PodSpec{Restart: "Always", Containers: []api.Container{{Name: "curl", Image: "nicolaka/netshoot", Program: api.ProgramTools}}}})
	c.Services = []api.Service{web, dns}
	return c
}

func newClusterSimulator(t *topo.Topology, cluster api.Cluster) *clusterSimulator {
	s := &clusterSimulator{
		simulator: newSimulator(withPods(path.Predict(t, nil), cluster)), cluster: cluster,
		pods: map[string][]api.PodStatus{}, maps: map[string]*api.ServiceTable{}, growth: map[string]map[string]uint64{}, looks: map[string]uint64{},
		unmasked: map[string]bool{}, masks: map[string]bool{}, portDown: map[string]bool{}, noSNAT: map[string]bool{}, bare: map[string]bool{}, biased: map[string]bool{},
		fickle: map[string]bool{}, closed: map[string]bool{}, stale: map[string]netip.Addr{}, mute: map[string]bool{}, filters: map[string]bool{}, own: map[string]bool{}, webless: map[string]bool{}, bared: map[string]bool{}, stopped: map[string]bool{}, late: map[string]int{}, turns: map[string]*draws{}, asked: map[string]int{}, hangs: map[string]bool{}, objects: map[string][]api.Object{}, mapErrs: map[string]error{},
	}
	for _, p := range cluster.Pods {
		s.pods[p.Node] = append(s.pods[p.Node], api.PodStatus{Namespace: p.Namespace, Name: p.Name, Address: p.Address, Phase: api.PodRunning, Ready: true})
	}
	for _, n := range cluster.Nodes {
		s.fillMaps(n)
	}
	return s
}

// fillMaps does what the node's agent would: every address of every service,
// with the backends whose pods are ready.
func (s *clusterSimulator) fillMaps(n api.Node) {
	table := new(api.ServiceTable)
	s.maps[n.Name] = table
	ids := map[netip.AddrPort]uint32{}
	add := func(service api.Service, port int, a netip.AddrPort, kind, scope string, local bool) {
		f := api.Frontend{ID: uint16(len(table.Frontends) + 1), Address: a, Protocol: service.Ports[port].Protocol, Scope: scope, Type: kind, Service: service.Key(), Algorithm: "random"}
		for _, b := range service.Backends {
			p := s.status(b.Pod)
			if b.Ports[port] == 0 || local && b.Node != n.Name || b.Pod != "" && (p == nil || !p.Ready) {
				continue
			}
			to := netip.AddrPortFrom(b.Address, b.Ports[port])
			if ids[to] == 0 {
				ids[to] = uint32(len(ids) + 1)
			}
			f.Backends = append(f.Backends, api.FrontendBackend{ID: ids[to], Address: to, State: "active"})
		}
		f.Usable = len(f.Backends)
		table.Frontends = append(table.Frontends, f)
	}
	for _, service := range s.cluster.Services {
		for i, port := range service.Ports {
			add(service, i, netip.AddrPortFrom(service.ClusterIP, port.Port), "ClusterIP", "external", service.InternalLocal)
			if port.NodePort == 0 {
				continue
			}
			for _, a := range append([]netip.Addr{netip.IPv4Unspecified()}, n.Addresses...) {
				add(service, i, netip.AddrPortFrom(a, port.NodePort), "NodePort", "external", service.ExternalLocal)
				if service.ExternalLocal != service.InternalLocal {
					add(service, i, netip.AddrPortFrom(a, port.NodePort), "NodePort", "internal", service.InternalLocal)
				}
			}
		}
	}
}

func (s *clusterSimulator) status(key string) *api.PodStatus {
	for _, list := range s.pods {
		for i := range list {
			if list[i].Key() == key {
				return &list[i]
			}
		}
	}
	return nil
}

// unready takes a pod out of every node's services.
func (s *clusterSimulator) unready(key, reason string) {
	p := s.status(key)
	p.Ready, p.Reason = false, reason
	for _, n := range s.cluster.Nodes {
		s.fillMaps(n)
	}
}

func (s *clusterSimulator) podAt(a netip.Addr) *api.PodStatus {
	for _, p := range s.cluster.Pods {
		if p.Address == a {
			return s.status(p.Key())
		}
	}
	return nil
}

func (s *clusterSimulator) memberNode(name string) *api.Node {
	i := slices.IndexFunc(s.cluster.Nodes, func(n api.Node) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return &s.cluster.Nodes[i]
}

func (s *clusterSimulator) answers(ctx context.Context, node string) error {
	if s.hangs[node] {
		select {} // not even for the context
	}
	return s.alive(node)
}

func (s *clusterSimulator) Tables(ctx context.Context, node string) (api.Tables, error) {
	tables, err := s.simulator.Tables(ctx, node)
	for i, l := range tables.Links {
		tables.Links[i].Addresses = slices.DeleteFunc(slices.Clone(l.Addresses), func(p netip.Prefix) bool {
			return slices.ContainsFunc(s.cluster.Pods, func(pod api.Pod) bool { return pod.Address == p.Addr() })
		})
	}
	return tables, err
}

func (s *clusterSimulator) Pods(ctx context.Context, node string) (api.PodList, error) {
	return api.PodList{Pods: s.pods[node]}, s.answers(ctx, node)
}

func (s *clusterSimulator) Status(ctx context.Context, node string) (api.Status, error) {
	return api.Status{Node: node, Objects: s.objects[node], Datapath: new(api.Datapath)}, s.answers(ctx, node)
}

func (s *clusterSimulator) Services(ctx context.Context, node string) (api.ServiceTable, error) {
	if err := s.mapErrs[node]; err != nil {
		return api.ServiceTable{}, err
	}
	return *s.maps[node], s.answers(ctx, node)
}

func (s *clusterSimulator) Drops(ctx context.Context, node string) (map[string]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks[node]++
	if s.looks[node] > 1 && s.meanwhile != nil {
		s.meanwhile()
		s.meanwhile = nil
	}
	drops := map[string]uint64{"Service backend not found": 7}
	for reason, n := range s.growth[node] {
		drops[reason] += n * s.looks[node]
	}
	return drops, s.alive(node)
}

// leaves is the source that a pod's packet bears beyond its node.
func (s *clusterSimulator) leaves(node string, pod, to netip.Addr) netip.Addr {
	inside := s.cluster.NativeCIDR.Contains(to) || slices.ContainsFunc(s.cluster.Nodes, func(n api.Node) bool { return slices.Contains(n.Addresses, to) })
	n, _ := s.lab.Node(node)
	d := n.Lookup(to)
	if len(d.NextHops) == 0 || inside && !s.masks[node] || !inside && (s.unmasked[node] || !s.cluster.Masquerade) {
		return pod
	}
	link, _ := n.Link(d.NextHops[0].Device)
	return link.Addresses[0].Addr()
}

func (s *clusterSimulator) Ping(ctx context.Context, node string, targets []api.PingTarget) ([]api.PingResult, error) {
	var results []api.PingResult
	for _, t := range targets {
		if p := s.status(t.Pod); p != nil {
			t.From = s.leaves(node, p.Address, t.To)
		}
		if p := s.status(t.Pod); p != nil && s.bared[t.Pod] {
			results = append(results, api.PingResult{Sent: 1})
			continue
		}
		if p := s.podAt(t.To); p != nil && s.bared[p.Key()] || p == nil && s.cluster.NativeCIDR.Contains(t.To) && !s.isGateway(t.To) || p != nil && p.Phase != api.PodRunning {
			s.sight(s.follow(node, t.From, t.To), t.Probe, false)
			results = append(results, api.PingResult{Sent: 1})
			continue
		}
		r, _ := s.simulator.Ping(ctx, node, []api.PingTarget{t})
		results = append(results, r[0])
	}
	return results, s.alive(node)
}

func (s *clusterSimulator) isGateway(a netip.Addr) bool {
	return slices.ContainsFunc(s.cluster.Nodes, func(n api.Node) bool { return n.Gateway == a })
}

func (s *clusterSimulator) Fetch(_ context.Context, node string, targets []api.FetchTarget) ([]api.FetchResult, error) {
	s.arrive(node, targets)
	var results []api.FetchResult
	for _, t := range targets {
		random := s.turn(node, t)
		random.Lock()
		r := api.FetchResult{Resolved: t.To}
		for _, service := range s.cluster.Services {
			if t.Name == service.Name || t.Name == service.Name+"."+service.Namespace {
				r.Resolved = service.ClusterIP
			}
		}
		for range t.Count {
			c := call{clusterSimulator: s, random: random.Rand, node: node, pod: s.status(t.Pod), target: t, to: netip.AddrPortFrom(r.Resolved, t.Port)}
			if s.isLate(node) {
				lost := lostCall()
				if s.slow {
					lost.Peer = netip.AddrPortFrom(r.Resolved, t.Port)
				}
				r.Attempts = append(r.Attempts, lost)
				continue
			}
			r.Attempts = append(r.Attempts, c.attempt())
		}
		random.Unlock()
		results = append(results, r)
	}
	return results, s.alive(node)
}

func (s *clusterSimulator) arrive(node string, targets []api.FetchTarget) {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := 0
	for _, t := range targets {
		requests += t.Count
	}
	s.asked[node] += requests
	s.most = max(s.most, requests)
}

// draws are one row's, the same however it is cut into calls.
type draws struct {
	sync.Mutex
	*rand.Rand
}

func (s *clusterSimulator) turn(node string, t api.FetchTarget) *draws {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprint(node, t.Pod, t.Name, t.To, t.Port, t.Protocol, t.Path)
	if s.turns[key] == nil {
		seed := fnv.New64()
		seed.Write([]byte(key))
		s.turns[key] = &draws{Rand: rand.New(rand.NewPCG(seed.Sum64(), 3))}
	}
	return s.turns[key]
}

func (s *clusterSimulator) isLate(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late[node]--
	return s.late[node] >= 0
}

// call is one connection.
type call struct {
	*clusterSimulator
	random *rand.Rand
	node   string
	pod    *api.PodStatus
	target api.FetchTarget
	to     netip.AddrPort
}

func failed(class, message string) api.FetchAttempt {
	return api.FetchAttempt{Error: class, Message: message, Took: fetchTimeout}
}

func lostCall() api.FetchAttempt { return failed("timeout", "no answer in time") }

func (c call) attempt() api.FetchAttempt {
	to, source := c.to, netip.Addr{}
	if c.pod != nil {
		source = c.pod.Address
	}
	if c.memberNode(c.node) != nil {
		if f := c.frontend(c.node, true); f != nil {
			if f.Usable == 0 {
				return failed("unreachable", "no route to host")
			}
			to = c.choose(c.node, f)
		}
	} else if entry := c.entry(); entry != "" {
		return c.throughPort(entry)
	}
	if source.IsValid() {
		source = c.leaves(c.node, source, to.Addr())
	}
	a := c.deliver(c.node, source, to)
	if a.Error == "" && !c.bare[c.node] {
		a.Peer = c.to
	}
	if a.Error == "" && c.pod != nil {
		a.Local = netip.AddrPortFrom(c.pod.Address, 40000)
	}
	return a
}

// frontend finds the address that is called in a node's maps.
func (c call) frontend(node string, inside bool) *api.Frontend {
	isNode := slices.ContainsFunc(c.cluster.Nodes, func(n api.Node) bool { return slices.Contains(n.Addresses, c.to.Addr()) })
	var found *api.Frontend
	for i, f := range c.maps[node].Frontends {
		same := f.Address == c.to || inside && isNode && f.Address == netip.AddrPortFrom(netip.IPv4Unspecified(), c.to.Port())
		if same && (found == nil || inside && f.Scope == "internal") && (inside || f.Scope == "external") && (c.target.Protocol == "dns") == (f.Protocol == "UDP") {
			found = &c.maps[node].Frontends[i]
		}
	}
	return found
}

func (c call) choose(node string, f *api.Frontend) netip.AddrPort {
	at := c.random.IntN(f.Usable)
	i := slices.IndexFunc(c.cluster.Services, func(s api.Service) bool { return s.Key() == f.Service })
	if i >= 0 && c.cluster.Services[i].Affinity > 0 && !c.fickle[node] {
		client := fnv.New32()
		client.Write([]byte(c.node + c.target.Pod))
		at = int(client.Sum32()) % f.Usable
	}
	if c.biased[node] && c.random.IntN(4) != 0 {
		at = 0
	}
	return f.Backends[at].Address
}

// entry is the node whose NodePort is called.
func (c call) entry() string {
	for _, n := range c.cluster.Nodes {
		if slices.Contains(n.Addresses, c.to.Addr()) && c.frontend(n.Name, false) != nil {
			return n.Name
		}
	}
	return ""
}

func (c call) throughPort(entry string) api.FetchAttempt {
	p := c.follow(c.node, netip.Addr{}, c.to.Addr())
	f := c.frontend(entry, false)
	switch {
	case p.Fate != path.Delivered || c.portDown[entry]:
		return lostCall()
	case f.Usable == 0:
		return failed("refused", "connection refused")
	}
	to := c.choose(entry, f)
	a := c.deliver(entry, netip.Addr{}, to)
	if pod := c.podAt(to.Addr()); a.Error == "" && pod != nil {
		n, _ := c.lab.Holder(to.Addr())
		if n.Node == entry || c.noSNAT[entry] {
			a.RemoteAddr = netip.AddrPortFrom(p.Source, 40000)
		}
		a.Local, a.Peer = netip.AddrPortFrom(p.Source, 40000), c.to
	}
	return a
}

// deliver takes a connection from a node to an address and lets it answer.
func (c call) deliver(from string, source netip.Addr, to netip.AddrPort) api.FetchAttempt {
	p := c.follow(from, source, to.Addr())
	if c.own[from] && c.pod == nil && to.Port() == 80 {
		return lostCall()
	}
	if p.Fate != path.Delivered || slices.ContainsFunc(p.Hops, func(h path.Hop) bool { return c.filters[h.Node] && h.Out != "" && h.In != "" }) {
		return lostCall()
	}
	if n := c.memberNode(from); len(p.Hops) == 1 && !source.IsValid() && n != nil {
		p.Source = n.Gateway
	}
	back := c.follow(p.Last().Node, to.Addr(), p.Source)
	if back.Fate != path.Delivered || back.Last().Node != from {
		return lostCall()
	}
	client := netip.AddrPortFrom(p.Source, 40000)
	a := api.FetchAttempt{Local: client, Peer: to, Took: 350 * time.Microsecond}
	pod := c.podAt(to.Addr())
	switch {
	case pod != nil && (pod.Phase != api.PodRunning || c.bared[pod.Key()]) || c.pod != nil && c.bared[c.pod.Key()]:
		return lostCall()
	case pod != nil && c.stopped[pod.Key()]:
		a.Error, a.Message, a.Took = "timeout", "no answer in time", fetchTimeout+api.AnswerTime
	case pod == nil && to.Port() == 80 && c.webless[p.Last().Node]:
		return lostCall()
	case pod != nil && c.closed[pod.Key()]:
		return failed("refused", "connection refused")
	case pod != nil && c.target.Protocol == "http":
		a.Status, a.Hostname, a.RemoteAddr = 200, pod.Name, client
	case c.isGateway(to.Addr()) && c.mute[from]:
		return lostCall()
	case c.isGateway(to.Addr()) && c.target.Protocol == "dns":
		c.resolve(&a)
	case pod == nil && to.Port() == 80:
		a.Status, a.RemoteAddr = 200, client
	}
	return a
}

func (c call) resolve(a *api.FetchAttempt) {
	for _, service := range c.cluster.Services {
		if c.target.Path == service.Name+"."+service.Namespace+".svc.cluster.local." {
			a.Addresses = []netip.Addr{service.ClusterIP}
		}
	}
	if wrong, ok := c.stale[c.node]; ok {
		a.Addresses = []netip.Addr{wrong}
	}
}
