//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/rtnl"
)

const (
	// settleLimit is twice what the kernel takes at most to pass on a change of
	// carrier (net/core/link_watch.c).
	settleLimit = 2 * time.Second
	settlePoll  = 3 * time.Millisecond

	// portForwarding is BR_STATE_FORWARDING in linux/if_bridge.h.
	portForwarding = 3
)

// effect is what the changes of one node's links mean for the rest of the lab.
type effect struct {
	// fresh are the links that were made.
	fresh map[string]bool
	// relinked are the links whose carrier may have changed.
	relinked []linkPlan
	// networks are those whose other hosts may remember a wrong Ethernet address.
	networks map[string]bool
}

func newEffect() effect {
	return effect{fresh: map[string]bool{}, networks: map[string]bool{}}
}

func (e *effect) noteLink(op linkOp) {
	if op.Make {
		e.fresh[op.Plan.Name] = true
	}
	if op.Plan.Port != "" && (op.Make || op.Set.Up || op.SetPort.Up || op.SetPort.Master != 0) {
		e.relinked = append(e.relinked, op.Plan)
		e.noteNetwork(op.Plan)
	}
	if op.Set.MAC != nil {
		e.noteNetwork(op.Plan)
	}
}

func (e *effect) noteAddresses(want nodePlan, remove []address, add []linkPlan) {
	for _, l := range add {
		e.noteNetwork(l)
	}
	for _, a := range remove {
		for _, l := range want.Links {
			if l.Name == a.Device {
				e.noteNetwork(l)
			}
		}
	}
}

func (e *effect) noteNetwork(l linkPlan) {
	if l.Network != "" {
		e.networks[l.Network] = true
	}
}

// settleLinks lets the lab work at once after its links were changed: ports
// forward, and no host sends to where an address was before.
func settleLinks(ctx context.Context, at paths, f *fabric, want plan, effects []effect) error {
	var ports []linkPlan
	networks := map[string]bool{}
	for _, network := range f.mended {
		networks[network] = true
	}
	for i, e := range effects {
		for network := range e.networks {
			networks[network] = true
		}
		for _, l := range e.relinked {
			port, _ := linkNamed(f.list, l.Port)
			if port.Carries && e.fresh[l.Name] {
				continue // a new port that carries forwards
			}
			ports = append(ports, l)
			if e.fresh[l.Name] {
				continue // its own end carries since it was set up
			}
			if err := tellCarrier(at, want.Nodes[i].Name, l.Name); err != nil {
				return err
			}
		}
	}
	if err := f.waitForPorts(ctx, ports); err != nil {
		return err
	}
	for i, n := range want.Nodes {
		if err := forgetNeighbours(at, want, n, effects[i].fresh, networks); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return nil
}

// tellCarrier asks for one link: since Linux 6.8 the kernel passes on a change
// of its carrier before it answers, and lets packets out.
func tellCarrier(at paths, node, device string) error {
	s, err := openSpace(at.net(node))
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.handle.LinkByName(device); err != nil {
		return fmt.Errorf("%s: look at %s: %w", node, device, err)
	}
	return nil
}

// waitForPorts waits until all forward, or for settleLimit: what does not carry
// packets then is for a check to find.
func (f *fabric) waitForPorts(ctx context.Context, ports []linkPlan) error {
	if len(ports) == 0 {
		return nil
	}
	w, err := f.write()
	if err != nil {
		return err
	}
	for limit := time.Now().Add(settleLimit); len(ports) > 0 && time.Now().Before(limit); {
		ready, err := w.carries(ports[0])
		switch {
		case err != nil:
			return fmt.Errorf("look at port %s: %w", ports[0].Port, err)
		case ready:
			ports = ports[1:]
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settlePoll):
		}
	}
	return nil
}

// carries says whether the link's port lets packets through. To ask is what
// makes the kernel pass on a change of the carrier, see tellCarrier.
func (w *writer) carries(l linkPlan) (bool, error) {
	req := nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Len: unix.SizeofNlMsghdr, Type: unix.RTM_GETLINK, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK},
		Sockets:  map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: w.socket, Seq: w.seq}},
	}
	w.seq++
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(name(l.Port))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return false, err
	}
	if len(answers) == 0 || len(answers[0]) < unix.SizeofIfInfomsg {
		return false, errors.New("truncated answer")
	}
	attributes, err := attributesOf(answers[0][unix.SizeofIfInfomsg:])
	if err != nil {
		return false, err
	}
	if state := attributes[unix.IFLA_OPERSTATE]; len(state) != 1 || state[0] != netlink.OperUp {
		return false, nil
	}
	if l.Bridge == "" {
		return true, nil
	}
	info, err := attributesOf(attributes[unix.IFLA_LINKINFO])
	if err != nil {
		return false, err
	}
	port, err := attributesOf(info[nl.IFLA_INFO_SLAVE_DATA])
	if err != nil {
		return false, err
	}
	state := port[nl.IFLA_BRPORT_STATE]
	return len(state) == 1 && state[0] == portForwarding, nil
}

func attributesOf(b []byte) (map[uint16][]byte, error) {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, err
	}
	attributes := map[uint16][]byte{}
	for _, a := range list {
		attributes[a.Attr.Type&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Value
	}
	return attributes, nil
}

// forgetNeighbours removes what a node has learnt about hosts of the networks
// and is not so, or no longer. A fresh link has learnt nothing yet.
func forgetNeighbours(at paths, want plan, n nodePlan, fresh, networks map[string]bool) error {
	var links []linkPlan
	for _, l := range n.Links {
		if networks[l.Network] && !fresh[l.Name] {
			links = append(links, l)
		}
	}
	if len(links) == 0 {
		return nil
	}
	s, err := openSpace(at.net(n.Name))
	if err != nil {
		return err
	}
	defer s.Close()
	list, err := s.links()
	if err != nil {
		return err
	}
	for _, l := range links {
		device, _ := linkNamed(list, l.Name)
		hosts := want.hosts(l.Network)
		found, err := rtnl.List(func() ([]netlink.Neigh, error) { return s.handle.NeighList(device.Index, netlink.FAMILY_V4) })
		if err != nil {
			return fmt.Errorf("list neighbours on %s: %w", l.Name, err)
		}
		for _, neigh := range found {
			if neigh.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 || hosts[addrOf(neigh.IP)] == neigh.HardwareAddr.String() {
				continue
			}
			if err := s.handle.NeighDel(&neigh); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("forget neighbour %s on %s: %w", neigh.IP, l.Name, err)
			}
		}
	}
	return nil
}

// hosts are the Ethernet addresses of all addresses on a network.
func (p plan) hosts(network string) map[netip.Addr]string {
	hosts := map[netip.Addr]string{}
	for _, n := range p.Nodes {
		for _, l := range n.Links {
			if l.Network == network {
				hosts[l.Address.Addr()] = l.MAC.String()
			}
		}
	}
	return hosts
}
