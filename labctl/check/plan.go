package check

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/topo"
)

const (
	// fetchTimeout is how long a request or an echo is waited for: far longer than
	// a lab takes, and each lost request costs it.
	fetchTimeout = 400 * time.Millisecond
	// missed is how unlikely it may be that a backend which takes its share is
	// never drawn.
	missed = 1e-9
	// maxRequests bounds one row, whatever missed asks for.
	maxRequests = 512
	// fewRequests are enough where another check has drawn every backend.
	fewRequests = 6
	// fewEven are those that tell an even spread of three backends.
	fewEven = 3 * leastShare
	// affineRequests show that one client keeps its backend.
	affineRequests = 8
	// maxAskers bounds the pods that ask: with more, only some of each node do.
	maxAskers = 64
	webPort   = 80
)

// asker is who asks: a node, or a pod on it.
type asker struct {
	node, pod string
	address   netip.Addr // of the pod
	// lead is one that asks everything, also where there is much to ask: each
	// node and one pod of it.
	lead bool
}

func (a asker) String() string {
	if a.pod == "" {
		return a.node
	}
	return fmt.Sprintf("%s on %s", shortKey(a.pod), a.node)
}

// row is one row of requests.
type row struct {
	asker  asker
	target api.FetchTarget
}

// plan is all that a verification asks, made before anything is sent.
type plan struct {
	askers []asker
	// reach are the flows that are results of their own; the others are only
	// there to tell where a request was lost.
	reach []int
	rows  []row
	// answers are what came of the rows, by index.
	answers  map[int]api.FetchResult
	flowAt   map[[2]end]int
	directs  []directCheck
	directAt map[directKey]int
	balanced []balancedCheck
	ports    []portCheck
	pages    []pageCheck
	names    []nameCheck
	samples  samples
	fewer    bool         // not everybody draws every backend
	short    map[int]bool // rows that are shorter than enough, by index
	lossy    map[int]bool // rows of which some requests are lost, as far as is known
	heard    map[int]int  // how many requests of a row were carried out
}

// directKey is who asks which backend.
type directKey struct {
	node, pod string
	address   netip.AddrPort
}

// directCheck is a request to a backend's own address.
type directCheck struct {
	asker   asker
	backend backend
	flow    int
	row     int
}

// balancedCheck is a row of requests to a service's address.
type balancedCheck struct {
	asker    asker
	service  api.Service
	port     int // index of the service's
	backends []backend
	full     bool // enough requests that every backend is drawn
	row      int
}

// portCheck is a row of requests to a NodePort on a node's address.
type portCheck struct {
	asker    asker
	service  api.Service
	port     int
	entry    string // the node that is called
	to       netip.Addr
	outside  bool // the caller is no node of the cluster: the entry node balances
	full     bool // enough requests that every backend is drawn
	backends []backend
	flow     int // from the caller to the entry node; -1 where the packets never go there
	row      int
}

// pageCheck is a request to the page of a node that serves one.
type pageCheck struct {
	asker asker
	node  string
	flow  int
	row   int
}

// nameCheck asks for a service by its name.
type nameCheck struct {
	asker   asker
	service api.Service
	query   int // row of the question for the full name
	call    int // row of the request by the short name; -1 for none
}

func (s *services) makePlan() {
	s.plan = plan{answers: map[int]api.FetchResult{}, short: map[int]bool{}, lossy: map[int]bool{}, heard: map[int]int{}, flowAt: map[[2]end]int{}, directAt: map[directKey]int{}}
	s.chooseAskers()
	s.sizeUp()
	for i, a := range s.askers {
		s.planDirect(a, i)
		s.planReach(a, i)
		s.planPages(a)
		if !s.cluster.KubeProxyReplacement {
			continue
		}
		if s.member(a.node) {
			s.planServices(a)
			s.planNames(a, i)
		}
		s.planNodePorts(a, i)
	}
}

// chooseAskers takes every node and every pod that runs; of very many pods the
// first ones of each node, since each asks each.
func (s *services) chooseAskers() {
	perNode, left := maxAskers/max(len(s.cluster.Nodes), 1), 0
	if len(s.cluster.Pods) <= maxAskers {
		perNode = maxAskers
	}
	for name := range s.topology.Nodes.All() {
		s.askers = append(s.askers, asker{node: name, lead: true})
		count := 0
		for _, p := range s.cluster.Pods {
			if p.Node != name || !s.alive(p) {
				continue
			}
			if count++; count > max(perNode, 1) {
				left++
				continue
			}
			s.askers = append(s.askers, asker{name, p.Key(), p.Address, count == 1})
		}
	}
	if left > 0 {
		s.warn(s.say.Sprintf("of %d pods %d ask nothing: the first %d of each node ask for all", len(s.cluster.Pods), left, max(perNode, 1)))
	}
}

func (s *services) addRow(a asker, t api.FetchTarget) int {
	t.Pod, t.Timeout = a.pod, s.patient(fetchTimeout)
	t.Count = max(t.Count, 1)
	s.rows = append(s.rows, row{a, t})
	return len(s.rows) - 1
}

