package check

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// simulator is a lab of kernels that do exactly what their tables say: a
// Prober for tests, whose tables a test may spoil.
type simulator struct {
	lab  path.Lab
	dead map[string]bool // nodes whose agent does not answer
	drop map[string]bool // nodes that drop what they should pass on, by a rule that no table shows
	nat  map[string]netip.Addr
	deaf map[string]bool // nodes whose packets no neighbour hears
	// neighbours are entries of neighbour tables, by node; rules are addresses
	// that a rule of the node sends nowhere.
	neighbours map[string]api.Neighbour
	rules      map[string]netip.Addr

	blind map[string]error // why nodes do not look out for packets

	mu   sync.Mutex
	seen map[string][]api.Sighting
}

func newSimulator(lab path.Lab) *simulator {
	return &simulator{
		lab: lab, seen: map[string][]api.Sighting{}, dead: map[string]bool{}, drop: map[string]bool{}, nat: map[string]netip.Addr{},
		deaf: map[string]bool{}, neighbours: map[string]api.Neighbour{}, rules: map[string]netip.Addr{},
	}
}

var errDead = errors.New("the agent does not answer (labctl up starts it again)")

func (s *simulator) alive(node string) error {
	if s.dead[node] {
		return errDead
	}
	return nil
}

func (s *simulator) Tables(_ context.Context, node string) (api.Tables, error) {
	n, _ := s.lab.Node(node)
	t := api.Tables{Forwarding: n.Forwarding}
	if entry, ok := s.neighbours[node]; ok {
		t.Neighbours = []api.Neighbour{entry}
	}
	for _, l := range n.Links {
		t.Links = append(t.Links, api.Link{
			Name: l.Name, Kind: l.Kind, MAC: "mac of " + node + " " + l.Name, MTU: l.MTU, Up: l.Up, Carrier: l.Carrier, Addresses: l.Addresses,
			Forwarding: l.Forwarding, RPFilter: l.RPFilter,
		})
		if l.Tunnel == nil {
			continue
		}
		t.Links[len(t.Links)-1].VXLAN = &api.VXLAN{VNI: l.Tunnel.VNI, Port: l.Tunnel.Port, Local: l.Tunnel.Local}
		for _, r := range l.Tunnel.Remotes {
			// The MAC address of the other end is made of the next hop here.
			mac := "mac of " + r.Via.String()
			t.Neighbours = append(t.Neighbours, api.Neighbour{Address: r.Via, Device: l.Name, MAC: mac, State: "permanent"})
			t.Forwards = append(t.Forwards, api.Forward{Device: l.Name, MAC: mac, Remote: r.Node, State: "permanent"})
		}
	}
	for _, a := range n.Links { // by which it is known to the other ends
		if a.Name == path.GatewayDevice {
			t.Links = append(t.Links, api.Link{Name: "lo", MAC: "mac of " + a.Addresses[0].Addr().String()})
		}
	}
	for _, r := range n.Routes {
		route := api.Route{To: r.To, Type: r.Type, ProtocolName: r.Protocol, Scope: r.Scope, Source: r.Source, Metric: r.Metric, MTU: r.MTU}
		for _, h := range r.NextHops {
			route.NextHops = append(route.NextHops, api.NextHop{Via: h.Via, Device: h.Device})
		}
		t.Routes = append(t.Routes, route)
	}
	return t, s.alive(node)
}

func (s *simulator) Lookup(_ context.Context, node string, queries []api.Lookup) ([]api.Decision, error) {
	n, _ := s.lab.Node(node)
	var decisions []api.Decision
	for _, q := range queries {
		d := n.Lookup(q.To)
		if s.rules[node] == q.To {
			d = path.Decision{}
		}
		switch d.Type {
		case path.Unicast:
			hop := d.NextHops[0]
			decisions = append(decisions, api.Decision{Type: d.Type, Via: hop.Via, Device: hop.Device, Source: n.SourceFor(d, hop)})
		case path.Local:
			decisions = append(decisions, api.Decision{Type: d.Type})
		default:
			decisions = append(decisions, api.Decision{Error: "network is unreachable"})
		}
	}
	return decisions, s.alive(node)
}

// follow is the one way that this lab's kernels send a packet, cut short at a node that drops.
func (s *simulator) follow(from string, source, to netip.Addr) path.Path {
	return s.cut(s.lab.Trace(from, source, to)[0], to)
}

