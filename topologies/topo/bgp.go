package topo

import (
	"net/netip"
	"slices"
)

// BGPSession is one session of a node, as the node sees it.
type BGPSession struct {
	// Peer is the node at the other end, Address its own, Local this node's.
	Peer    string
	Address netip.Addr
	Local   netip.Addr
	ASN     uint32
	// Passive waits for the peer's call: the peer names this node, and not the
	// other way round; where each names the other, the first one in the file waits.
	Passive bool
}

// BGPSessions returns the sessions of a node that speaks BGP: those that it
// names, in its order, then those that name it, in the file's.
func (t *Topology) BGPSessions(node string) []BGPSession {
	n, _ := t.Nodes.Get(node)
	if n.BGP == nil {
		return nil
	}
	var sessions []BGPSession
	for _, address := range n.BGP.Neighbors {
		for peer, other := range t.Nodes.All() {
			if other.BGP != nil && other.has(address) {
				waits := other.BGP.names(n) && t.before(node, peer)
				sessions = append(sessions, BGPSession{Peer: peer, Address: address, Local: n.facing(address), ASN: other.BGP.ASN, Passive: waits})
			}
		}
	}
	for peer, other := range t.Nodes.All() {
		if other.BGP == nil || slices.ContainsFunc(sessions, func(s BGPSession) bool { return s.Peer == peer }) {
			continue
		}
		for _, address := range other.BGP.Neighbors {
			if peer != node && n.has(address) {
				sessions = append(sessions, BGPSession{Peer: peer, Address: other.facing(address), Local: address, ASN: other.BGP.ASN, Passive: true})
			}
		}
	}
	return sessions
}

// names says whether a speaker names an address of the node.
func (b *BGP) names(n Node) bool { return slices.ContainsFunc(b.Neighbors, n.has) }

// before says whether a stands before b in the file.
func (t *Topology) before(a, b string) bool {
	names := t.Nodes.Names()
	return slices.Index(names, a) < slices.Index(names, b)
}

func (n Node) has(address netip.Addr) bool {
	for _, iface := range n.Interfaces.All() {
		if iface.Address.Addr() == address {
			return true
		}
	}
	return false
}

// facing is the node's address on the network of another's; its primary one
// where it is on none.
func (n Node) facing(address netip.Addr) netip.Addr {
	for _, iface := range n.Interfaces.All() {
		if iface.Network != "" && iface.Address.Contains(address) {
			return iface.Address.Addr()
		}
	}
	_, primary, _ := n.Primary()
	return primary.Address.Addr()
}
