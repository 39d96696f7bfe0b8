//go:build linux

package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/rtnl"
)

// space is one open network namespace: its tables to read and to write.
type space struct {
	file   *os.File
	handle *netlink.Handle
	writer *writer
}

// openSpace fails with an error for which absent holds where the namespace is not there.
func openSpace(path string) (*space, error) {
	f, err := openNS(path)
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open rtnetlink in %s: %w", path, err)
	}
	return &space{file: f, handle: h}, nil
}

func (s *space) Close() {
	if s == nil {
		return
	}
	if s.writer != nil {
		s.writer.Close()
	}
	s.handle.Close()
	s.file.Close()
}

// write gives the writer, which a namespace that is as it should be never needs.
func (s *space) write() (*writer, error) {
	if s.writer == nil {
		w, err := newWriter(s.file)
		if err != nil {
			return nil, err
		}
		s.writer = w
	}
	return s.writer, nil
}

func (s *space) links() ([]link, error) {
	found, err := rtnl.List(s.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links in %s: %w", s.file.Name(), err)
	}
	links := make([]link, len(found))
	for i, l := range found {
		a := l.Attrs()
		links[i] = link{
			Index: a.Index, Name: a.Name, Kind: kind(l.Type()), Alias: a.Alias, MTU: a.MTU,
			MAC: a.HardwareAddr.String(), Up: a.Flags&net.FlagUp != 0,
			Carries: a.OperState == netlink.OperUp,
			Master:  a.MasterIndex, Peer: a.ParentIndex, PeerNS: a.NetNsID,
		}
	}
	return links, nil
}

// idOf is the number under which this namespace knows the other; -1 where it has none.
func (s *space) idOf(other *os.File) (int, error) {
	id, err := s.handle.GetNetNsIdByFd(int(other.Fd()))
	if err != nil {
		return -1, fmt.Errorf("look up %s in %s: %w", other.Name(), s.file.Name(), err)
	}
	return id, nil
}

func (s *space) addresses(links []link) ([]address, error) {
	found, err := rtnl.List(func() ([]netlink.Addr, error) { return s.handle.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses in %s: %w", s.file.Name(), err)
	}
	addresses := make([]address, len(found))
	for i, a := range found {
		addresses[i] = address{Device: deviceName(links, a.LinkIndex), Prefix: prefixOf(a.IPNet), Peer: prefixOf(a.Peer), raw: a}
	}
	return addresses, nil
}

func (s *space) neighbours(links []link) ([]neighbour, error) {
	found, err := rtnl.List(func() ([]netlink.Neigh, error) { return s.handle.NeighList(0, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours in %s: %w", s.file.Name(), err)
	}
	var permanent []neighbour
	for _, n := range found {
		if n.State&netlink.NUD_PERMANENT != 0 {
			permanent = append(permanent, neighbour{
				Device: deviceName(links, n.LinkIndex), IP: addrOf(n.IP), MAC: n.HardwareAddr.String(),
			})
		}
	}
	return permanent, nil
}

func (s *space) routes(links []link) ([]foundRoute, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	found, err := rtnl.List(func() ([]netlink.Route, error) {
		return s.handle.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes in %s: %w", s.file.Name(), err)
	}
	routes := make([]foundRoute, len(found))
	for i, r := range found {
		routes[i] = foundRoute{route: routeOf(r, links), raw: r}
	}
	return routes, nil
}

func routeOf(r netlink.Route, links []link) route {
	out := route{
		To: prefixOf(r.Dst), Type: r.Type, Protocol: int(r.Protocol), Scope: int(r.Scope),
		Source: addrOf(r.Src), Metric: r.Priority, Extra: extraOf(r),
	}
	if r.Dst == nil {
		out.To = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	for _, h := range r.MultiPath {
		out.Hops = append(out.Hops, nextHop{Via: addrOf(h.Gw), Device: deviceName(links, h.LinkIndex), Weight: h.Hops + 1})
	}
	if len(r.MultiPath) == 0 && (r.LinkIndex != 0 || r.Gw != nil) {
		out.Hops = []nextHop{{Via: addrOf(r.Gw), Device: deviceName(links, r.LinkIndex), Weight: 1}}
	}
	return out
}

// extraOf names the attributes that routes of a file do not have.
func extraOf(r netlink.Route) string {
	extra := ""
	for _, e := range []struct {
		name  string
		value int
	}{
		{"tos", r.Tos}, {"mtu", r.MTU}, {"window", r.Window}, {"rtt", r.Rtt}, {"cwnd", r.Cwnd}, {"advmss", r.AdvMSS},
		{"hoplimit", r.Hoplimit}, {"initcwnd", r.InitCwnd}, {"initrwnd", r.InitRwnd}, {"rto_min", r.RtoMin}, {"realm", r.Realm},
	} {
		if e.value != 0 {
			extra += fmt.Sprintf("%s %d ", e.name, e.value)
		}
	}
	if r.Encap != nil {
		extra += "encap " + r.Encap.String()
	}
	return strings.TrimSpace(extra)
}

func deviceName(links []link, index int) string {
	for _, l := range links {
		if l.Index == index {
			return l.Name
		}
	}
	return ""
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}
