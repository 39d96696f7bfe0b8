//go:build linux

package netns

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attributes of a link that are to be written; what is zero stays as it is.
type attributes struct {
	MTU   int
	MAC   net.HardwareAddr
	Alias string
	Up    bool
	// Master is the index of a bridge; NoMaster takes the link off its own.
	Master   int
	NoMaster bool
}

func infoUp() *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Flags, m.Change = unix.IFF_UP, unix.IFF_UP
	return m
}

func name(s string) *nl.RtAttr      { return nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(s)) }
func number(kind, n int) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(uint32(n))) }

// makeVeth makes both ends at once: the port here and up, the other in node and
// down (the kernel refuses to put it up before its port exists).
func (w *writer) makeVeth(l linkPlan, bridge int, node *os.File) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(string(kindVeth)))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	peer.AddChild(nl.NewIfInfomsg(unix.AF_UNSPEC))
	peer.AddChild(name(l.Name))
	peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(l.MTU)))
	peer.AddRtAttr(unix.IFLA_ADDRESS, l.MAC)
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(node.Fd())))
	data := []nl.NetlinkRequestData{infoUp(), name(l.Port), number(unix.IFLA_MTU, l.PortMTU), info}
	if bridge != 0 {
		data = append(data, number(unix.IFLA_MASTER, bridge))
	}
	return w.add("make "+l.Name+" with its port "+l.Port, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
}

// makeAlone makes a dummy, or what stands in for it.
func (w *writer) makeAlone(l linkPlan, k kind) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(string(k)))
	return w.add(fmt.Sprintf("make %s (%s)", l.Name, k), unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		infoUp(), name(l.Name), number(unix.IFLA_MTU, l.MTU), nl.NewRtAttr(unix.IFLA_ADDRESS, l.MAC), info)
}

// makeBridge makes a bridge that forwards at once and to all: no spanning tree,
// no forward delay, no multicast snooping.
func (w *writer) makeBridge(bridge string) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(string(kindBridge)))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0))
	return w.add("make bridge "+bridge, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, infoUp(), name(bridge), info)
}

// setLink writes attributes of the link of that name.
func (w *writer) setLink(link string, a attributes) error {
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	if a.Up {
		head = infoUp()
	}
	data := []nl.NetlinkRequestData{head, name(link)}
	if a.MTU != 0 {
		data = append(data, number(unix.IFLA_MTU, a.MTU))
	}
	if a.MAC != nil {
		data = append(data, nl.NewRtAttr(unix.IFLA_ADDRESS, a.MAC))
	}
	if a.Alias != "" {
		data = append(data, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(a.Alias)))
	}
	if a.Master != 0 || a.NoMaster {
		data = append(data, number(unix.IFLA_MASTER, a.Master))
	}
	return w.add("set "+link, unix.RTM_SETLINK, 0, data...)
}

func (w *writer) deleteLink(link string) error {
	return w.add("remove "+link, unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), name(link))
}

func (w *writer) addAddress(l linkPlan, index int) error {
	m := nl.NewIfAddrmsg(unix.AF_INET)
	m.Prefixlen, m.Index, m.Flags = uint8(l.Address.Bits()), uint32(index), unix.IFA_F_PERMANENT
	address := l.Address.Addr().AsSlice()
	data := []nl.NetlinkRequestData{m, nl.NewRtAttr(unix.IFA_LOCAL, address), nl.NewRtAttr(unix.IFA_ADDRESS, address)}
	if l.Address.Bits() < 31 {
		data = append(data, nl.NewRtAttr(unix.IFA_BROADCAST, broadcast(l.Address).AsSlice()))
	}
	if l.Metric != 0 {
		data = append(data, number(unix.IFA_RT_PRIORITY, l.Metric))
	}
	return w.add(fmt.Sprintf("add %s to %s", l.Address, l.Name), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
}

func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	last := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	binary.BigEndian.PutUint32(a[:], last)
	return netip.AddrFrom4(a)
}

func (w *writer) setNeighbour(n neighbour, index int) error {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	m := &ndmsg{index: index}
	return w.add("set neighbour "+n.IP.String(), unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		m, nl.NewRtAttr(unix.NDA_DST, n.IP.AsSlice()), nl.NewRtAttr(unix.NDA_LLADDR, mac))
}

// ndmsg is a permanent entry's struct ndmsg (linux/neighbour.h).
type ndmsg struct{ index int }

func (*ndmsg) Len() int { return unix.SizeofNdMsg }

func (m *ndmsg) Serialize() []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(b[4:], uint32(m.index))
	binary.NativeEndian.PutUint16(b[8:], unix.NUD_PERMANENT)
	return b
}

// addRoute puts a route before any of the same prefix and metric that others
// made: the file's word comes first, and theirs stays.
func (w *writer) addRoute(r route, index func(device string) int) error {
	m := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: unix.AF_INET, Dst_len: uint8(r.To.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: uint8(r.Protocol), Scope: uint8(r.Scope), Type: uint8(r.Type),
	}}
	data := []nl.NetlinkRequestData{m, nl.NewRtAttr(unix.RTA_DST, r.To.Addr().AsSlice())}
	if r.Metric != 0 {
		data = append(data, number(unix.RTA_PRIORITY, r.Metric))
	}
	if r.Source.IsValid() {
		data = append(data, nl.NewRtAttr(unix.RTA_PREFSRC, r.Source.AsSlice()))
	}
	if len(r.Hops) == 1 {
		if r.Hops[0].Via.IsValid() {
			data = append(data, nl.NewRtAttr(unix.RTA_GATEWAY, r.Hops[0].Via.AsSlice()))
		}
		data = append(data, number(unix.RTA_OIF, index(r.Hops[0].Device)))
	} else {
		data = append(data, nl.NewRtAttr(unix.RTA_MULTIPATH, multipath(r.Hops, index)))
	}
	return w.add("add "+r.object()+" "+r.describe(), unix.RTM_NEWROUTE, unix.NLM_F_CREATE, data...)
}

// multipath is a list of struct rtnexthop, each with its RTA_GATEWAY.
func multipath(hops []nextHop, index func(string) int) []byte {
	var b []byte
	for _, h := range hops {
		gateway := nl.NewRtAttr(unix.RTA_GATEWAY, h.Via.AsSlice()).Serialize()
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtNexthop+len(gateway)))
		b = append(b, 0, byte(max(0, h.Weight-1)))
		b = binary.NativeEndian.AppendUint32(b, uint32(index(h.Device)))
		b = append(b, gateway...)
	}
	return b
}
