//go:build linux

package tables

import (
	"fmt"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

// ReadSpace reads all of a network namespace that a packet's way depends on;
// netns.None() is the caller's own. The firewall is read with nft and iptables-save,
// as far as this machine has them: who has neither can have made no rule.
func ReadSpace(ns netns.NsHandle) (api.Space, error) {
	r, err := Open(ns)
	if err != nil {
		return api.Space{}, err
	}
	defer r.Close()
	return r.Space(ns)
}

// Space is [ReadSpace] of the namespace ns that the reader is open into.
func (r *Reader) Space(ns netns.NsHandle) (api.Space, error) {
	var s api.Space
	t, err := r.Read()
	if err != nil {
		return s, err
	}
	s.Links, s.Neighbours = t.Links, t.Neighbours
	if err := r.join(s.Links); err != nil {
		return s, fmt.Errorf("list links: %w", err)
	}
	names := linkNames(s.Links)
	if s.Routes, err = rtnl.List(func() ([]api.Route, error) { return allRoutes(r.Handle, names) }); err != nil {
		return s, fmt.Errorf("list the routes of all tables: %w", err)
	}
	if s.Rules, err = rtnl.List(r.rules); err != nil {
		return s, fmt.Errorf("list routing rules: %w", err)
	}
	s.Tracked = tracked(ns)
	return s, inside(ns, func() {
		s.Sysctls = sysctls()
		s.Chains, s.Missing = firewall()
	})
}

// join says of each link what it is joined to: the other end of a veth pair,
// and the device that it is in.
func (r *Reader) join(links []api.Link) error {
	found, err := rtnl.List(r.Handle.LinkList)
	if err != nil {
		return err
	}
	names := linkNames(links)
	attrs := make(map[int]*netlink.LinkAttrs, len(found))
	for _, l := range found {
		attrs[l.Attrs().Index] = l.Attrs()
	}
	for i := range links {
		l := &links[i]
		a := attrs[l.Index]
		if a == nil {
			continue
		}
		l.Master = names[a.MasterIndex]
		if l.Kind == "veth" {
			l.Peer, l.PeerHere = a.ParentIndex, a.NetNsID < 0
		}
	}
	return nil
}

func allRoutes(h *netlink.Handle, names map[int]string) ([]api.Route, error) {
	var list []api.Route
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	err := h.RouteListFilteredIter(netlink.FAMILY_V4, all, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		one := route(r, names)
		one.Table = r.Table
		list = append(list, one)
		return true
	})
	return list, err
}

// tracked is empty where the kernel tracks nothing, or cannot.
func tracked(ns netns.NsHandle) []api.Tracked {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil
	}
	defer h.Close()
	flows, err := h.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		return nil
	}
	names := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMP: "icmp"}
	var list []api.Tracked
	for _, f := range flows {
		if name, ok := names[f.Forward.Protocol]; ok {
			list = append(list, api.Tracked{
				Protocol: name,
				Source:   end(f.Forward.SrcIP, f.Forward.SrcPort), Destination: end(f.Forward.DstIP, f.Forward.DstPort),
				ReplySource: end(f.Reverse.SrcIP, f.Reverse.SrcPort), ReplyDestination: end(f.Reverse.DstIP, f.Reverse.DstPort),
			})
		}
	}
	return list
}

func end(ip []byte, port uint16) netip.AddrPort { return netip.AddrPortFrom(toAddr(ip), port) }

func sysctls() map[string]string {
	values := make(map[string]string)
	for _, name := range api.SpaceSysctls() {
		if value, err := (rtnl.ProcSys{}).Read(name); err == nil {
			values[name] = value
		}
	}
	return values
}

// inside runs f on a thread that stands in the namespace, and what f starts
// stands there too.
func inside(ns netns.NsHandle, f func()) error {
	if ns == netns.None() {
		f()
		return nil
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := netns.Set(ns)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	return nil
}
