//go:build linux

package inspect

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/native-routing/labctl/bpf"
)

// Directions of entries, in the words of Cilium's lists.
const (
	Out = "OUT"
	In  = "IN"
	Svc = "SVC"
)

// NAT is one of the two entries that Cilium has for a translated source. OUT
// translates the source of what leaves, IN the destination of what comes back.
type NAT struct {
	Protocol    string         `json:"protocol"`
	Direction   string         `json:"direction"`
	Source      netip.AddrPort `json:"source"`
	Destination netip.AddrPort `json:"destination"`
	Translated  netip.AddrPort `json:"translated"`
	Age         time.Duration  `json:"age"`
	// Host is the node's own connection, whose port is kept from being taken.
	Host bool `json:"host"`
}

// NATList has OUT and IN of each translation, in this order, sorted by protocol
// and client.
func (d *Dump) NATList() []NAT {
	found := make([]NAT, 0, 2*len(d.NATs))
	for _, entry := range d.NATs {
		k, v := entry.Key, entry.Value
		client, local, remote := addrPort(v.Addr, v.Port), addrPort(k.Local, k.LocalPort), addrPort(k.Remote, k.RemotePort)
		nat := NAT{
			Protocol: protocol(k.Proto), Age: d.Time.age(v.Born),
			Host: v.Flags&uint8(bpf.DatapathNatFlagNAT_HOST) != 0,
		}
		nat.Direction, nat.Source, nat.Destination, nat.Translated = Out, client, remote, local
		found = append(found, nat)
		nat.Direction, nat.Source, nat.Destination, nat.Translated = In, remote, local, client
		found = append(found, nat)
	}
	slices.SortFunc(found, func(a, b NAT) int {
		ac, ar, al := a.ends()
		bc, br, bl := b.ends()
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), ac.Compare(bc), ar.Compare(br), al.Compare(bl),
			-cmp.Compare(a.Direction, b.Direction))
	})
	return found
}

func (n NAT) ends() (client, remote, local netip.AddrPort) {
	if n.Direction == Out {
		return n.Source, n.Destination, n.Translated
	}
	return n.Translated, n.Source, n.Destination
}