func (s *simulator) cut(p path.Path, to netip.Addr) path.Path {
	for i, h := range p.Hops {
		if h.Carrier != nil {
			carrier := s.cut(*h.Carrier, h.Carrier.To)
			p.Hops[i].Carrier = &carrier
			if carrier.Fate != path.Delivered {
				p.Hops, p.Fate = p.Hops[:i+1], carrier.Fate
				return p
			}
		}
		switch {
		case i > 0 && s.drop[h.Node] && h.Out != "", s.rules[h.Node] == to:
			p.Hops = p.Hops[:i+1]
			p.Hops[i].Out = ""
			p.Fate = path.NotForwarded
			return p
		case s.deaf[h.Node] && h.Out != "" && i+1 < len(p.Hops):
			p.Hops = p.Hops[:i+1]
			p.Fate = path.SilentNextHop
			return p
		}
	}
	return p
}

// sight lets every node see the packet as it passes.
func (s *simulator) sight(p path.Path, probe uint32, reply bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	source := p.Source
	for i, h := range p.Hops {
		at := api.Sighting{Probe: probe, Reply: reply, From: source, To: p.To}
		if i > 0 {
			at.Device, at.TTL = h.In, 64-i+1
			s.seen[h.Node] = append(s.seen[h.Node], at)
		}
		if h.Carrier != nil {
			at.TTL = 64 - i
			s.sightCarrier(*h.Carrier, at)
		}
		if h.Out != "" {
			if a, ok := s.nat[h.Node]; ok {
				source = a
			}
			at.Device, at.TTL, at.Outgoing, at.From = h.Out, 64-i, true, source
			s.seen[h.Node] = append(s.seen[h.Node], at)
		}
	}
}

// sightCarrier lets nodes see what carries a packet.
func (s *simulator) sightCarrier(carrier path.Path, at api.Sighting) {
	for i, h := range carrier.Hops {
		if i > 0 {
			at.Device, at.CarrierTTL, at.Outgoing = h.In, 64-i+1, false
			s.seen[h.Node] = append(s.seen[h.Node], at)
		}
		if h.Out != "" {
			at.Device, at.CarrierTTL, at.Outgoing = h.Out, 64-i, true
			s.seen[h.Node] = append(s.seen[h.Node], at)
		}
	}
}

func (s *simulator) Ping(_ context.Context, node string, targets []api.PingTarget) ([]api.PingResult, error) {
	var results []api.PingResult
	for _, t := range targets {
		r := api.PingResult{Sent: 1}
		there := s.follow(node, t.From, t.To)
		s.sight(there, t.Probe, false)
		if there.Fate == path.Delivered {
			back := s.follow(there.Last().Node, t.To, there.Source)
			s.sight(back, t.Probe, true)
			if back.Fate == path.Delivered && back.Last().Node == node {
				r.Received, r.RTTs = 1, []time.Duration{120 * time.Microsecond}
			}
		}
		results = append(results, r)
	}
	return results, s.alive(node)
}

func (s *simulator) Trace(_ context.Context, node string, targets []api.TraceTarget) ([]api.TraceResult, error) {
	var results []api.TraceResult
	for _, t := range targets {
		there := s.follow(node, t.From, t.To)
		r := api.TraceResult{PathMTU: min(t.Size, there.MTU)}
		for i, h := range there.Hops[1:] {
			hop := api.TraceHop{TTL: i + 1}
			n, _ := s.lab.Node(h.Node)
			from := t.To
			if h.Node != there.Last().Node || there.Fate != path.Delivered {
				d := n.Lookup(there.Source)
				if d.Type != path.Unicast {
					break
				}
				from = n.SourceFor(d, d.NextHops[0])
			}
			back := s.follow(h.Node, from, there.Source)
			if back.Fate == path.Delivered && back.Last().Node == node {
				hop.Address = from
				if i+2 == len(there.Hops) && there.Fate == path.Delivered {
					hop.Reached, r.Reached = true, true
					r.HopsThere, r.HopsBack = i+1, len(back.Hops)-1
				}
			}
			r.Hops = append(r.Hops, hop)
		}
		results = append(results, r)
	}
	return results, s.alive(node)
}

func (s *simulator) StartWitness(_ context.Context, node string, _ uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, node) // of an earlier session
	if err := s.blind[node]; err != nil {
		return err
	}
	return s.alive(node)
}

func (s *simulator) StopWitness(_ context.Context, node string, _ uint32) (api.WitnessResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blind[node] != nil {
		return api.WitnessResponse{}, errors.New("there is no such witness")
	}
	return api.WitnessResponse{Sightings: s.seen[node]}, s.alive(node)
}
