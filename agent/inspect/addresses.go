//go:build linux

package inspect

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/bpf"
)

// Address is a prefix of the cluster and who has it.
type Address struct {
	Prefix   netip.Prefix `json:"prefix"`
	Identity uint32       `json:"identity"`
	// Node is the address of the node that it is on, 0.0.0.0 for this one or none.
	Node netip.Addr `json:"node"`
	// Flags are Cilium's: skiptunnel, hastunnel, ….
	Flags []string `json:"flags"`
}

// AddressList is the ipcache, sorted by prefix.
func (d *Dump) AddressList() []Address {
	found := make([]Address, 0, len(d.IPCache))
	for _, entry := range d.IPCache {
		found = append(found, Address{
			Prefix: prefixOf(entry.Key), Identity: entry.Value.Identity, Node: bpf.Addr(entry.Value.Node),
			Flags: addressFlags(entry.Value.Flags),
		})
	}
	slices.SortFunc(found, func(a, b Address) int { return comparePrefixes(a.Prefix, b.Prefix) })
	return found
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func addressFlags(bits uint32) []string {
	words := []string{}
	for i, word := range []string{"skiptunnel", "hastunnel", "ipv6tunnel", "remotecluster"} {
		if bits&(1<<i) != 0 {
			words = append(words, word)
		}
	}
	return words
}

// Endpoint is a pod of the node, or one of the node's own addresses.
type Endpoint struct {
	ID       uint32     `json:"id"`
	Address  netip.Addr `json:"address"`
	Host     bool       `json:"host"`
	Identity uint32     `json:"identity"`
	// Index is of the node's end of the pod's link, MAC of the pod's, HostMAC of the node's.
	Index   uint32 `json:"index"`
	MAC     string `json:"mac"`
	HostMAC string `json:"hostMAC"`
}

// EndpointList is sorted by id.
func (d *Dump) EndpointList() []Endpoint {
	found := make([]Endpoint, 0, len(d.Endpoints))
	for id, e := range d.Endpoints {
		found = append(found, Endpoint{
			ID: id, Address: bpf.Addr(e.Addr), Identity: e.Identity, Index: e.Ifindex,
			Host: e.Flags&uint32(bpf.DatapathEndpointFlagENDPOINT_HOST) != 0,
			MAC:  macText(e.Mac), HostMAC: macText(e.HostMac),
		})
	}
	slices.SortFunc(found, func(a, b Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	return found
}
