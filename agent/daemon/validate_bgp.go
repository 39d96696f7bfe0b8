//go:build linux

package daemon

import (
	"fmt"
	"net/netip"

	"github.com/native-routing/labctl/agent/api"
)

// bgp wants a speaker that can be told from its neighbours.
func (v *validator) bgp(b api.BGP) {
	if b.ASN == 0 {
		v.say("bgp.asn is 0, which is nobody's (RFC 7607)")
	}
	v.address("bgp.routerID", b.RouterID)
	seen := map[netip.Addr]bool{}
	for i, n := range b.Neighbors {
		field := fmt.Sprintf("bgp.neighbors[%d]", i)
		v.text(field+".name", n.Name)
		v.address(field+".address", n.Address)
		v.address(field+".local", n.Local)
		if n.ASN == 0 {
			v.say("%s.asn is 0, which is nobody's (RFC 7607)", field)
		}
		if seen[n.Address] {
			v.say("%s: %s is a neighbour twice", field, n.Address)
		}
		seen[n.Address] = true
	}
	for i, p := range b.Advertise {
		v.prefix(fmt.Sprintf("bgp.advertise[%d]", i), p)
	}
}
