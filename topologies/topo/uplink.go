package topo

import "net/netip"

// Uplink is eth0, the interface that VirtualBox's NAT gives to every VM, with
// the same address on each. What leaves by it for an address of the lab is lost
// without an answer.
type Uplink struct {
	Interface string
	Address   netip.Prefix
	Gateway   netip.Addr
	DNS       netip.Addr
	// Metric of its routes, as systemd-networkd sets it for what DHCP gives.
	Metric int
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
