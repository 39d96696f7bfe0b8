package workload

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/topologies/topo"
)

// nth is the address that many after the first of an IPv4 prefix.
func nth(p netip.Prefix, n uint32) netip.Addr {
	first := p.Masked().Addr().As4()
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(first[:])+n)
	return netip.AddrFrom4(a)
}

// sizeOf counts the addresses of an IPv4 prefix; a /0 counts one less than it has.
func sizeOf(p netip.Prefix) uint32 {
	return uint32(min(uint64(1)<<(32-p.Bits()), 1<<32-1))
}

// forPods says whether an address of a pod CIDR is one that a pod can have.
func forPods(cidr netip.Prefix, a netip.Addr) bool {
	return cidr.Contains(a) && a != nth(cidr, 0) && a != nth(cidr, 1) && a != nth(cidr, sizeOf(cidr)-1)
}

// pool is which pod addresses are in use, and which may still be.
type pool struct {
	taken   map[netip.Addr]bool
	leaving map[netip.Addr]time.Time
}

func (s *Set) pool(now time.Time) pool {
	p := pool{map[netip.Addr]bool{}, map[netip.Addr]time.Time{}}
	for i := range s.Pods {
		if a, err := netip.ParseAddr(s.Pods[i].Status.PodIP); err == nil {
			p.taken[a] = true
		}
	}
	for _, l := range s.Leaving {
		if l.Until.After(now) {
			p.leaving[l.Address] = l.Until
		}
	}
	return p
}

// lowest is the lowest free address of a pod CIDR. Addresses of pods that may
// still be ending come last, the one first that leaves first. False where all
// are in use.
func (p pool) lowest(cidr netip.Prefix) (netip.Addr, bool) {
	var late netip.Addr
	for n := uint32(2); n+1 < sizeOf(cidr); n++ {
		a := nth(cidr, n)
		until, ending := p.leaving[a]
		switch {
		case p.taken[a]:
		case !ending:
			return a, true
		case !late.IsValid() || until.Before(p.leaving[late]):
			late = a
		}
	}
	return late, late.IsValid()
}

// dnsOffset is the place of the name server in the service CIDR, as with kubeadm.
const dnsOffset = 10

// DNSAddress is the address of the lab's name server: the tenth of the service
// CIDR. The zero address where the lab has no service CIDR, or one too small.
func DNSAddress(t *topo.Topology) netip.Addr {
	cidr := t.Cluster.ServiceCIDR
	if !cidr.IsValid() || sizeOf(cidr) <= dnsOffset+1 {
		return netip.Addr{}
	}
	return nth(cidr, dnsOffset)
}

// serviceAddress says why an address cannot be a service's; empty where it can.
func serviceAddress(cidr netip.Prefix, a netip.Addr) string {
	switch {
	case !cidr.Contains(a):
		return fmt.Sprintf("is not in the service CIDR %s", cidr)
	case a == nth(cidr, 0), a == nth(cidr, sizeOf(cidr)-1):
		return "is the network's own"
	case a == nth(cidr, 1):
		return "is kept for the API server"
	case a == nth(cidr, dnsOffset):
		return "is the name server's"
	}
	return ""
}

// reserved are addresses and node ports that others have, or ask for, by whom.
type reserved struct {
	addresses map[netip.Addr]string
	ports     map[string]string
}

func portKey(protocol corev1.Protocol, port int32) string {
	return strconv.Itoa(int(port)) + "/" + string(protocol)
}

func (r reserved) add(v *corev1.Service) {
	if a, err := netip.ParseAddr(v.Spec.ClusterIP); err == nil {
		r.addresses[a] = keyOf(v)
	}
	for _, p := range v.Spec.Ports {
		if p.NodePort != 0 {
			r.ports[portKey(p.Protocol, p.NodePort)] = keyOf(v)
		}
	}
}

// reservations are what services hold.
func (s *Set) reservations() reserved {
	r := reserved{map[netip.Addr]string{}, map[string]string{}}
	for i := range s.Services {
		r.add(&s.Services[i])
	}
	return r
}

// otherThan says who else than the service holds it.
func otherThan[K comparable](held map[K]string, what K, key string) string {
	if by := held[what]; by != key {
		return by
	}
	return ""
}

// addressService fills in what the service leaves to the lab: its address and
// its node ports. What it names itself must be free.
func addressService(t *topo.Topology, v *corev1.Service, r reserved) error {
	if err := giveClusterIP(t, v, r); err != nil {
		return err
	}
	v.Spec.ClusterIPs = []string{v.Spec.ClusterIP}
	if v.Spec.Type != corev1.ServiceTypeNodePort {
		return nil
	}
	key := keyOf(v)
	for i := range v.Spec.Ports {
		p := &v.Spec.Ports[i]
		if p.NodePort != 0 {
			if by := otherThan(r.ports, portKey(p.Protocol, p.NodePort), key); by != "" {
				return fieldError(fmt.Sprintf("spec.ports[%d].nodePort", i), "%d is the node port of Service %s; choose another one, or leave it to the lab", p.NodePort, by)
			}
			continue
		}
		const size = manifest.LastNodePort - manifest.FirstNodePort + 1
		n, ok := probe(number(size, t.Metadata.Name, "nodePort", key, string(p.Protocol), strconv.Itoa(int(p.Port))), size, func(n uint32) bool {
			_, taken := r.ports[portKey(p.Protocol, int32(manifest.FirstNodePort+n))]
			return !taken
		})
		if !ok {
			return fieldError(fmt.Sprintf("spec.ports[%d]", i), "all %d node ports are taken", size)
		}
		p.NodePort = int32(manifest.FirstNodePort + n)
		r.ports[portKey(p.Protocol, p.NodePort)] = key
	}
	return nil
}

func giveClusterIP(t *topo.Topology, v *corev1.Service, r reserved) error {
	const field = "spec.clusterIP"
	cidr, key := t.Cluster.ServiceCIDR, keyOf(v)
	switch {
	case v.Spec.ClusterIP == corev1.ClusterIPNone:
		return nil
	case !cidr.IsValid():
		return fieldError(field, "the lab has no service CIDR to take it from; add cluster.serviceCIDR to the topology, or write clusterIP: None")
	case v.Spec.ClusterIP != "":
		a, err := netip.ParseAddr(v.Spec.ClusterIP)
		if err != nil {
			return fieldError(field, "%s is no address; write one in %s", v.Spec.ClusterIP, cidr)
		}
		if why := serviceAddress(cidr, a); why != "" {
			return fieldError(field, "%s %s; choose another one, or leave it to the lab", a, why)
		}
		if by := otherThan(r.addresses, a, key); by != "" {
			return fieldError(field, "%s is the address of Service %s; choose another one, or leave it to the lab", a, by)
		}
		return nil
	}
	size := sizeOf(cidr)
	n, ok := probe(number(size, t.Metadata.Name, "clusterIP", key), size, func(n uint32) bool {
		a := nth(cidr, n)
		return serviceAddress(cidr, a) == "" && r.addresses[a] == ""
	})
	if !ok {
		return fieldError(field, "the service CIDR %s is used up; delete a service, or widen cluster.serviceCIDR in the topology", cidr)
	}
	a := nth(cidr, n)
	v.Spec.ClusterIP = a.String()
	r.addresses[a] = key
	return nil
}
