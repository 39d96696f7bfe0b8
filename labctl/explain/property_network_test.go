//go:build linux

package explain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/topologies/path"
)

// network is a plan made real: a namespace for each node, and one for the
// bridges between them.
type network struct {
	nodes  map[string]*namespace
	order  []string
	fabric *namespace
	wires  map[path.Port]string
}

// namespace is a network namespace with a thread that stands in it.
type namespace struct {
	handle netns.NsHandle
	nl     *netlink.Handle
	calls  chan func()
	packet int // an AF_PACKET socket that sees all devices
}

func newNamespace() (*namespace, error) {
	n := &namespace{calls: make(chan func()), packet: -1}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.handle, err = netns.Get()
		}
		ready <- err
		if err != nil {
			return
		}
		for call := range n.calls {
			call()
		}
	}()
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("make a network namespace (this test needs root): %w", err)
	}
	var err error
	if n.nl, err = netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	n.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	n.sysctl("net/ipv4/conf/default/rp_filter", "0")
	n.sysctl("net/ipv4/conf/all/rp_filter", "0")
	lo, err := n.nl.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	return n, n.nl.LinkSetUp(lo)
}

func (n *namespace) do(f func() error) error {
	done := make(chan error)
	n.calls <- func() { done <- f() }
	return <-done
}

func (n *namespace) sysctl(name, value string) {
	_ = n.do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
}

// run runs a command in the namespace, its words split at blanks.
func (n *namespace) run(line string) error {
	return n.do(func() error {
		argv := strings.Fields(line)
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
		return nil
	})
}

func (n *namespace) close() {
	if n.packet >= 0 {
		_ = unix.Close(n.packet)
	}
	if n.nl != nil {
		n.nl.Close()
	}
	close(n.calls)
	_ = n.handle.Close()
}

func newNetwork() (*network, error) {
	fabric, err := newNamespace()
	if err != nil {
		return nil, err
	}
	return &network{nodes: map[string]*namespace{}, fabric: fabric, wires: map[path.Port]string{}}, nil
}

func (n *network) close() {
	for _, node := range n.nodes {
		node.close()
	}
	n.fabric.close()
}

// build makes the plan: bridges, nodes, links, addresses, routes, then faults.
func (n *network) build(p plan) error {
	for i := range p.networks {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("br%d", i)}}
		if err := n.fabric.nl.LinkAdd(bridge); err != nil {
			return err
		}
		if err := n.fabric.nl.LinkSetUp(bridge); err != nil {
			return err
		}
	}
	for _, node := range p.nodes {
		ns, err := newNamespace()
		if err != nil {
			return err
		}
		n.nodes[node.name], n.order = ns, append(n.order, node.name)
		ns.sysctl("net/ipv4/ip_forward", "1")
		for _, i := range node.interfaces {
			if err := n.plug(ns, node.name, i); err != nil {
				return fmt.Errorf("%s %s: %w", node.name, i.name, err)
			}
		}
	}
	for _, node := range p.nodes {
		for _, r := range node.routes {
			if err := n.nodes[node.name].route(r); err != nil {
				return fmt.Errorf("%s: route %s: %w", node.name, r, err)
			}
		}
	}
	for _, f := range p.faults {
		if err := f.do(n); err != nil {
			return fmt.Errorf("%s: %w", f.what, err)
		}
	}
	for _, ns := range n.nodes {
		if err := ns.listen(); err != nil {
			return err
		}
	}
	return nil
}

var portNumber atomic.Int64

// plug makes an interface: on a network's bridge, or as one that leads nowhere.
func (n *network) plug(ns *namespace, node string, i iface) error {
	if i.name == "lo" {
		lo, err := ns.nl.LinkByName("lo")
		if err != nil {
			return err
		}
		return ns.nl.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(i.address)})
	}
	peer := fmt.Sprintf("p%d", portNumber.Add(1))
	attrs := netlink.NewLinkAttrs()
	attrs.Name = i.name
	if err := ns.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(n.fabric.handle)}); err != nil {
		return err
	}
	far, err := n.fabric.nl.LinkByName(peer)
	if err != nil {
		return err
	}
	if i.network >= 0 {
		bridge, err := n.fabric.nl.LinkByName(fmt.Sprintf("br%d", i.network))
		if err != nil {
			return err
		}
		if err := n.fabric.nl.LinkSetMaster(far, bridge); err != nil {
			return err
		}
		n.wires[path.Port{Node: node, Interface: i.name}] = fmt.Sprintf("net%d", i.network)
	}
	if err := n.fabric.nl.LinkSetUp(far); err != nil {
		return err
	}
	near, err := ns.nl.LinkByName(i.name)
	if err != nil {
		return err
	}
	if err := ns.nl.AddrAdd(near, &netlink.Addr{IPNet: ipNet(i.address)}); err != nil {
		return err
	}
	if err := ns.nl.LinkSetUp(near); err != nil {
		return err
	}
	if i.network < 0 {
		return ns.nl.NeighSet(&netlink.Neigh{LinkIndex: near.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
			IP: uplinkGateway.AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}})
	}
	return nil
}

