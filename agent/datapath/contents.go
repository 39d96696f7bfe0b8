//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/route"
	"github.com/native-routing/labctl/bpf"
)

const (
	// firstPod is the lowest endpoint id of a pod; those below are the node's
	// own addresses, which continue from the end of the array downwards.
	firstPod = 16
	// FlagHasTunnel is Cilium's flag of an ipcache entry that is on another node.
	FlagHasTunnel = 1 << 1
)

// contents are what the maps that are not services' should hold.
type contents struct {
	endpoints map[uint32]bpf.DatapathEndpoint
	addresses map[uint32]uint32 // address to endpoint id
	ipcache   map[bpf.DatapathPrefix]bpf.DatapathRemote
	devices   map[uint32]bpf.DatapathDevice // by ifindex
}

// device is a network interface as the kernel has it now.
type device struct {
	index int
	mac   [6]byte
	// virtual is one that no packets of the network come by: dummy, ifb, loopback.
	virtual bool
}

// network is what plan goes by besides the state.
type network struct {
	devices map[string]device
	pods    []api.PodStatus
}

// plan is the contents for a state. endpoints is how many ids there are.
func plan(state api.State, seen network, endpoints uint32) (contents, error) {
	c := contents{
		endpoints: make(map[uint32]bpf.DatapathEndpoint),
		addresses: make(map[uint32]uint32),
		ipcache:   make(map[bpf.DatapathPrefix]bpf.DatapathRemote),
		devices:   make(map[uint32]bpf.DatapathDevice),
	}
	for id, addr := range ownAddresses(state) {
		n := uint32(id) + 1
		if n >= firstPod {
			n = endpoints - (n - firstPod)
		}
		if err := c.endpoint(n, addr, bpf.DatapathEndpoint{
			Identity: uint32(bpf.DatapathIdentityIDENTITY_HOST),
			Flags:    uint32(bpf.DatapathEndpointFlagENDPOINT_HOST),
		}); err != nil {
			return c, err
		}
	}
	// Who is ending gives way where another has its address already.
	pods := slices.SortedStableFunc(slices.Values(seen.pods), func(a, b api.PodStatus) int {
		return ending(b) - ending(a)
	})
	for _, pod := range pods {
		if err := c.pod(pod, seen.devices[pod.Device], endpoints); err != nil {
			return c, fmt.Errorf("pod %s: %w", pod.Key(), err)
		}
	}
	for _, link := range state.Underlay.Links {
		device, ok := seen.devices[link.Name]
		if !ok || device.virtual || len(link.Addresses) == 0 {
			continue
		}
		address, err := bpf.Address(link.Addresses[0].Addr())
		if err != nil {
			return c, fmt.Errorf("device %s: %w", link.Name, err)
		}
		c.devices[uint32(device.index)] = bpf.DatapathDevice{Addr: address}
	}
	// By the tunnel a node is known as its pods' gateway: that leads back by it,
	// and does so until a tunnel that is given up is gone.
	if tunnel, ok := seen.devices[route.TunnelDevice]; ok && state.Pods != nil {
		address, err := bpf.Address(state.Pods.Gateway)
		if err != nil {
			return c, fmt.Errorf("device %s: %w", route.TunnelDevice, err)
		}
		c.devices[uint32(tunnel.index)] = bpf.DatapathDevice{Addr: address}
	}
	return c, c.identities(state, seen.pods)
}

func ending(pod api.PodStatus) int {
	if pod.Phase == api.PodTerminating {
		return 1
	}
	return 0
}

// ownAddresses are those of the node, the gateway first, each once.
func ownAddresses(state api.State) []netip.Addr {
	var all []netip.Addr
	known := make(map[netip.Addr]bool)
	add := func(addr netip.Addr) {
		if addr.IsValid() && addr.Is4() && !addr.IsLoopback() && !known[addr] {
			known[addr] = true
			all = append(all, addr)
		}
	}
	if state.Pods != nil {
		add(state.Pods.Gateway)
	}
	self := ownNode(state)
	if self != nil {
		add(self.Gateway)
		add(self.Address)
	}
	for _, link := range state.Underlay.Links {
		for _, prefix := range link.Addresses {
			add(prefix.Addr())
		}
	}
	if self != nil {
		for _, addr := range self.Addresses {
			add(addr)
		}
	}
	return all
}

