package topo

import "net/netip"

// Uplink is eth0, the interface that VirtualBox's NAT gives to every VM, with
// the same address on each. What leaves by it for an address of the lab is lost
// without an answer.
type Uplink struct {
	Interface string       `json:"interface"`
	Address   netip.Prefix `json:"address"`
	Gateway   netip.Addr   `json:"gateway"`
	DNS       netip.Addr   `json:"dns"`
	// Metric of its routes, as systemd-networkd sets it for what DHCP gives.
	Metric int `json:"metric"`
}

// Uplinks are the uplinks of the nodes that have another than [NATUplink]: on
// libvirt and on machines of one's own each has an address of its own.
type Uplinks map[string]Uplink

// Of returns a node's uplink.
func (u Uplinks) Of(node string) Uplink {
	if uplink, ok := u[node]; ok {
		return uplink
	}
	return NATUplink()
}

// NATUplink returns VirtualBox's defaults (its manual, chapter "Network Address
// Translation": the guest is 10.0.2.15, the gateway .2, the DNS proxy .3).
func NATUplink() Uplink {
	return Uplink{
		Interface: "eth0",
		Address:   netip.MustParsePrefix("10.0.2.15/24"),
		Gateway:   netip.MustParseAddr("10.0.2.2"),
		DNS:       netip.MustParseAddr("10.0.2.3"),
		Metric:    100,
	}
}
