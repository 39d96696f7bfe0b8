package tcpdump

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// The ports whose datagrams are looked into.
const (
	domain     = 53
	vxlan      = 4789 // IANA's
	vxlanLinux = 8472 // Linux's and Cilium's
)

func (p *Printer) udp(b *strings.Builder, s segment) {
	var u layers.UDP
	if len(s.data) < 8 {
		portsOnly(b, s, "udp")
		return
	}
	_ = u.DecodeFromBytes(s.data, gopacket.NilDecodeFeedback) // its header is whole
	b.WriteString(ends(s, uint16(u.SrcPort), uint16(u.DstPort)))
	length, payload := int(u.Length)-8, s.data[8:]
	payload = payload[:max(0, min(len(payload), length))]
	on := func(ports ...layers.UDPPort) bool {
		return slices.Contains(ports, u.SrcPort) || slices.Contains(ports, u.DstPort)
	}
	switch {
	case length < 0:
		fmt.Fprintf(b, "truncated-udplength %d", u.Length)
	case on(domain):
		b.WriteString(dnsText(payload, length))
	case on(vxlan, vxlanLinux) && length >= 8:
		p.vxlan(b, payload, length, s.depth-1)
	default:
		fmt.Fprintf(b, "UDP, length %d", length)
	}
}

// vxlan writes the header of RFC 7348, and the packet inside on a line of its own.
func (p *Printer) vxlan(b *strings.Builder, data []byte, length, depth int) {
	if len(data) < 8 {
		b.WriteString("VXLAN [|vxlan]")
		return
	}
	set := "I"
	if data[0]&0x08 == 0 {
		set = "."
	}
	fmt.Fprintf(b, "VXLAN, flags [%s] (0x%02x), vni %d\n", set, data[0], binary.BigEndian.Uint32(data[4:])>>8)
	p.frame(b, data[8:], length-8, depth)
}
