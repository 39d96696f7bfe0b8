package dns

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// zone is what names and addresses stand for, compiled from one cluster. It
// does not change. It holds indices into the cluster, not records: ten thousand
// services must not cost a second copy of them.
type zone struct {
	cluster *api.Cluster
	domain  string // lower case, with its dot at the end
	// spaces are the namespaces that have services, podSpaces those that have pods.
	spaces, podSpaces map[string]bool
	services          map[name]int32
	nodes             map[string]netip.Addr
	pods              map[netip.Addr]int32
	reverse           map[netip.Addr]target
	// owned are the networks of which every address is known, or known not to be.
	owned []netip.Prefix
}

type name struct{ namespace, name string }

// target is what an address is the address of.
type target struct {
	kind  byte
	index int32 // in the cluster's list of that kind
}

const (
	toService  = iota
	toEndpoint // of a headless service
	toPod
	toNode
)

// compile indexes cluster, which must not change any more.
func compile(cluster *api.Cluster) *zone {
	z := &zone{
		cluster:   cluster,
		domain:    strings.ToLower(strings.Trim(cluster.Domain, ".")) + ".",
		spaces:    map[string]bool{},
		podSpaces: map[string]bool{},
		services:  make(map[name]int32, len(cluster.Services)),
		nodes:     make(map[string]netip.Addr, len(cluster.Nodes)),
		pods:      make(map[netip.Addr]int32, len(cluster.Pods)),
		reverse:   make(map[netip.Addr]target, len(cluster.Services)+len(cluster.Pods)+2*len(cluster.Nodes)),
	}
	if z.domain == "." {
		z.domain = "cluster.local."
	}
	// What is entered first keeps its address.
	z.enterServices()
	z.enterPods()
	z.enterNodes()
	z.owned = append(z.owned, cluster.ServiceCIDR, cluster.NativeCIDR)
	for _, n := range cluster.Nodes {
		z.owned = append(z.owned, n.PodCIDR)
	}
	return z
}

func (z *zone) enterServices() {
	for i, s := range z.cluster.Services {
		z.spaces[s.Namespace] = true
		z.services[name{s.Namespace, s.Name}] = int32(i)
		if s.ClusterIP.IsValid() {
			z.enter(s.ClusterIP, toService, i)
		}
	}
	for i, s := range z.cluster.Services {
		if s.ClusterIP.IsValid() {
			continue
		}
		for _, b := range s.Backends {
			z.enter(b.Address, toEndpoint, i)
		}
	}
}

func (z *zone) enterPods() {
	for i, p := range z.cluster.Pods {
		z.podSpaces[p.Namespace] = true
		z.pods[p.Address] = int32(i)
		z.enter(p.Address, toPod, i)
	}
}

// enterNodes leaves out what several nodes have, such as the address behind
// the same NAT, which names none of them.
func (z *zone) enterNodes() {
	owners := map[netip.Addr]int{}
	for _, n := range z.cluster.Nodes {
		for _, a := range n.Addresses {
			owners[a]++
		}
	}
	for i, n := range z.cluster.Nodes {
		z.nodes[strings.ToLower(n.Name)] = n.Address
		z.enter(n.Address, toNode, i)
		z.enter(n.Gateway, toNode, i)
		for _, a := range n.Addresses {
			if owners[a] == 1 {
				z.enter(a, toNode, i)
			}
		}
	}
}

func (z *zone) enter(address netip.Addr, kind byte, index int) {
	if _, taken := z.reverse[address]; !taken && address.Is4() {
		z.reverse[address] = target{kind, int32(index)}
	}
}

// nameOf is the name to which a PTR record of address points.
func (z *zone) nameOf(address netip.Addr, to target) string {
	switch to.kind {
	case toService:
		return z.serviceName(&z.cluster.Services[to.index])
	case toEndpoint:
		return dashed(address) + "." + z.serviceName(&z.cluster.Services[to.index])
	case toPod:
		return dashed(address) + "." + z.cluster.Pods[to.index].Namespace + ".pod." + z.domain
	default:
		return z.cluster.Nodes[to.index].Name + "."
	}
}

func (z *zone) serviceName(s *api.Service) string {
	return s.Name + "." + s.Namespace + ".svc." + z.domain
}

// owner is the reverse zone, ending at a dot between octets, that holds the
// first octets of an address in prefix and lies in a network of the cluster.
func (z *zone) owner(prefix netip.Prefix) (zone netip.Prefix, ok bool) {
	for _, network := range z.owned {
		if !network.IsValid() || !network.Addr().Is4() {
			continue
		}
		octets := netip.PrefixFrom(prefix.Addr(), (network.Bits()+7)/8*8).Masked()
		if network.Contains(prefix.Addr()) && prefix.Bits() >= octets.Bits() && network.Bits() > 0 {
			return octets, true
		}
	}
	return netip.Prefix{}, false
}

// holds says whether any address in prefix has a name.
func (z *zone) holds(prefix netip.Prefix) bool {
	for address := range z.reverse {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

// dashed is an address as a label: 172-20-0-5.
func dashed(address netip.Addr) string { return strings.ReplaceAll(address.String(), ".", "-") }

// undashed reads what dashed wrote, and nothing else.
func undashed(label string) (netip.Addr, bool) {
	address, err := netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
	return address, err == nil && address.Is4() && dashed(address) == label
}

const arpa = "in-addr.arpa."

// arpaName is the name of a prefix that ends at an octet.
func arpaName(prefix netip.Prefix) string {
	octets := prefix.Addr().As4()
	text := arpa
	for _, o := range octets[:prefix.Bits()/8] {
		text = decimal(o) + "." + text
	}
	return text
}

func decimal(octet byte) string {
	text := [3]byte{'0' + octet/100, '0' + octet/10%10, '0' + octet%10}
	switch {
	case octet >= 100:
		return string(text[:])
	case octet >= 10:
		return string(text[1:])
	default:
		return string(text[2:])
	}
}

// fromArpa reads the labels before in-addr.arpa, which come lowest octet first.
func fromArpa(labels []string) (prefix netip.Prefix, ok bool) {
	prefix = netip.PrefixFrom(netip.Addr{}, -1) // Bits is negative
	if len(labels) > 4 {
		return prefix, false
	}
	var bits uint32
	for i, label := range labels {
		var octet uint32
		for _, digit := range []byte(label) {
			if digit < '0' || digit > '9' || octet > 255 {
				return prefix, false
			}
			octet = octet*10 + uint32(digit-'0')
		}
		if octet > 255 || decimal(byte(octet)) != label {
			return prefix, false
		}
		bits |= octet << (8 * (4 - len(labels) + i))
	}
	var octets [4]byte
	binary.BigEndian.PutUint32(octets[:], bits)
	return netip.PrefixFrom(netip.AddrFrom4(octets), 8*len(labels)), true
}