// flowTo is the flow by which an asker's packets go to an address, which may be
// a pod's.
func (s *services) flowTo(a asker, to end) int {
	from := end{node: a.node, pods: a.pod != "", address: a.address, pod: a.pod}
	if a.pod != "" && s.masqueraded(a.node, to.address) {
		from.pods, from.address = false, s.egress(a.node, to.address)
	}
	if i, ok := s.flowAt[[2]end{from, to}]; ok {
		return i
	}
	s.flowAt[[2]end{from, to}] = len(s.flows)
	f := flow{from: from, to: to, exception: s.exception(from, to)}
	f.there = s.healthy.Trace(from.node, from.address, to.address)
	s.flows = append(s.flows, f)
	return len(s.flows) - 1
}

// exception is what the stage declares of the traffic. Where it declares the
// other direction as lost, that is what becomes of the answers.
func (s *services) exception(from, to end) *topo.Exception {
	if from.node == to.node {
		return nil
	}
	if x := declared(s.exceptions, from, to); x != nil {
		return x
	}
	if x := declared(s.exceptions, to, from); x != nil && x.Result == topo.ResultLost {
		return &topo.Exception{From: x.To, To: x.From, Result: topo.ResultReplyLost, At: x.At, Leaving: x.Leaving}
	}
	return nil
}

// masqueraded says whether a pod's packets to the address bear its node's: they
// leave the native CIDR, and not for another node, unless pods are behind a
// tunnel (cilium, masquerading.rst).
func (s *services) masqueraded(from string, to netip.Addr) bool {
	if !s.cluster.Masquerade || s.cluster.NativeCIDR.Contains(to) {
		return false
	}
	if s.topology.Cluster.RoutingMode == topo.RoutingVXLAN {
		n, _ := s.healthy.Node(from)
		return !n.Owns(to)
	}
	return !slices.ContainsFunc(s.cluster.Nodes, func(n api.Node) bool { return n.Address == to || slices.Contains(n.Addresses, to) })
}

// egresses are the addresses that may stand for a node's pods on the way to an
// address: the first of each device that the packet can leave by; by a tunnel,
// the gateway of its pods.
func (s *services) egresses(node string, to netip.Addr) []netip.Addr {
	n, _ := s.healthy.Node(node)
	var addresses []netip.Addr
	d := n.Lookup(to)
	for _, hop := range d.NextHops {
		switch link, _ := n.Link(hop.Device); {
		case link.Tunnel != nil:
			addresses = include(addresses, n.SourceFor(d, hop))
		case len(link.Addresses) > 0:
			addresses = include(addresses, link.Addresses[0].Addr())
		}
	}
	return addresses
}

// egress is the first of them; the zero address where there is none.
func (s *services) egress(node string, to netip.Addr) netip.Addr {
	for _, a := range s.egresses(node, to) {
		return a
	}
	return netip.Addr{}
}

func podEnd(p api.Pod) end { return end{node: p.Node, pods: true, address: p.Address, pod: p.Key()} }

// planDirect asks every backend that is a pod by its own address.
func (s *services) planDirect(a asker, number int) {
	object := 0
	seen := map[netip.AddrPort]bool{}
	for _, service := range s.cluster.Services {
		for i, port := range service.Ports {
			if port.Protocol != "TCP" {
				continue
			}
			for _, b := range s.backends(service, i, nil) {
				if b.pod == nil || b.pod.Key() == a.pod || seen[b.address] {
					continue
				}
				seen[b.address] = true
				if object++; !s.samples.directs.takes(a, number, object) {
					continue
				}
				s.directAt[directKey{a.node, a.pod, b.address}] = len(s.directs)
				s.directs = append(s.directs, directCheck{a, b, s.flowTo(a, podEnd(*b.pod)),
					s.addRow(a, api.FetchTarget{To: b.address.Addr(), Port: b.address.Port(), Protocol: speaks(port, b)})})
			}
		}
	}
}

// planReach sends echoes between pods, from pods to nodes, and from nodes to
// the pods that no service asks for.
func (s *services) planReach(a asker, number int) {
	asked := map[int]bool{}
	for _, d := range s.directs {
		if d.asker == a {
			asked[d.flow] = true
		}
	}
	for i, other := range s.askers {
		p, isPod := s.pod(other.pod)
		if !isPod || other == a || !s.samples.echoes.takes(a, number, i) {
			continue
		}
		if flow := s.flowTo(a, podEnd(p)); a.pod != "" || !asked[flow] {
			s.reach = append(s.reach, flow)
		}
	}
	if a.pod == "" {
		return
	}
	for name, node := range s.topology.Nodes.All() {
		for _, iface := range node.Interfaces.All() {
			s.reach = append(s.reach, s.flowTo(a, end{node: name, address: iface.Address.Addr()}))
		}
	}
}

