package machine

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/native-routing/labctl/topologies/topo"
)

// uplink is the interface of the default route of the least metric; where there
// is none, the one that the SSH connection comes in by. Its Interface is empty
// where there is neither.
func (s seen) uplink() topo.Uplink {
	var u topo.Uplink
	for _, r := range s.Routes {
		if r.To.Bits() != 0 || len(r.Hops) != 1 || u.Interface != "" && r.Metric >= u.Metric {
			continue
		}
		u = topo.Uplink{Interface: r.Hops[0].Device, Gateway: r.Hops[0].Via, Metric: r.Metric, Address: netip.PrefixFrom(r.Source, 0)}
	}
	if u.Interface == "" {
		u.Interface = s.reached()
		if s.Server.Is4() {
			u.Address = netip.PrefixFrom(s.Server, 0)
		}
	}
	if l, ok := s.link(u.Interface); ok {
		for _, a := range l.ipv4() {
			if a.Addr() == u.Address.Addr() || !u.Address.IsValid() {
				u.Address = a
			}
		}
	}
	u.DNS = s.nameServer()
	return u
}

// reached is the interface that the SSH connection comes in by; empty where it is
// not known, as behind a forwarded port.
func (s seen) reached() string {
	for _, l := range s.Links {
		if slices.ContainsFunc(l.Addresses, func(a address) bool { return a.Local == s.Server.WithZone("") }) {
			return l.Name
		}
	}
	return ""
}

// nameServer is the first that resolv.conf(5) names.
func (s seen) nameServer() netip.Addr {
	for _, path := range resolverFiles() {
		for line := range strings.Lines(s.Files[path].Content) {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "nameserver" {
				continue
			}
			if a, err := netip.ParseAddr(fields[1]); err == nil && a.Is4() && !a.IsLoopback() {
				return a
			}
		}
	}
	return netip.Addr{}
}

// silence is a ruleset that lets nobody answer what leaves by the uplink for an
// address of the lab. Such a packet is sent to the uplink's own Ethernet address:
// it is seen to leave, and no switch hands it on. To drop it would let it not be
// seen going out. That hook is there from Linux 5.16 on. A gateway that takes
// packets whatever their Ethernet address, such as QEMU's own, may answer all the
// same; so answers from the lab's addresses, and ICMP errors about packets to
// them, do not come in. Nothing else that passes the uplink is touched.
//
// It returns the ruleset and the words by which it is known again: nft prints
// rules in its own.
func silence(lab, device, mac string, prefixes []netip.Prefix, egress bool) (ruleset, mark string) {
	texts := make([]string, len(prefixes))
	about := ""
	for i, p := range prefixes {
		texts[i] = p.String()
		// The destination of the packet that the error is about: 8 bytes of ICMP, then 16 of IPv4.
		about += fmt.Sprintf("\t\ticmp type { destination-unreachable, time-exceeded, parameter-problem } @th,192,32 & 0x%08x == 0x%08x drop\n",
			^uint32(0)<<(32-p.Bits()), binary.BigEndian.Uint32(p.Masked().Addr().AsSlice()))
	}
	all := strings.Join(texts, ", ")
	out := ""
	if egress {
		out = fmt.Sprintf("\tchain out {\n\t\ttype filter hook egress device %q priority 0; policy accept;\n\t\tip daddr { %s } ether daddr set %s\n\t}\n",
			device, all, mac)
	}
	sum := sha256.Sum256([]byte(device + all + out))
	mark = "labctl " + hex.EncodeToString(sum[:6])
	return header(lab) + fmt.Sprintf(`table netdev labctl
delete table netdev labctl
table netdev labctl {
	chain in {
		type filter hook ingress device %q priority 0; policy accept;
		ip saddr { %s } drop comment %q
%s	}
%s}
`, device, all, mark, about, out), mark
}

// The first kernel with the egress hook.
const (
	egressMajor = 5
	egressMinor = 16
)

// kernelFrom says whether the kernel is of that version or a later one.
func (s seen) kernelFrom(major, minor int) bool {
	fields := strings.FieldsFunc(s.Kernel, func(r rune) bool { return r < '0' || r > '9' })
	if len(fields) < 2 {
		return false
	}
	have, err := strconv.Atoi(fields[0])
	if err != nil || have != major {
		return err == nil && have > major
	}
	have, err = strconv.Atoi(fields[1])
	return err == nil && have >= minor
}
