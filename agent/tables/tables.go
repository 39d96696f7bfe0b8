//go:build linux

// Package tables reads the kernel's IPv4 tables by netlink, in the words that
// iproute2 prints.
package tables

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

// Reader reads one network namespace's tables. Its methods are safe for
// concurrent use.
type Reader struct {
	// Handle and Conn are open into the namespace, for who writes there too.
	Handle *netlink.Handle
	Conn   *rtnl.Conn

	netconf *nl.SocketHandle // the library's handle keeps its own sockets to itself
}

// Open returns a Reader of the network namespace ns; netns.None() is the caller's own.
func Open(ns netns.NsHandle) (*Reader, error) {
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink handle: %w", err)
	}
	conn, err := rtnl.Open(ns)
	if err != nil {
		handle.Close()
		return nil, err
	}
	socket, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		conn.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &Reader{Handle: handle, Conn: conn, netconf: &nl.SocketHandle{Socket: socket}}, nil
}

// Close closes the sockets.
func (r *Reader) Close() {
	r.Handle.Close()
	r.Conn.Close()
	r.netconf.Close()
}

// Read returns all tables. Each is consistent in itself; a change between two
// of them shows in the later only.
func (r *Reader) Read() (api.Tables, error) {
	t, err := r.ReadRouting()
	if err != nil {
		return t, err
	}
	t.Neighbours, err = neighbours(r.Handle, linkNames(t.Links))
	if err != nil {
		return t, fmt.Errorf("list neighbours: %w", err)
	}
	for _, link := range t.Links {
		if link.VXLAN == nil {
			continue
		}
		there, err := forwards(r.Handle, link)
		if err != nil {
			return t, fmt.Errorf("list the forwarding entries of %s: %w", link.Name, err)
		}
		t.Forwards = append(t.Forwards, there...)
	}
	return t, nil
}

// ReadRouting is [Reader.Read] without neighbours and forwarding entries.
func (r *Reader) ReadRouting() (api.Tables, error) {
	var t api.Tables
	configs, err := rtnl.List(r.configurations)
	if err != nil {
		return t, fmt.Errorf("list the interfaces' configuration: %w", err)
	}
	t.Forwarding = configs[configAll].forwarding
	if t.Links, err = links(r.Handle, configs); err != nil {
		return t, fmt.Errorf("list links: %w", err)
	}
	names := linkNames(t.Links)
	t.Routes, err = rtnl.List(func() ([]api.Route, error) { return routes(r.Handle, names) })
	if err != nil {
		return t, fmt.Errorf("list routes: %w", err)
	}
	return t, nil
}

func linkNames(links []api.Link) map[int]string {
	names := make(map[int]string, len(links))
	for _, link := range links {
		names[link.Index] = link.Name
	}
	return names
}

func links(h *netlink.Handle, configs map[int]config) ([]api.Link, error) {
	found, err := rtnl.List(h.LinkList)
	if err != nil {
		return nil, err
	}
	addresses, err := rtnl.List(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, err
	}
	list := make([]api.Link, 0, len(found))
	for _, l := range found {
		attrs := l.Attrs()
		link := api.Link{
			Index:      attrs.Index,
			Name:       attrs.Name,
			Kind:       kind(l),
			Alias:      attrs.Alias,
			MAC:        mac(attrs),
			MTU:        attrs.MTU,
			Up:         attrs.RawFlags&unix.IFF_UP != 0,
			Carrier:    attrs.RawFlags&unix.IFF_LOWER_UP != 0,
			Forwarding: configs[attrs.Index].forwarding,
			RPFilter:   max(configs[attrs.Index].rpFilter, configs[configAll].rpFilter),
			VXLAN:      vxlan(l),
		}
		for _, a := range addresses {
			if a.LinkIndex == attrs.Index {
				link.Addresses = append(link.Addresses, toPrefix(a.IPNet))
			}
		}
		list = append(list, link)
	}
	slices.SortFunc(list, func(a, b api.Link) int { return cmp.Compare(a.Index, b.Index) })
	return list, nil
}

// vxlan is nil for all other kinds.
func vxlan(l netlink.Link) *api.VXLAN {
	v, ok := l.(*netlink.Vxlan)
	if !ok {
		return nil
	}
	return &api.VXLAN{VNI: uint32(v.VxlanId), Port: uint16(v.Port), Local: toAddr(v.SrcAddr), Learning: v.Learning, External: v.FlowBased}
}

// mac is empty for tunnels, which have an IP address in its place or none. The
// library keeps silent on an address of zeros only, which ip-link(8) prints.
func mac(attrs *netlink.LinkAttrs) string {
	const size = 6
	switch {
	case attrs.EncapType != "ether" && attrs.EncapType != "loopback":
		return ""
	case len(attrs.HardwareAddr) == 0:
		return make(net.HardwareAddr, size).String()
	default:
		return attrs.HardwareAddr.String()
	}
}

// kind is the kernel's name of the driver; the library calls a link without one "device".
func kind(l netlink.Link) string {
	if k := l.Type(); k != "device" {
		return k
	}
	return ""
}

func routes(h *netlink.Handle, names map[int]string) ([]api.Route, error) {
	var list []api.Route
	err := h.RouteListFilteredIter(netlink.FAMILY_V4, new(netlink.Route), 0, func(r netlink.Route) bool {
		list = append(list, route(r, names))
		return true
	})
	return list, err
}