// planPages asks nodes outside the cluster for their page, from pods: it says
// which address they came from.
func (s *services) planPages(a asker) {
	if a.pod == "" {
		return
	}
	for name, node := range s.topology.Nodes.All() {
		if !node.WebServer || s.member(name) {
			continue
		}
		for _, iface := range node.Interfaces.All() {
			to := iface.Address.Addr()
			s.pages = append(s.pages, pageCheck{a, name, s.flowTo(a, end{node: name, address: to}),
				s.addRow(a, api.FetchTarget{To: to, Port: webPort, Protocol: "http"})})
		}
	}
}

// planServices asks every service at its own address, often enough.
func (s *services) planServices(a asker) {
	for _, service := range s.cluster.Services {
		if !service.ClusterIP.IsValid() {
			continue
		}
		for i, port := range service.Ports {
			here := &a.node
			if !service.InternalLocal {
				here = nil
			}
			c := balancedCheck{asker: a, service: service, port: i, backends: s.backends(service, i, here)}
			protocol := speaksAll(port, c.backends)
			if protocol == "" {
				continue // nobody knows how to ask: the maps alone are checked
			}
			count := 0
			count, c.full = s.requests(a, enough(service, len(c.backends)))
			c.row = s.addRow(a, api.FetchTarget{To: service.ClusterIP, Port: port.Port, Protocol: protocol, Path: s.question(protocol, service), Count: count})
			s.balanced = append(s.balanced, c)
		}
	}
}

// question is the name that a name server is asked for.
func (s *services) question(protocol string, service api.Service) string {
	if protocol != "dns" {
		return ""
	}
	return s.fullName(service)
}

func (s *services) fullName(service api.Service) string {
	return fmt.Sprintf("%s.%s.svc.%s.", service.Name, service.Namespace, strings.TrimSuffix(cmp.Or(s.cluster.Domain, "cluster.local"), "."))
}

// enough is how many requests it takes until every one of n backends has been
// drawn: n(1-1/n)^requests < missed.
func enough(service api.Service, n int) int {
	switch {
	case n == 0:
		return 1
	case n == 1:
		return 2
	case service.Affinity > 0:
		return affineRequests
	}
	return min(int(math.Ceil(math.Log(missed/float64(n))/math.Log(1-1/float64(n)))), maxRequests)
}

// planNodePorts asks for NodePorts on every node of the cluster.
func (s *services) planNodePorts(a asker, number int) {
	object := 0
	for _, service := range s.cluster.Services {
		for i, port := range service.Ports {
			if port.NodePort == 0 || port.Protocol != "TCP" {
				continue
			}
			for _, entry := range s.cluster.Nodes {
				if object++; !s.samples.ports.takes(a, number, object) {
					continue
				}
				s.planNodePort(portCheck{asker: a, service: service, port: i, entry: entry.Name, outside: !s.member(a.node), flow: -1})
			}
		}
	}
}

func (s *services) planNodePort(c portCheck) {
	local, here := c.service.InternalLocal, c.asker.node
	if c.outside {
		local, here = c.service.ExternalLocal, c.entry
	}
	at := &here
	if !local {
		at = nil
	}
	c.backends = s.backends(c.service, c.port, at)
	port := c.service.Ports[c.port]
	count := min(fewRequests, enough(c.service, len(c.backends)))
	if c.full = c.outside; c.full {
		count = enough(c.service, len(c.backends))
	}
	node, _ := s.topology.Nodes.Get(c.entry)
	for _, iface := range node.Interfaces.All() {
		if iface.Network == "" {
			continue
		}
		c.to = iface.Address.Addr()
		if c.outside {
			c.flow = s.flowTo(c.asker, end{node: c.entry, address: c.to})
		}
		c.row = s.addRow(c.asker, api.FetchTarget{To: c.to, Port: port.NodePort, Protocol: orTCP(speaksAll(port, c.backends)), Count: count})
		s.ports = append(s.ports, c)
	}
}

// orTCP is tcp for a service of which nobody knows what it speaks.
func orTCP(protocol string) string {
	if protocol == "" {
		return "tcp"
	}
	return protocol
}

// planNames asks for every service by its names.
func (s *services) planNames(a asker, number int) {
	if !s.cluster.DNS.IsValid() {
		return
	}
	for i, service := range s.cluster.Services {
		if !s.samples.names.takes(a, number, i) {
			continue
		}
		c := nameCheck{asker: a, service: service, call: -1}
		c.query = s.addRow(a, api.FetchTarget{To: s.cluster.DNS, Port: 53, Protocol: "dns", Path: s.fullName(service)})
		if i := slices.IndexFunc(service.Ports, func(p api.ServicePort) bool { return p.Protocol == "TCP" }); i >= 0 && service.ClusterIP.IsValid() {
			c.call = s.addRow(a, api.FetchTarget{Name: callName(service), Port: service.Ports[i].Port, Protocol: "tcp"})
		}
		s.names = append(s.names, c)
	}
}

// callName is the shortest name by which a program in the namespace default calls a service.
func callName(service api.Service) string {
	if service.Namespace == "default" {
		return service.Name
	}
	return service.Name + "." + service.Namespace
}
