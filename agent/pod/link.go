//go:build linux

package pod

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/rtnl"
)

// podDevice is the pod's end of its link.
const podDevice = "eth0"

// deviceName is the node's end of a pod's link: lxc and 12 digits, which fills
// an interface's name.
func deviceName(uid string) string {
	sum := sha256.Sum256([]byte(uid))
	return "lxc" + hex.EncodeToString(sum[:6])
}

// macs are the addresses of a pod's link: locally administered, and the same
// whenever the pod is made.
func macs(lab, uid string) (pod, node net.HardwareAddr) {
	derive := func(end string) net.HardwareAddr {
		sum := sha256.Sum256([]byte(lab + "\x00" + uid + "\x00" + end))
		mac := net.HardwareAddr(sum[:6])
		mac[0] = mac[0]&^1 | 2
		return mac
	}
	return derive("pod"), derive("node")
}

func (r record) alias() string { return "labctl-agent lab=" + r.Lab + " pod=" + r.Pod.Key() }

// network is a pod's network namespace, looked at from outside.
type network struct {
	ns     netns.NsHandle
	inode  uint64
	handle *netlink.Handle
	watch  *rtnl.Watch
}

// openNetwork looks into the namespace ns, which is the network's from then on.
func openNetwork(ns netns.NsHandle) (n *network, err error) {
	n = &network{ns: ns}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(int(ns), &st); err != nil {
		return nil, fmt.Errorf("stat the pod's network namespace: %w", err)
	}
	n.inode = st.Ino
	if n.handle, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open rtnetlink in the pod: %w", err)
	}
	if n.watch, err = rtnl.NewWatch(ns, 0); err != nil {
		return nil, err
	}
	return n, nil
}

// close lets go of the namespace, which would live on otherwise.
func (n *network) close() {
	if n.watch != nil {
		_ = n.watch.Close()
	}
	if n.handle != nil {
		n.handle.Close()
	}
	_ = n.ns.Close()
}

// listen calls changed at each change in the namespace until close.
func (n *network) listen(changed func()) {
	for {
		err := n.watch.Wait()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		changed()
		if err != nil {
			return // what is missed is seen at the next glance
		}
	}
}

// plug makes the pod's link if it is not there, or not whole, and sets up the
// node's end. It says whether it changed anything, and whether the link is new.
func (n *network) plug(node *netlink.Handle, r record) (index int, changed, made bool, err error) {
	link, err := find(node, deviceName(r.Pod.UID))
	if err != nil {
		return 0, false, false, err
	}
	inPod, err := find(n.handle, podDevice)
	if err != nil {
		return 0, false, false, err
	}
	if link != nil && !joined(link, inPod) {
		if err := unplug(node, r.Pod.UID); err != nil {
			return 0, false, false, err
		}
		link = nil
	}
	if link == nil {
		if inPod != nil && inPod.Type() == "veth" {
			// Its other end went with the namespace that the node had before.
			if err := n.handle.LinkDel(inPod); err != nil {
				return 0, false, false, fmt.Errorf("remove the pod's old %s: %w", podDevice, err)
			}
		} else if inPod != nil {
			return 0, false, false, fmt.Errorf("the pod has an %s of another kind (remove it there: ip link del %s)", podDevice, podDevice)
		}
		if err := n.makeLink(node, r); err != nil {
			return 0, false, false, fmt.Errorf("make link %s: %w", deviceName(r.Pod.UID), err)
		}
		if link, err = node.LinkByName(deviceName(r.Pod.UID)); err != nil {
			return 0, false, false, err
		}
		made = true
	}
	changed, err = setNodeEnd(node, link, r)
	return link.Attrs().Index, changed || made, made, err
}

// find returns nil where there is no such link.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	return link, err
}

func joined(link, inPod netlink.Link) bool {
	return inPod != nil && link.Type() == "veth" &&
		link.Attrs().ParentIndex == inPod.Attrs().Index && inPod.Attrs().ParentIndex == link.Attrs().Index
}

// makeLink makes both ends in one step, each in its namespace.
func (n *network) makeLink(node *netlink.Handle, r record) error {
	pod, lxc := macs(r.Lab, r.Pod.UID)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr, attrs.Alias = deviceName(r.Pod.UID), r.Network.MTU, lxc, r.alias()
	return node.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: podDevice, PeerHardwareAddr: pod, PeerMTU: uint32(r.Network.MTU),
		PeerNamespace: netlink.NsFd(n.ns), PeerTxQLen: -1,
	})
}

func setNodeEnd(node *netlink.Handle, link netlink.Link, r record) (changed bool, err error) {
	pod, lxc := macs(r.Lab, r.Pod.UID)
	attrs := link.Attrs()
	set := func(differs bool, what string, do func() error) {
		if err != nil || !differs {
			return
		}
		if err = do(); err != nil {
			err = fmt.Errorf("set the %s of %s: %w", what, attrs.Name, err)
		}
		changed = true
	}
	set(attrs.Alias != r.alias(), "alias", func() error { return node.LinkSetAlias(link, r.alias()) })
	set(attrs.MTU != r.Network.MTU, "MTU", func() error { return node.LinkSetMTU(link, r.Network.MTU) })
	set(!bytes.Equal(attrs.HardwareAddr, lxc), "MAC address", func() error { return node.LinkSetHardwareAddr(link, lxc) })
	set(attrs.Flags&net.FlagUp == 0, "state", func() error { return node.LinkSetUp(link) })
	if err != nil {
		return changed, err
	}
	there, err := hasNeighbour(node, attrs.Index, r.Pod.Address, pod)
	if err != nil || there {
		return changed, err
	}
	return true, setNeighbour(node, attrs.Index, r.Pod.Address, pod)
}

