package lab

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/gopacket/gopacket/layers"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/capture"
	"github.com/native-routing/labctl/labctl/capture/filter"
	"github.com/native-routing/labctl/labctl/ladder"
)

// loopback is a device that every node and pod has.
const loopback = "lo"

// Capture is what to capture on the nodes of a lab.
type Capture struct {
	// Places are nodes and pods, as Place finds them; none is all nodes.
	Places []ladder.Place
	// Devices by name; none is all.
	Devices []string
	// SnapLength is how much of each packet is kept, in bytes.
	SnapLength int
	// Filter is in tcpdump's language; it knows the lab's nodes and pods as hosts.
	Filter string
	Count  int
	Sink   capture.Sink
	Ready  func(places []string)
	Say    func(string)
}

// Capture captures until ctx ends or the count is reached. The connection to a
// machine that labctl reaches by SSH is left out: what it would add, it would
// have to carry. An error of the filter is a *filter.Error.
func (l *Lab) Capture(ctx context.Context, c Capture) (capture.Result, error) {
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return capture.Result{}, err
	}
	wanted, err := filter.Parse(c.Filter, saved.hosts())
	if err != nil {
		return capture.Result{}, err
	}
	if len(c.Places) == 0 {
		for _, name := range saved.Topology.Nodes.Names() {
			c.Places = append(c.Places, ladder.Place{Node: name})
		}
	}
	agents := l.agents()
	defer agents.Close()
	run := capture.Run{Count: c.Count, Sink: c.Sink, Ready: c.Ready, Say: c.Say}
	for _, place := range c.Places {
		own, err := l.withoutTransport(saved, place, wanted)
		if err != nil {
			return capture.Result{}, err
		}
		program, err := own.Socket(c.SnapLength)
		if err != nil {
			return capture.Result{}, err
		}
		request := api.CaptureRequest{Pod: place.Pod, Devices: c.Devices, SnapLength: c.SnapLength, Filter: program}
		first := capture.Device{Place: place.String(), Name: loopback, Link: layers.LinkTypeEthernet, SnapLength: uint32(c.SnapLength)}
		if len(c.Devices) > 0 {
			first.Name = c.Devices[0]
		}
		run.Sources = append(run.Sources, capture.Source{Place: place.String(), First: first, Open: func(ctx context.Context) (*api.CaptureStream, error) {
			return prober{agents}.Capture(ctx, place.Node, request)
		}})
	}
	return run.Do(ctx)
}

// withoutTransport leaves out what carries the capture itself: SSH to the
// address of a machine's uplink.
func (l *Lab) withoutTransport(saved Saved, place ladder.Place, wanted filter.Filter) (filter.Filter, error) {
	if l.sharesKernel() || place.Pod != "" {
		return wanted, nil
	}
	transport, err := filter.Parse(fmt.Sprintf("tcp port 22 and host %s", saved.Uplinks.Of(place.Node).Address.Addr()), nil)
	return wanted.Except(transport), err
}

// Place finds a node, or a pod by the names that exec knows.
func (s Saved) Place(name string) (ladder.Place, bool) {
	if _, ok := s.Topology.Nodes.Get(name); ok {
		return ladder.Place{Node: name}, true
	}
	node, key, ok := s.PodNode(name)
	return ladder.Place{Node: node, Pod: key}, ok
}

// hosts are the addresses of nodes, but for those that all of them have, and of pods.
func (s Saved) hosts() filter.Names {
	return func(name string) (addresses []netip.Addr) {
		if node, ok := s.Topology.Nodes.Get(name); ok {
			for _, device := range node.Interfaces.Names() {
				face, _ := node.Interfaces.Get(device)
				addresses = append(addresses, face.Address.Addr())
			}
			return addresses
		}
		for _, p := range s.Workloads.Pods {
			address, err := netip.ParseAddr(p.Status.PodIP)
			if err == nil && (name == p.Name || name == p.Namespace+"/"+p.Name) {
				addresses = append(addresses, address)
			}
		}
		return addresses
	}
}

func (p prober) Capture(ctx context.Context, node string, request api.CaptureRequest) (*api.CaptureStream, error) {
	c, err := p.agents.connect(ctx, node)
	if err != nil {
		return nil, err
	}
	offset := p.agents.ahead(ctx, c)
	stream, err := api.OpenCapture(ctx, c.client, request)
	if err != nil {
		return nil, said(ctx, node, err)
	}
	stream.ClockOffset = offset
	return stream, nil
}

func (p prober) Knock(ctx context.Context, node string, targets []api.KnockTarget) ([]api.KnockResult, error) {
	r, err := probe(ctx, p.agents, node, api.Knock, api.KnockRequest{Targets: targets})
	return answers(node, r.Results, len(targets), err)
}