var uplinkGateway = netip.MustParseAddr("10.0.2.2")

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// route adds a route; one to a gateway that is on no network is left out.
func (ns *namespace) route(r routeLine) error {
	one := netlink.Route{Dst: ipNet(r.to), Priority: r.metric, Type: r.kind, Table: r.table}
	for _, via := range r.via {
		one.MultiPath = append(one.MultiPath, &netlink.NexthopInfo{Gw: via.AsSlice()})
	}
	if len(r.via) == 1 {
		one.MultiPath, one.Gw = nil, r.via[0].AsSlice()
	}
	err := ns.nl.RouteAdd(&one)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// listen opens a socket that sees all packets of the namespace.
func (ns *namespace) listen() error {
	return ns.do(func() (err error) {
		all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
		if ns.packet, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		return unix.SetsockoptInt(ns.packet, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	})
}

// echoSeen is one echo as a socket saw it.
type echoSeen struct {
	Sighting
	ttl   int
	reply bool
}

// see reads what passed the namespace of the echo with that identifier.
func (ns *namespace) see(name string, identifier uint16) []echoSeen {
	var seen []echoSeen
	b := make([]byte, 4096)
	for {
		size, from, err := unix.Recvfrom(ns.packet, b, 0)
		if err != nil {
			return seen
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		p := b[:size]
		if !ok || ll.Pkttype == unix.PACKET_OTHERHOST || size < 28 || p[0]>>4 != 4 || p[9] != unix.IPPROTO_ICMP || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			continue
		}
		icmp := p[int(p[0]&15)*4:]
		if len(icmp) < 8 || (icmp[0] != 8 && icmp[0] != 0) || binary.BigEndian.Uint16(icmp[4:]) != identifier {
			continue
		}
		link, err := ns.nl.LinkByIndex(ll.Ifindex)
		if err != nil || link.Attrs().Name == "lo" {
			continue
		}
		seen = append(seen, echoSeen{Sighting{Place{Node: name}, link.Attrs().Name, ll.Pkttype == unix.PACKET_OUTGOING, false}, int(p[8]), icmp[0] == 0})
	}
}

var echoNumber atomic.Uint32

// send sends one echo, and watches until what is seen is what was predicted, or
// for so long that it will not be any more.
func (n *network) send(q Question, way Way, try int) (observed, error) {
	identifier := uint16(echoNumber.Add(1))
	sender := n.nodes[q.From.Node]
	socket := -1
	defer func() { _ = unix.Close(socket) }()
	err := sender.do(func() (err error) {
		if socket, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP); err != nil {
			return err
		}
		discover := unix.IP_PMTUDISC_DONT
		if q.Packet.DontFragment {
			discover = unix.IP_PMTUDISC_PROBE // what was learnt by the last try does not count
		}
		return unix.SetsockoptInt(socket, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, discover)
	})
	if err != nil {
		return observed{}, err
	}
	echo := make([]byte, q.Packet.Size-20)
	echo[0] = 8
	binary.BigEndian.PutUint16(echo[4:], identifier)
	binary.BigEndian.PutUint16(echo[2:], checksum(echo))
	_ = unix.Sendto(socket, echo, 0, &unix.SockaddrInet4{Addr: q.Packet.To.As4()}) // its error is a fate like any other
	began := time.Now()
	patience := time.Duration(1+try) * 700 * time.Millisecond
	var seen observed
	var all []echoSeen
	for {
		for name, ns := range n.nodes {
			all = append(all, ns.see(name, identifier)...)
		}
		seen.answered = seen.answered || answered(socket, identifier, q.Packet.To)
		seen.request, seen.reply = ordered(all, false), ordered(all, true)
		agrees := compare(way, seen) == nil
		if took := time.Since(began); agrees && (seen.answered || took > 15*time.Millisecond) || took > patience {
			return seen, nil
		}
		time.Sleep(time.Millisecond)
	}
}

// ordered are the sightings of one leg in the order of the way: each hop lowers
// the TTL, and what comes in somewhere went out before.
func ordered(all []echoSeen, reply bool) []Sighting {
	leg := slices.DeleteFunc(slices.Clone(all), func(s echoSeen) bool { return s.reply != reply })
	slices.SortStableFunc(leg, func(a, b echoSeen) int {
		if a.ttl != b.ttl {
			return b.ttl - a.ttl
		}
		return truthOrder(b.Outgoing) - truthOrder(a.Outgoing)
	})
	var list []Sighting
	for _, s := range leg {
		list = append(list, s.Sighting)
	}
	return list
}

func truthOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

func answered(socket int, identifier uint16, by netip.Addr) bool {
	b := make([]byte, 4096)
	for {
		size, from, err := unix.Recvfrom(socket, b, 0)
		if err != nil {
			return false
		}
		source, ok := from.(*unix.SockaddrInet4)
		if ok && size >= 28 && b[20] == 0 && binary.BigEndian.Uint16(b[24:]) == identifier && netip.AddrFrom4(source.Addr) == by {
			return true
		}
	}
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
