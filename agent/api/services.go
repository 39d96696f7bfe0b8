package api

import "net/netip"

// ServiceTable is what a node's maps say of services, read from the kernel.
type ServiceTable struct {
	// Frontends are sorted by id.
	Frontends []Frontend `json:"frontends"`
}

// DropCounts are the packets that a node's datapath has dropped since it was
// loaded, by Cilium's text of the reason.
type DropCounts struct {
	Packets map[string]uint64 `json:"packets"`
}

// Frontend is one address that is balanced.
type Frontend struct {
	ID      uint16         `json:"id"`
	Address netip.AddrPort `json:"address"`
	// Protocol is TCP or UDP.
	Protocol string `json:"protocol"`
	// Scope is external, or internal for the second half of a frontend with two.
	Scope string `json:"scope"`
	// Type and Flags are as in Cilium's list of a load balancer's entries:
	// ClusterIP, and "non-routable" and the like.
	Type  string   `json:"type"`
	Flags []string `json:"flags,omitempty"`
	// Service is the key of the service that it belongs to, where the agent knows.
	Service string `json:"service,omitempty"`
	// Algorithm is random or maglev.
	Algorithm string `json:"algorithm"`
	// Backends are in the order of their slots. The first Usable ones take new connections.
	Backends []FrontendBackend `json:"backends"`
	Usable   int               `json:"usable"`
}

// FrontendBackend is what one slot of a frontend leads to.
type FrontendBackend struct {
	ID      uint32         `json:"id"`
	Address netip.AddrPort `json:"address"`
	// State is active, terminating, quarantined or maintenance.
	State string `json:"state"`
	// Missing is a slot whose backend is not in the map: never, unless somebody
	// else wrote there.
	Missing bool `json:"missing,omitempty"`
}
