package api

import "net/netip"

// Tables are the kernel's own, as netlink gives them, IPv4 only.
type Tables struct {
	Links []Link `json:"links"`
	// Routes of the main table, in the kernel's order.
	Routes     []Route     `json:"routes"`
	Neighbours []Neighbour `json:"neighbours"`
	// Forwards are the entries of all tunnel devices, as bridge-fdb(8) shows them.
	Forwards   []Forward `json:"forwards,omitempty"`
	Forwarding bool      `json:"forwarding"`
}

// Link is an interface.
type Link struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	Kind  string `json:"kind"` // veth, dummy, ifb, …; empty for loopback and hardware
	Alias string `json:"alias,omitempty"`
	// MAC is as ip-link(8) prints it, zeros on loopback; empty where a link has none.
	MAC string `json:"mac,omitempty"`
	MTU int    `json:"mtu"`
	// Up is the administrative state; Carrier is false where the other end is down.
	Up        bool           `json:"up"`
	Carrier   bool           `json:"carrier"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// Peer is the index of the other end of a veth pair, 0 for none; PeerHere says
	// that it is in the same namespace. Master is the bridge or the VRF that the
	// link is in.
	Peer     int    `json:"peer,omitempty"`
	PeerHere bool   `json:"peerHere,omitempty"`
	Master   string `json:"master,omitempty"`
	// Forwarding and RPFilter are the interface's own sysctls; RPFilter is the
	// higher of the interface's and "all", which is the one that counts.
	Forwarding bool `json:"forwarding"`
	RPFilter   int  `json:"rpFilter"`
	// VXLAN is what only a tunnel's device has.
	VXLAN *VXLAN `json:"vxlan,omitempty"`
}

// VXLAN is how a device of that kind sends and takes packets (RFC 7348).
type VXLAN struct {
	VNI   uint32     `json:"vni"`
	Port  uint16     `json:"port"`
	Local netip.Addr `json:"local,omitzero"`
	// Learning lets what comes in change where packets are sent to.
	Learning bool `json:"learning,omitempty"`
	// External leaves all that to routes and programs.
	External bool `json:"external,omitempty"`
}

// Forward says behind which node a MAC address is, by a tunnel's device.
type Forward struct {
	Device string     `json:"device"`
	MAC    string     `json:"mac"`
	Remote netip.Addr `json:"remote,omitzero"`
	State  string     `json:"state,omitempty"` // permanent, static or stale; empty for one that is in use
}

// Route is one entry of a routing table.
type Route struct {
	// Table is the number of its table; 0 in [Tables], which are of the main one.
	Table int          `json:"table,omitempty"`
	To    netip.Prefix `json:"to"`
	// Type is unicast, blackhole, unreachable, prohibit or throw, in ip-route(8)'s words.
	Type     string    `json:"type"`
	NextHops []NextHop `json:"nextHops,omitempty"`
	// Protocol is the number; ProtocolName the name that ip would print.
	Protocol     int        `json:"protocol"`
	ProtocolName string     `json:"protocolName"`
	Scope        string     `json:"scope"`
	Source       netip.Addr `json:"source,omitzero"`
	Metric       int        `json:"metric,omitempty"`
	MTU          int        `json:"mtu,omitempty"`
}

// NextHop is where a route sends a packet. Via is the zero address on a
// connected route.
type NextHop struct {
	Via    netip.Addr `json:"via,omitzero"`
	Device string     `json:"device"`
	Weight int        `json:"weight,omitempty"`
	// OnLink takes Via as a neighbour on Device, whatever the addresses say.
	OnLink bool `json:"onLink,omitempty"`
	// Dead and LinkDown are the kernel's own flags.
	Dead     bool `json:"dead,omitempty"`
	LinkDown bool `json:"linkDown,omitempty"`
}

// Neighbour is an entry of the ARP table.
type Neighbour struct {
	Address netip.Addr `json:"address"`
	Device  string     `json:"device"`
	MAC     string     `json:"mac,omitempty"`
	State   string     `json:"state"` // reachable, stale, failed, permanent, … as ip-neighbour(8) has them
}

// LookupRequest asks the FIB for its decision on each query.
type LookupRequest struct {
	Queries []Lookup `json:"queries"`
}

// Lookup is one question to the FIB. From is optional.
type Lookup struct {
	To   netip.Addr `json:"to"`
	From netip.Addr `json:"from,omitzero"`
}

// LookupResponse has one decision for each query, in the same order.
type LookupResponse struct {
	Decisions []Decision `json:"decisions"`
}

// Decision is the FIB's: where a packet of this node would go.
type Decision struct {
	// Type is unicast or local; with Error set, nothing else is.
	Type   string     `json:"type,omitempty"`
	Via    netip.Addr `json:"via,omitzero"`
	Device string     `json:"device,omitempty"`
	Source netip.Addr `json:"source,omitzero"`
	// MTU is the route's path MTU as the kernel remembers it; 0 where it has learnt none.
	MTU int `json:"mtu,omitempty"`
	// Error is the kernel's, such as "network is unreachable".
	Error string `json:"error,omitempty"`
}
