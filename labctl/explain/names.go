package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// ErrNoName is a name that nothing in the lab bears.
var ErrNoName = errors.New("there is no node, pod, service or address of that name")

// ErrNoPort is a question of TCP or UDP that does not say to which port.
var ErrNoPort = errors.New("no port is given")

// Target is what a name stands for.
type Target struct {
	// Place is where a packet of it is made; the zero Place for a service or a
	// foreign address.
	Place   Place
	Address netip.Addr
	Port    uint16
	Service *api.Service
}

// Resolve finds what a name stands for: a node, a pod (curl-pod, ns/pod,
// pod/curl-pod, deploy/webpod), a service (webpod, svc/webpod, its DNS name), or
// an address; each may end in :PORT.
func (w *World) Resolve(name string) (Target, error) {
	bare, port := cutPort(name)
	t, ok := w.resolve(bare)
	if !ok {
		return t, fmt.Errorf("%s: %w (%s)", name, ErrNoName, strings.Join(w.names(), ", "))
	}
	if port != 0 {
		t.Port = port
	}
	return t, nil
}

func cutPort(name string) (string, uint16) {
	if bare, text, ok := strings.Cut(name, ":"); ok {
		if port, err := strconv.ParseUint(text, 10, 16); err == nil {
			return bare, uint16(port)
		}
	}
	return name, 0
}

func (w *World) resolve(name string) (Target, bool) {
	if a, err := netip.ParseAddr(name); err == nil {
		return w.ofAddress(a), true
	}
	kind, rest, qualified := strings.Cut(name, "/")
	if qualified {
		switch kind {
		case "node":
			return w.ofNode(rest)
		case "pod", "po":
			return w.ofPod(rest)
		case "svc", "service":
			return w.ofService(rest)
		case "deploy", "deployment":
			return w.ofOwner(rest)
		}
		if t, ok := w.ofPod(name); ok {
			return t, true
		}
		return w.ofService(name)
	}
	for _, find := range []func(string) (Target, bool){w.ofNode, w.ofPod, w.ofService} {
		if t, ok := find(name); ok {
			return t, true
		}
	}
	return Target{}, false
}

// ofAddress is whoever has the address. One that every node has is nobody's.
func (w *World) ofAddress(a netip.Addr) Target {
	t := Target{Address: a}
	if p, ok := w.pod(a); ok {
		t.Place = Place{p.Node, p.Key()}
		return t
	}
	var holders []string
	for i := range w.Nodes {
		if bearer(&w.Nodes[i].Space, a) != nil {
			holders = append(holders, w.Nodes[i].Name)
		}
	}
	if len(holders) == 1 {
		t.Place = Place{Node: holders[0]}
	}
	for i := range w.Cluster.Services {
		if w.Cluster.Services[i].ClusterIP == a {
			t.Service = &w.Cluster.Services[i]
		}
	}
	return t
}

// ofNode is a node by its first address on a network.
func (w *World) ofNode(name string) (Target, bool) {
	n, ok := w.Planned.Node(name)
	if !ok {
		return Target{}, false
	}
	t := Target{Place: Place{Node: name}}
	for _, l := range n.Links {
		if _, wired := w.Wires[path.Port{Node: name, Interface: l.Name}]; wired && len(l.Addresses) > 0 && !t.Address.IsValid() {
			t.Address = l.Addresses[0].Addr()
		}
	}
	return t, true
}

// ofPod is a pod by its key, its name in the namespace default, or that with
// its DNS name's ending.
func (w *World) ofPod(name string) (Target, bool) {
	for _, p := range w.Cluster.Pods {
		if name == p.Key() || (p.Namespace == "default" && name == p.Name) {
			return Target{Place: Place{p.Node, p.Key()}, Address: p.Address}, true
		}
	}
	return Target{}, false
}

// ofOwner is the first pod of a Deployment.
func (w *World) ofOwner(name string) (Target, bool) {
	for _, p := range w.Cluster.Pods {
		if rest, ok := strings.CutPrefix(p.Name, name+"-"); ok && p.Namespace == "default" && rest != "" {
			return Target{Place: Place{p.Node, p.Key()}, Address: p.Address}, true
		}
	}
	return Target{}, false
}

// ofService is a service by its name, ns/name, or name.ns.svc.cluster.local and
// what that may be shortened to.
func (w *World) ofService(name string) (Target, bool) {
	labels := strings.Split(strings.TrimSuffix(name, "."), ".")
	namespace := "default"
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		namespace, labels = ns, []string{rest}
	} else if len(labels) > 1 {
		namespace = labels[1]
	}
	for i := range w.Cluster.Services {
		s := &w.Cluster.Services[i]
		if s.Name == labels[0] && s.Namespace == namespace && s.ClusterIP.IsValid() {
			t := Target{Address: s.ClusterIP, Service: s}
			if len(s.Ports) > 0 {
				t.Port = s.Ports[0].Port
			}
			return t, true
		}
	}
	return Target{}, false
}

// names are those that Resolve knows.
func (w *World) names() []string {
	var names []string
	for _, n := range w.Nodes {
		names = append(names, n.Name)
	}
	for _, p := range w.Cluster.Pods {
		names = append(names, shortPod(p.Key()))
	}
	for _, s := range w.Cluster.Services {
		if name := shortPod(s.Key()); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Names are what may be typed for FROM and TO.
func (w *World) Names() []string { return w.names() }

// Options are what is asked beside from where to where.
type Options struct {
	Protocol   string // empty: tcp for a service or a port, icmp otherwise
	Port       uint16
	SourcePort uint16
	// Size of the IP packet in bytes, which must not be fragmented then; 0 for a
	// small one that may be.
	Size int
}

// The sizes of the usual packets: ping's echo, and the first packet of TCP.
const (
	echoSize = 84
	openSize = 60
)

// Ask makes a question of names.
func (w *World) Ask(from, to string, o Options) (Question, error) {
	sender, err := w.Resolve(from)
	if err != nil {
		return Question{}, err
	}
	if sender.Place == (Place{}) {
		return Question{}, fmt.Errorf("%s: %w (a packet starts at a node or a pod)", from, ErrNoName)
	}
	target, err := w.Resolve(to)
	if err != nil {
		return Question{}, err
	}
	p := Packet{To: target.Address, Protocol: o.Protocol, SourcePort: o.SourcePort, Port: o.Port, Size: o.Size, DontFragment: o.Size != 0}
	if p.Port == 0 {
		p.Port = target.Port
	}
	if p.Protocol == "" {
		p.Protocol = ICMP
		if p.Port != 0 {
			p.Protocol = protocolOf(target, p.Port)
		}
	}
	switch {
	case p.Protocol == ICMP:
		p.Port = 0
	case p.Port == 0:
		return Question{}, fmt.Errorf("%s to %s: %w (--port)", p.Protocol, to, ErrNoPort)
	}
	if p.Size == 0 {
		p.Size = openSize
		if p.Protocol == ICMP {
			p.Size = echoSize
		}
	}
	if a, err := netip.ParseAddr(from); err == nil || sender.Place.Pod != "" {
		p.From = sender.Address
		if err == nil {
			p.From = a
		}
	}
	return Question{From: sender.Place, Packet: p}, nil
}

// protocolOf is that of a service's port, and TCP otherwise.
func protocolOf(t Target, port uint16) string {
	if t.Service != nil {
		for _, p := range t.Service.Ports {
			if p.Port == port {
				return strings.ToLower(p.Protocol)
			}
		}
	}
	return TCP
}