func route(r netlink.Route, names map[int]string) api.Route {
	route := api.Route{
		To:           netip.PrefixFrom(netip.IPv4Unspecified(), 0),
		Type:         TypeName(r.Type),
		Protocol:     int(r.Protocol),
		ProtocolName: rtnl.ProtocolName(int(r.Protocol)),
		Scope:        scopeName(int(r.Scope)),
		Source:       toAddr(r.Src),
		Metric:       r.Priority,
		MTU:          r.MTU,
	}
	if r.Dst != nil {
		route.To = toPrefix(r.Dst)
	}
	for _, hop := range r.MultiPath {
		route.NextHops = append(route.NextHops, nextHop(hop.Gw, hop.LinkIndex, hop.Flags, hop.Hops+1, names))
	}
	if r.LinkIndex != 0 && len(r.MultiPath) == 0 {
		route.NextHops = []api.NextHop{nextHop(r.Gw, r.LinkIndex, r.Flags, 0, names)}
	}
	return route
}

func nextHop(via net.IP, index, flags, weight int, names map[int]string) api.NextHop {
	return api.NextHop{
		Via:      toAddr(via),
		Device:   deviceName(index, names),
		Weight:   weight,
		OnLink:   flags&unix.RTNH_F_ONLINK != 0,
		Dead:     flags&unix.RTNH_F_DEAD != 0,
		LinkDown: flags&unix.RTNH_F_LINKDOWN != 0,
	}
}

// neighbours leaves out what ip-neighbour(8) does not list: entries without a
// state and those of links without ARP.
func neighbours(h *netlink.Handle, names map[int]string) ([]api.Neighbour, error) {
	found, err := rtnl.List(func() ([]netlink.Neigh, error) { return h.NeighList(0, netlink.FAMILY_V4) })
	if err != nil {
		return nil, err
	}
	list := make([]api.Neighbour, 0, len(found))
	for _, n := range found {
		if n.State&^netlink.NUD_NOARP == 0 {
			continue
		}
		list = append(list, api.Neighbour{
			Address: toAddr(n.IP),
			Device:  deviceName(n.LinkIndex, names),
			MAC:     n.HardwareAddr.String(),
			State:   neighbourState(n.State),
		})
	}
	slices.SortFunc(list, func(a, b api.Neighbour) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), a.Address.Compare(b.Address))
	})
	return list, nil
}

// forwards leaves out what the device knows of itself, without another node.
func forwards(h *netlink.Handle, link api.Link) ([]api.Forward, error) {
	found, err := rtnl.List(func() ([]netlink.Neigh, error) { return h.NeighList(link.Index, unix.AF_BRIDGE) })
	if err != nil {
		return nil, err
	}
	var list []api.Forward
	for _, n := range found {
		if n.LinkIndex == link.Index && len(n.IP) > 0 {
			list = append(list, api.Forward{Device: link.Name, MAC: n.HardwareAddr.String(), Remote: toAddr(n.IP), State: forwardState(n.State)})
		}
	}
	slices.SortFunc(list, func(a, b api.Forward) int {
		return cmp.Or(cmp.Compare(a.MAC, b.MAC), a.Remote.Compare(b.Remote))
	})
	return list, nil
}

// The indexes in struct netconfmsg's attributes that are not an interface's
// (linux/netconf.h).
const configAll = -1

// config is what of an interface's sysctls netlink tells (linux/netconf.h).
type config struct {
	forwarding bool
	rpFilter   int
}

func (r *Reader) configurations() (map[int]config, error) {
	const (
		netconfIfindex    = 1
		netconfForwarding = 2
		netconfRPFilter   = 3
	)
	request := nl.NewNetlinkRequest(unix.RTM_GETNETCONF, unix.NLM_F_DUMP)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: r.netconf}
	request.AddRawData([]byte{unix.AF_INET, 0, 0, 0})
	configs := make(map[int]config)
	err := request.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWNETCONF, func(b []byte) bool {
		if len(b) < 4 {
			return true
		}
		attributes, err := nl.ParseRouteAttr(b[4:])
		if err != nil {
			return true
		}
		index, c := 0, config{}
		for _, a := range attributes {
			if len(a.Value) != 4 {
				continue
			}
			value := int(int32(binary.NativeEndian.Uint32(a.Value)))
			switch a.Attr.Type {
			case netconfIfindex:
				index = value
			case netconfForwarding:
				c.forwarding = value != 0
			case netconfRPFilter:
				c.rpFilter = value
			}
		}
		configs[index] = c
		return true
	})
	return configs, err
}

// Lookup asks the FIB where packets would go. The FIB's own refusals are
// decisions; the error is one of the socket.
func (r *Reader) Lookup(queries []api.Lookup) ([]api.Decision, error) {
	asked := make([]rtnl.Query, len(queries))
	for i, q := range queries {
		asked[i] = rtnl.Query{To: q.To, From: q.From}
	}
	answers, err := r.Conn.Lookup(asked)
	if err != nil {
		return nil, fmt.Errorf("look up routes: %w", err)
	}
	found, err := rtnl.List(r.Handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := make(map[int]string, len(found))
	for _, l := range found {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	decisions := make([]api.Decision, len(answers))
	for i, a := range answers {
		decisions[i] = decision(a, names)
	}
	return decisions, nil
}

func decision(a rtnl.Decision, names map[int]string) api.Decision {
	var refusal *rtnl.Error
	switch {
	case errors.As(a.Err, &refusal):
		return api.Decision{Error: refusal.Errno.Error()}
	case a.Err != nil:
		return api.Decision{Error: a.Err.Error()}
	}
	return api.Decision{
		Type:   TypeName(a.Type),
		Via:    a.Via,
		Device: deviceName(a.Index, names),
		Source: a.Source,
		MTU:    a.MTU,
	}
}

// deviceName is what ip prints for an interface that is gone already, too.
func deviceName(index int, names map[int]string) string {
	if name, ok := names[index]; ok {
		return name
	}
	return "if" + strconv.Itoa(index)
}

func toAddr(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func toPrefix(n *net.IPNet) netip.Prefix {
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(toAddr(n.IP), ones)
}