func (c *contents) endpoint(id uint32, addr netip.Addr, e bpf.DatapathEndpoint) error {
	address, err := bpf.Address(addr)
	if err != nil {
		return err
	}
	if other, taken := c.endpoints[id]; taken {
		return fmt.Errorf("endpoint %d of %s is that of %s already", id, addr, bpf.Addr(other.Addr))
	}
	e.Addr = address
	c.endpoints[id] = e
	c.addresses[address] = id
	return nil
}

// pod enters a pod, by its device as it is now. One without device or number is
// not ready to be entered.
func (c *contents) pod(pod api.PodStatus, now device, endpoints uint32) error {
	if pod.Endpoint == 0 || pod.Device == "" || !pod.Address.IsValid() {
		return nil
	}
	if pod.Endpoint > endpoints {
		return fmt.Errorf("endpoint %d is beyond the %d that the map holds", pod.Endpoint, endpoints)
	}
	if now.index == 0 {
		now.index = pod.Index
		if mac, err := net.ParseMAC(pod.DeviceMAC); err == nil && len(mac) == 6 {
			now.mac = [6]byte(mac)
		}
	}
	mac, err := net.ParseMAC(pod.MAC)
	if err != nil || len(mac) != 6 || now.index == 0 {
		return nil
	}
	return c.endpoint(pod.Endpoint, pod.Address, bpf.DatapathEndpoint{
		Ifindex: uint32(now.index), Mac: [6]byte(mac), HostMac: now.mac, Identity: pod.Identity,
	})
}

// identities fills the ipcache as Cilium does. What is the node's own is
// entered last: some addresses all nodes have.
func (c *contents) identities(state api.State, own []api.PodStatus) error {
	world := uint32(bpf.DatapathIdentityIDENTITY_WORLD)
	err := c.identity(netip.PrefixFrom(netip.IPv4Unspecified(), 0), world, netip.Addr{})
	nodes := make(map[string]netip.Addr)
	for _, node := range state.Cluster.Nodes {
		if node.Name == state.Node {
			continue
		}
		nodes[node.Name] = node.Address
		identity := uint32(bpf.DatapathIdentityIDENTITY_REMOTE_NODE)
		if node.ControlPlane {
			identity = uint32(bpf.DatapathIdentityIDENTITY_APISERVER)
		}
		for _, addr := range append([]netip.Addr{node.Address}, node.Addresses...) {
			err = errors.Join(err, c.identity(only(addr), identity, netip.Addr{}))
		}
		err = errors.Join(err, c.identity(only(node.Gateway), identity, node.Address),
			c.identity(node.PodCIDR, world, node.Address))
	}
	for _, pod := range state.Cluster.Pods {
		err = errors.Join(err, c.identity(only(pod.Address), pod.Identity, nodes[pod.Node]))
	}
	for _, pod := range own {
		err = errors.Join(err, c.identity(only(pod.Address), pod.Identity, netip.Addr{}))
	}
	for _, addr := range ownAddresses(state) {
		err = errors.Join(err, c.identity(only(addr), uint32(bpf.DatapathIdentityIDENTITY_HOST), netip.Addr{}))
	}
	return err
}

// only is the prefix of one address; invalid like the address.
func only(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// identity enters a prefix that is valid, behind a node unless that is not.
func (c *contents) identity(prefix netip.Prefix, identity uint32, node netip.Addr) error {
	if !prefix.IsValid() {
		return nil
	}
	key, err := bpf.Prefix(prefix)
	if err != nil {
		return fmt.Errorf("ipcache: %w", err)
	}
	remote := bpf.DatapathRemote{Identity: identity}
	if node.IsValid() {
		if remote.Node, err = bpf.Address(node); err != nil {
			return fmt.Errorf("ipcache: %s: %w", prefix, err)
		}
		remote.Flags = FlagHasTunnel
	}
	c.ipcache[key] = remote
	return nil
}
