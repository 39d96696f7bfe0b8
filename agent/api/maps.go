package api

import "net/netip"

// Maps are what a node's datapath goes by and traffic does not change: its
// services and addresses as its eBPF maps hold them, and how it is set. A node
// without a datapath has none.
type Maps struct {
	// Services are sorted by id.
	Services []Frontend `json:"services,omitempty"`
	// Addresses are the ipcache, sorted by prefix.
	Addresses []MapAddress `json:"addresses,omitempty"`
	Settings  []Setting    `json:"settings,omitempty"`
}

// MapAddress is a prefix of the ipcache, and who has it.
type MapAddress struct {
	Prefix   netip.Prefix `json:"prefix"`
	Identity uint32       `json:"identity"`
	// Node is the address of the node that it is on, 0.0.0.0 for this one or none.
	Node netip.Addr `json:"node"`
	// Flags are Cilium's: skiptunnel, hastunnel, ….
	Flags []string `json:"flags,omitempty"`
}

// Setting is one thing that the datapath was loaded with, such as masquerade: on.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
