package api

import (
	"net/netip"
	"time"
)

// BGP is a node's part in BGP-4 (RFC 4271).
type BGP struct {
	ASN uint32 `json:"asn"`
	// RouterID names the speaker; it is an address of the node.
	RouterID  netip.Addr    `json:"routerID"`
	Neighbors []BGPNeighbor `json:"neighbors"`
	// Advertise are the prefixes that the node originates.
	Advertise []netip.Prefix `json:"advertise,omitempty"`
}

// BGPNeighbor is another speaker on a network of this node's.
type BGPNeighbor struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	ASN     uint32     `json:"asn"`
	// Local is this node's address on that network, from which it calls, or at
	// which it waits.
	Local netip.Addr `json:"local"`
	// Passive waits for the neighbour's call on TCP port 179.
	Passive bool `json:"passive,omitempty"`
}

// BGPStatus is how a node's sessions stand.
type BGPStatus struct {
	ASN      uint32     `json:"asn"`
	RouterID netip.Addr `json:"routerID"`
	Peers    []BGPPeer  `json:"peers"`
	// Routes are all that the speaker knows, its own among them, the best first
	// for each prefix.
	Routes []BGPRoute `json:"routes"`
}

// BGPPeer is one session.
type BGPPeer struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	ASN     uint32     `json:"asn"`
	// State is idle, connect, active, opensent, openconfirm or established
	// (RFC 4271, section 8.2.2).
	State string `json:"state"`
	// Since is when the session was established.
	Since time.Time `json:"since,omitzero"`
	// Received and Advertised count prefixes.
	Received   int `json:"received"`
	Advertised int `json:"advertised"`
	// Synced means that the peer has sent all that it had when the session began.
	Synced bool `json:"synced"`
	// Reason is why the last session ended.
	Reason string `json:"reason,omitempty"`
}

// BGPRoute is one path to a prefix.
type BGPRoute struct {
	Prefix netip.Prefix `json:"prefix"`
	// NextHop is the zero address for a prefix of the node's own.
	NextHop netip.Addr `json:"nextHop,omitzero"`
	Path    []uint32   `json:"path,omitempty"`
	// Peer is the address of the neighbour that told it.
	Peer netip.Addr `json:"peer,omitzero"`
	Best bool       `json:"best"`
	// Since is when it was heard.
	Since time.Time `json:"since,omitzero"`
}