func hasNeighbour(h *netlink.Handle, index int, address netip.Addr, mac net.HardwareAddr) (bool, error) {
	list, err := rtnl.List(func() ([]netlink.Neigh, error) { return h.NeighList(index, unix.AF_INET) })
	if err != nil {
		return false, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range list {
		if n.IP.Equal(address.AsSlice()) && n.State&unix.NUD_PERMANENT != 0 && bytes.Equal(n.HardwareAddr, mac) {
			return true, nil
		}
	}
	return false, nil
}

func setNeighbour(h *netlink.Handle, index int, address netip.Addr, mac net.HardwareAddr) error {
	err := h.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: unix.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: mac})
	if err != nil {
		return fmt.Errorf("set neighbour %s: %w", address, err)
	}
	return nil
}

// unplug removes a pod's link; one that is not there is removed.
func unplug(node *netlink.Handle, uid string) error {
	link, err := find(node, deviceName(uid))
	if err == nil && link != nil {
		err = node.LinkDel(link)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove link %s: %w", deviceName(uid), err)
	}
	return nil
}

// configure makes the inside as the pod is to find it. What else is there it
// leaves alone.
func (n *network) configure(r record) error {
	h := n.handle
	if err := n.up("lo"); err != nil {
		return err
	}
	link, err := h.LinkByName(podDevice)
	if err != nil {
		return err
	}
	pod, lxc := macs(r.Lab, r.Pod.UID)
	if !bytes.Equal(link.Attrs().HardwareAddr, pod) {
		if err := h.LinkSetHardwareAddr(link, pod); err != nil {
			return fmt.Errorf("set the MAC address of %s: %w", podDevice, err)
		}
	}
	if link.Attrs().MTU != r.Network.MTU {
		if err := h.LinkSetMTU(link, r.Network.MTU); err != nil {
			return fmt.Errorf("set the MTU of %s: %w", podDevice, err)
		}
	}
	if err := h.AddrReplace(link, &netlink.Addr{IPNet: host(r.Pod.Address)}); err != nil {
		return fmt.Errorf("set address %s: %w", r.Pod.Address, err)
	}
	if err := n.up(podDevice); err != nil {
		return err
	}
	index := link.Attrs().Index
	if err := setNeighbour(h, index, r.Network.Gateway, lxc); err != nil {
		return err
	}
	for _, route := range podRoutes(r, index) {
		if err := h.RouteReplace(&route); err != nil {
			return fmt.Errorf("set route %s: %w", route.Dst, err)
		}
	}
	return nil
}

func (n *network) up(name string) error {
	link, err := n.handle.LinkByName(name)
	if err == nil {
		err = n.handle.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

// podRoutes are the pod's, the default route last. With a tunnel that tells the
// pod what goes through it, as Cilium does: no packet is too big on the way then.
func podRoutes(r record, index int) []netlink.Route {
	mtu := 0
	if r.Network.Overlay != nil {
		mtu = r.Network.Overlay.MTU
	}
	return []netlink.Route{
		{LinkIndex: index, Dst: host(r.Network.Gateway), Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Gw: r.Network.Gateway.AsSlice(), MTU: mtu},
	}
}

// drift says what differs inside from what configure made.
func (n *network) drift(r record) ([]string, error) {
	link, err := find(n.handle, podDevice)
	if err != nil || link == nil {
		return []string{podDevice + " is missing"}, err
	}
	pod, lxc := macs(r.Lab, r.Pod.UID)
	var differs []string
	note := func(is bool, format string, args ...any) {
		if is {
			differs = append(differs, fmt.Sprintf(format, args...))
		}
	}
	attrs := link.Attrs()
	note(attrs.Flags&net.FlagUp == 0, "%s is down", podDevice)
	note(attrs.MTU != r.Network.MTU, "%s has MTU %d, not %d", podDevice, attrs.MTU, r.Network.MTU)
	note(!bytes.Equal(attrs.HardwareAddr, pod), "%s has MAC address %s, not %s", podDevice, attrs.HardwareAddr, pod)
	addresses, err := rtnl.List(func() ([]netlink.Addr, error) { return n.handle.AddrList(link, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list the pod's addresses: %w", err)
	}
	has := false
	for _, a := range addresses {
		has = has || a.IPNet.String() == host(r.Pod.Address).String()
	}
	note(!has, "address %s/32 is missing", r.Pod.Address)
	if attrs.Flags&net.FlagUp == 0 {
		return differs, nil // and with it, routes and neighbours
	}
	routes, err := rtnl.List(func() ([]netlink.Route, error) { return n.handle.RouteList(link, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list the pod's routes: %w", err)
	}
	for _, want := range podRoutes(r, attrs.Index) {
		name := r.Network.Gateway.String()
		if want.Gw != nil {
			name = "default via " + name
		}
		if want.MTU != 0 {
			name += fmt.Sprintf(" mtu %d", want.MTU)
		}
		note(!hasRoute(routes, want), "route %s is missing", name)
	}
	there, err := hasNeighbour(n.handle, attrs.Index, r.Network.Gateway, lxc)
	note(err == nil && !there, "neighbour %s lladdr %s is missing", r.Network.Gateway, lxc)
	return differs, err
}

func hasRoute(routes []netlink.Route, want netlink.Route) bool {
	for _, r := range routes {
		to := r.Dst
		if to == nil {
			to = &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
		}
		if to.String() == want.Dst.String() && r.Gw.Equal(want.Gw) && r.Type == unix.RTN_UNICAST && r.MTU == want.MTU {
			return true
		}
	}
	return false
}
