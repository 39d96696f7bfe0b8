package topo

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// eachInterface calls do for every interface of every node.
func (c *checker) eachInterface(do func(p fieldPath, node string, iface Interface)) {
	for name, n := range c.t.Nodes.All() {
		interfaces := at("nodes", name, "interfaces")
		for ifname, iface := range n.Interfaces.All() {
			do(interfaces.key(ifname), name, iface)
		}
	}
}

// interfaceNetworks: an Ethernet interface stands on a network that there is,
// where the node has no other one; a dummy stands alone.
func (c *checker) interfaceNetworks() {
	type place struct{ node, network string }
	used := map[place]fieldPath{}
	c.eachInterface(func(p fieldPath, node string, iface Interface) {
		network := p.key("network")
		switch {
		case iface.Type == Dummy && c.has(network):
			c.wrong(network, "a dummy interface is on no network", "take network out, or type: dummy")
		case iface.Type == Dummy, c.noted[p], c.noted[p.key("type")], c.misspelt[p.key("type")]:
		case !c.has(network):
			if c.absent(network) {
				c.wrongKey(p, "the interface is on no network", "add network, or type: dummy; "+c.oneOf("", "networks", c.t.Networks.Names))
			}
		case iface.Network == "":
		default:
			c.networkNamed(network, iface.Network)
			if other, twice := used[place{node, iface.Network}]; twice {
				c.wrong(network, fmt.Sprintf("%s is on network %s already", other, show(iface.Network)), "one interface on each network is enough")
				return
			}
			used[place{node, iface.Network}] = p
		}
	})
}

func (c *checker) networkNamed(p fieldPath, name string) {
	if _, ok := c.networks[name]; !ok && c.has("networks") && !c.noted["networks"] {
		c.wrong(p, "there is no network "+show(name), c.oneOf(name, "networks", c.t.Networks.Names))
	}
}

// interfaceAddresses: an address is one of its network's hosts.
func (c *checker) interfaceAddresses() {
	c.eachInterface(func(p fieldPath, _ string, iface Interface) {
		p = p.key("address")
		if !iface.Address.IsValid() {
			return
		}
		if iface.Type == Dummy {
			c.isHost(p, iface.Address)
			c.isUnicast(p, iface.Address)
			return
		}
		network := c.networks[iface.Network].CIDR
		switch {
		case !network.IsValid() || network != network.Masked():
		case !network.Contains(iface.Address.Addr()):
			c.wrong(p, fmt.Sprintf("%s is outside network %s (%s)", iface.Address.Addr(), show(iface.Network), network), fmt.Sprintf("write one of its hosts, such as %s/%d", network.Addr().Next(), network.Bits()))
		case network.Bits() != iface.Address.Bits():
			c.wrong(p, fmt.Sprintf("the length /%d is not that of network %s (%s)", iface.Address.Bits(), show(iface.Network), network), fmt.Sprintf("write %s/%d", iface.Address.Addr(), network.Bits()))
		default:
			c.isHost(p, iface.Address)
		}
	})
}

// isHost: the first and the last address of a prefix name no host, except in
// the shortest ones (RFC 3021).
func (c *checker) isHost(p fieldPath, address netip.Prefix) {
	if address.Bits() >= 31 {
		return
	}
	switch address.Addr() {
	case address.Masked().Addr():
		c.wrong(p, fmt.Sprintf("%s is the network's own address", address.Addr()), fmt.Sprintf("use a host's, from %s/%d on", address.Masked().Addr().Next(), address.Bits()))
	case lastOf(address):
		c.wrong(p, fmt.Sprintf("%s is the network's broadcast address", address.Addr()), fmt.Sprintf("use a host's, up to %s/%d", lastOf(address).Prev(), address.Bits()))
	}
}

// lastOf is the broadcast address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	first := p.Masked().Addr().As4()
	var last [4]byte
	binary.BigEndian.PutUint32(last[:], binary.BigEndian.Uint32(first[:])|uint32(1<<(32-p.Bits())-1))
	return netip.AddrFrom4(last)
}

// uniqueAddresses: no address is used twice in the whole lab.
func (c *checker) uniqueAddresses() {
	users := map[netip.Addr]fieldPath{}
	c.eachInterface(func(p fieldPath, _ string, iface Interface) {
		address := iface.Address.Addr()
		if !address.IsValid() {
			return
		}
		if other, taken := users[address]; taken {
			c.wrong(p.key("address"), fmt.Sprintf("%s belongs to %s already", address, other), "give each interface an address of its own")
			return
		}
		users[address] = p
	})
}

// interfaceMTUs: an MTU is one, and no greater than the network's.
func (c *checker) interfaceMTUs() {
	c.eachInterface(func(p fieldPath, _ string, iface Interface) {
		p = p.key("mtu")
		c.within(p, iface.MTU, MinMTU, MaxMTU)
		network, ok := c.networks[iface.Network]
		if network.MTU == 0 {
			network.MTU = DefaultMTU
		}
		if ok && iface.MTU > network.MTU && iface.MTU <= MaxMTU {
			c.wrong(p, fmt.Sprintf("%d is greater than the %d of network %s", iface.MTU, network.MTU, show(iface.Network)), fmt.Sprintf("write %d or less, or raise the network's", network.MTU))
		}
	})
}
