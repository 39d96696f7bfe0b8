package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
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
	for _, l := range s.Links {
		for _, a := range l.ipv4() {
			switch {
			case u.Interface == "" && a.Addr() == s.Server:
				u.Interface, u.Address = l.Name, a
			case l.Name == u.Interface && (a.Addr() == u.Address.Addr() || !u.Address.IsValid()):
				u.Address = a
			}
		}
	}
	u.DNS = s.nameServer()
	return u
}

// nameServer is the first that resolv.conf(5) names, behind systemd-resolved's stub.
func (s seen) nameServer() netip.Addr {
	for _, path := range []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"} {
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

// silence is a ruleset that sends what leaves by the uplink for an address of the
// lab to the uplink's own Ethernet address. So the packet is seen to leave, and
// no switch hands it on: nobody can answer. To drop answers instead would let
// them be seen coming in, and to drop the packet would let it not be seen going
// out. The hook is there from Linux 5.16 on.
//
// It returns the ruleset and the words by which it is known again: nft prints
// rules in its own.
func silence(lab, device, mac string, prefixes []netip.Prefix) (ruleset, mark string) {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.String()
	}
	rule := fmt.Sprintf("ip daddr { %s } ether daddr set %s", strings.Join(texts, ", "), mac)
	sum := sha256.Sum256([]byte(device + rule))
	mark = "labctl " + hex.EncodeToString(sum[:6])
	return header(lab) + fmt.Sprintf(`table netdev labctl
delete table netdev labctl
table netdev labctl {
	chain uplink {
		type filter hook egress device "%s" priority 0; policy accept;
		%s comment "%s"
	}
}
`, device, rule, mark), mark
}

const (
	egressMajor = 5
	egressMinor = 16
)

// canSilence says whether the kernel has the hook.
func (s seen) canSilence() bool { return s.Commands["nft"] && s.kernelFrom(egressMajor, egressMinor) }

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
