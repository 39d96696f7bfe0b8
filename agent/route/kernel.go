//go:build linux

package route

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
	"github.com/native-routing/labctl/agent/tables"
)

// Sysctls reads and writes the files under /proc/sys by their names with slashes.
type Sysctls interface {
	Read(name string) (string, error)
	Write(name, value string) error
}

// kernel looks at one network namespace and changes it.
type kernel struct {
	reader    *tables.Reader
	netfilter *nl.SocketHandle // nil where the kernel has no firewall
	sysctls   Sysctls
}

func openKernel(ns netns.NsHandle, sysctls Sysctls) (*kernel, error) {
	reader, err := tables.Open(ns)
	if err != nil {
		return nil, err
	}
	k := &kernel{reader: reader, sysctls: sysctls}
	if socket, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_NETFILTER); err == nil {
		k.netfilter = &nl.SocketHandle{Socket: socket}
	}
	return k, nil
}

func (k *kernel) close() {
	k.reader.Close()
	if k.netfilter != nil {
		k.netfilter.Close()
	}
}

// observe takes one look at all that state speaks of.
func (k *kernel) observe(state api.State) (Observation, error) {
	read := k.reader.ReadRouting
	if state.Pods != nil && state.Pods.Overlay != nil {
		read = k.reader.Read
	}
	t, err := read()
	if err != nil {
		return Observation{}, err
	}
	seen := Observation{Tables: t, NoARP: make(map[string]bool), Sysctls: readSysctls(k.sysctls, state.Sysctls)}
	if state.Pods == nil {
		return seen, nil
	}
	for _, name := range []string{GatewayDevice, gatewayPeer} {
		link, err := k.reader.Handle.LinkByName(name)
		if err == nil {
			seen.NoARP[name] = link.Attrs().RawFlags&unix.IFF_NOARP != 0
		}
	}
	if !state.Pods.DirectRoutes || state.Pods.Overlay != nil {
		return seen, nil
	}
	queries := make([]api.Lookup, len(state.Pods.Peers))
	for i, peer := range state.Pods.Peers {
		queries[i] = api.Lookup{To: peer.Address}
	}
	seen.Peers, err = k.reader.Lookup(queries)
	return seen, err
}

func readSysctls(sysctls Sysctls, wanted []api.Sysctl) []SysctlValue {
	values := make([]SysctlValue, len(wanted))
	for i, want := range wanted {
		value, err := sysctls.Read(want.Name)
		values[i].Value = value
		switch {
		case errors.Is(err, fs.ErrNotExist):
			values[i].Err = "gone" // with its interface
		case err != nil:
			values[i].Err = err.Error()
		}
	}
	return values
}

// apply makes the changes, in order, and returns the errors by object. All
// routes that follow one another go in one batch.
func (k *kernel) apply(actions []Action) map[Key]error {
	failed := make(map[Key]error)
	note := func(a Action, err error) {
		if err != nil && failed[a.Object] == nil {
			failed[a.Object] = fmt.Errorf("%s: %w", a, err)
		}
	}
	for start := 0; start < len(actions); {
		end := start
		for end < len(actions) && actions[end].Route != nil {
			end++
		}
		if end == start {
			note(actions[start], k.change(actions[start]))
			start++
			continue
		}
		for i, err := range k.changeRoutes(actions[start:end]) {
			note(actions[start+i], err)
		}
		start = end
	}
	return failed
}

func (k *kernel) change(a Action) error {
	switch {
	case a.Address != nil:
		return k.changeAddress(a)
	case a.Neighbour != nil || a.Forward != nil:
		return k.changeEntry(a)
	case a.Verb == Add && a.Link.VXLAN != nil:
		return k.addTunnel(*a.Link)
	case a.Verb == Set && a.Link.VXLAN != nil:
		return k.setTunnel(*a.Link)
	case a.Verb == Add:
		return k.addGateway(*a.Link)
	case a.Verb == Set:
		return k.setLink(*a.Link)
	default:
		return k.deleteLink(a.Link.Name)
	}
}

func (k *kernel) deleteLink(name string) error {
	link, err := k.reader.Handle.LinkByName(name)
	if err == nil {
		err = k.reader.Handle.LinkDel(link)
	}
	if errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (k *kernel) addGateway(want LinkChange) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = want.Name, want.MTU
	return k.reader.Handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: gatewayPeer, PeerMTU: uint32(want.MTU)})
}

// setLink marks the link first: from then on it is known as the agent's.
func (k *kernel) setLink(want LinkChange) error {
	h := k.reader.Handle
	link, err := h.LinkByName(want.Name)
	if err != nil {
		return err
	}
	attrs := link.Attrs()
	if err := k.markLink(link, want); err != nil {
		return err
	}
	if attrs.RawFlags&unix.IFF_NOARP == 0 {
		if err := h.LinkSetARPOff(link); err != nil {
			return err
		}
	}
	return h.LinkSetUp(link)
}

// markLink sets what all of the agent's links have: the mark, and an MTU.
func (k *kernel) markLink(link netlink.Link, want LinkChange) error {
	attrs := link.Attrs()
	if attrs.Alias != want.Alias {
		if err := k.reader.Handle.LinkSetAlias(link, want.Alias); err != nil {
			return err
		}
	}
	if attrs.MTU != want.MTU {
		return k.reader.Handle.LinkSetMTU(link, want.MTU)
	}
	return nil
}

func (k *kernel) changeAddress(a Action) error {
	h := k.reader.Handle
	link, err := h.LinkByName(a.Address.Device)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   a.Address.Address.Addr().AsSlice(),
		Mask: net.CIDRMask(a.Address.Address.Bits(), 32),
	}}
	if a.Verb == Delete {
		err = h.AddrDel(link, addr)
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil
		}
		return err
	}
	err = h.AddrAdd(link, addr)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// changeRoutes returns the error of each.
func (k *kernel) changeRoutes(actions []Action) []error {
	indexes, err := k.linkIndexes()
	if err != nil {
		return slices.Repeat([]error{err}, len(actions))
	}
	changes := make([]rtnl.Change, len(actions))
	for i, a := range actions {
		changes[i] = rtnl.Change{Verb: verbs[a.Verb], Route: encode(*a.Route, indexes)}
	}
	errs, _ := k.reader.Conn.Change(changes) // the socket's error is in errs, too
	for i, a := range actions {
		if a.Verb == Delete && errors.Is(errs[i], unix.ESRCH) {
			errs[i] = nil
		}
	}
	return errs
}

var verbs = map[Verb]rtnl.Verb{Add: rtnl.Add, Replace: rtnl.Replace, Delete: rtnl.Delete}

func (k *kernel) linkIndexes() (map[string]int, error) {
	links, err := rtnl.List(k.reader.Handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	indexes := make(map[string]int, len(links))
	for _, l := range links {
		indexes[l.Attrs().Name] = l.Attrs().Index
	}
	return indexes, nil
}

func encode(r api.Route, indexes map[string]int) rtnl.Route {
	encoded := rtnl.Route{
		To:       r.To,
		Source:   r.Source,
		Protocol: r.Protocol,
		Scope:    tables.ScopeNumber(r.Scope),
		Metric:   r.Metric,
		MTU:      r.MTU,
		Type:     tables.TypeNumber(r.Type),
	}
	for _, hop := range r.NextHops {
		encoded.NextHops = append(encoded.NextHops, rtnl.NextHop{Via: hop.Via, Index: indexes[hop.Device], Weight: hop.Weight, OnLink: hop.OnLink})
	}
	return encoded
}
