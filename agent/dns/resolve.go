package dns

import (
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// ttl of every record in seconds, absent ones too: a lab changes.
	ttl = 5
	// schema is the version of Kubernetes' specification of names that is held.
	schema = "1.1.0"
)

// result is what there is to say to one question. Without answers, authority is
// the zone that knows that there are none; it is empty outside of all zones.
type result struct {
	rcode     int
	answers   []dns.RR
	extra     []dns.RR
	authority string
}

// question is one that lies in a zone: the name as it was asked, and lower-case
// labels.
type question struct {
	*zone
	ready  map[string]bool // by pod's key; nil where nobody says
	asked  string
	qtype  uint16
	labels []string // before the zone's own
}

// resolve answers for the pods that are ready.
func (z *zone) resolve(asked dns.Question, ready map[string]bool) result {
	if asked.Qclass != dns.ClassINET && asked.Qclass != dns.ClassANY {
		return result{rcode: dns.RcodeRefused}
	}
	switch asked.Qtype {
	case dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB, dns.TypeOPT:
		return result{rcode: dns.RcodeRefused}
	}
	lower := strings.ToLower(asked.Name)
	q := question{zone: z, ready: ready, asked: asked.Name, qtype: asked.Qtype}
	labels := dns.SplitDomainName(lower)
	switch {
	case dns.IsSubDomain(z.domain, lower):
		q.labels = labels[:len(labels)-dns.CountLabel(z.domain)]
		return within(z.domain, q.inDomain())
	case dns.IsSubDomain(arpa, lower):
		q.labels = labels[:len(labels)-dns.CountLabel(arpa)]
		return q.inReverse()
	case len(labels) == 1:
		// What a resolver asks last when its search list is at its end. Nodes are
		// the only names of one label, so the others are known not to exist.
		q.labels = labels
		r := q.node()
		if r.rcode == dns.RcodeNameError {
			return within(".", exists(dns.IsSubDomain(lower, z.domain)))
		}
		return within(lower, r)
	}
	return result{rcode: dns.RcodeRefused}
}

// within says which zone r speaks for.
func within(zone string, r result) result {
	r.authority = zone
	return r
}

var (
	unknown = result{rcode: dns.RcodeNameError}
	noData  = result{rcode: dns.RcodeSuccess}
)

// exists has no data of its own for a name, but says that it is there.
func exists(yes bool) result {
	if yes {
		return noData
	}
	return unknown
}

func (q question) inDomain() result {
	n := len(q.labels)
	if n == 0 {
		return q.apex()
	}
	switch last := q.labels[n-1]; {
	case last == "svc":
		q.labels = q.labels[:n-1]
		return q.service()
	case last == "pod":
		q.labels = q.labels[:n-1]
		return q.pod()
	case last == "dns" && n == 1:
		return noData
	case last == "dns" && n == 2 && q.labels[0] == "ns":
		return q.addresses(q.cluster.DNS)
	case last == "dns-version" && n == 1:
		return q.only(&dns.TXT{Hdr: header(q.asked, dns.TypeTXT), Txt: []string{schema}})
	}
	return q.node()
}

func (q question) apex() result {
	var r result
	if q.wants(dns.TypeSOA) {
		r.answers = append(r.answers, soa(q.domain, q.domain))
	}
	if q.wants(dns.TypeNS) {
		server := "ns.dns." + q.domain
		r.answers = append(r.answers, &dns.NS{Hdr: header(q.asked, dns.TypeNS), Ns: server})
		r.extra = append(r.extra, a(server, q.cluster.DNS))
	}
	return r
}

func (q question) node() result {
	if len(q.labels) != 1 {
		return unknown
	}
	address, ok := q.nodes[q.labels[0]]
	if !ok {
		return unknown
	}
	return q.addresses(address)
}

// pod answers 172-20-0-5.default.
func (q question) pod() result {
	switch len(q.labels) {
	case 0:
		return noData
	case 1:
		return exists(q.podSpaces[q.labels[0]])
	case 2:
		address, ok := undashed(q.labels[0])
		i, known := q.pods[address]
		if !ok || !known || q.cluster.Pods[i].Namespace != q.labels[1] {
			return unknown
		}
		return q.addresses(address)
	}
	return unknown
}

// service answers webpod.default, and what is below it.
func (q question) service() result {
	n := len(q.labels)
	switch n {
	case 0:
		return noData
	case 1:
		return exists(q.spaces[q.labels[0]])
	}
	i, ok := q.services[name{q.labels[n-1], q.labels[n-2]}]
	if !ok {
		return unknown
	}
	s := &q.cluster.Services[i]
	switch n {
	case 2:
		if s.ClusterIP.IsValid() {
			return q.addresses(s.ClusterIP)
		}
		return q.addresses(q.usable(s)...)
	case 3:
		return q.belowService(s, q.labels[0])
	case 4:
		return q.port(s, q.labels[0], q.labels[1])
	}
	return unknown
}

// belowService answers an endpoint of a headless service; _tcp and _udp are
// there only for what is below them.
func (q question) belowService(s *api.Service, label string) result {
	for _, p := range s.Ports {
		if p.Name != "" && label == "_"+strings.ToLower(p.Protocol) {
			return noData
		}
	}
	address, ok := undashed(label)
	if !ok || s.ClusterIP.IsValid() {
		return unknown
	}
	for _, have := range q.usable(s) {
		if have == address {
			return q.addresses(address)
		}
	}
	return unknown
}

// port answers _http._tcp.webpod.default with where that port is served.
func (q question) port(s *api.Service, port, protocol string) result {
	for i, p := range s.Ports {
		if p.Name == "" || "_"+strings.ToLower(p.Name) != port || "_"+strings.ToLower(p.Protocol) != protocol {
			continue
		}
		if !q.wants(dns.TypeSRV) {
			return noData
		}
		if s.ClusterIP.IsValid() {
			return q.served([]netip.Addr{s.ClusterIP}, []uint16{p.Port}, func(netip.Addr) string { return q.serviceName(s) })
		}
		var addresses []netip.Addr
		var ports []uint16
		for _, b := range s.Backends {
			if q.isReady(b) && i < len(b.Ports) && b.Ports[i] != 0 {
				addresses, ports = append(addresses, b.Address), append(ports, b.Ports[i])
			}
		}
		return q.served(addresses, ports, func(a netip.Addr) string { return dashed(a) + "." + q.serviceName(s) })
	}
	return unknown
}

func (q question) served(addresses []netip.Addr, ports []uint16, target func(netip.Addr) string) result {
	var r result
	for i, address := range addresses {
		r.answers = append(r.answers, &dns.SRV{
			Hdr: header(q.asked, dns.TypeSRV), Weight: uint16(max(1, 100/len(addresses))),
			Port: ports[i], Target: target(address),
		})
		r.extra = append(r.extra, a(target(address), address))
	}
	return r
}

func (q question) isReady(b api.Backend) bool { return b.Pod == "" || q.ready == nil || q.ready[b.Pod] }

// usable are the addresses of the service's ready backends.
func (q question) usable(s *api.Service) []netip.Addr {
	var addresses []netip.Addr
	for _, b := range s.Backends {
		if q.isReady(b) {
			addresses = append(addresses, b.Address)
		}
	}
	return addresses
}

// inReverse answers an address, or a network of which only zones are.
func (q question) inReverse() result {
	prefix, whole := fromArpa(q.labels)
	for rest := q.labels; !whole && prefix.Bits() < 0; {
		rest = rest[1:]
		prefix, _ = fromArpa(rest)
	}
	owned, in := q.owner(prefix)
	if !whole && in {
		return within(arpaName(owned), unknown)
	}
	if to, found := q.reverse[prefix.Addr()]; found && whole && prefix.IsSingleIP() {
		if !in {
			owned = prefix // an underlay address: a zone of its own
		}
		return within(arpaName(owned), q.only(&dns.PTR{Hdr: header(q.asked, dns.TypePTR), Ptr: q.nameOf(prefix.Addr(), to)}))
	}
	switch {
	case !in:
		return result{rcode: dns.RcodeRefused}
	case prefix == owned:
		start := arpaName(owned)
		return within(start, q.only(soa(start, q.domain)))
	default:
		return within(arpaName(owned), exists(q.holds(prefix)))
	}
}

// wants says whether the question asks for records of type t.
func (q question) wants(t uint16) bool { return q.qtype == t || q.qtype == dns.TypeANY }

// only answers with one record, if it was asked for.
func (q question) only(record dns.RR) result {
	if !q.wants(record.Header().Rrtype) {
		return noData
	}
	return result{answers: []dns.RR{record}}
}

// addresses answers with A records, beginning with any of them, so that who
// takes the first spreads over all.
func (q question) addresses(addresses ...netip.Addr) result {
	if !q.wants(dns.TypeA) || len(addresses) == 0 {
		return noData
	}
	var r result
	first := rand.IntN(len(addresses))
	for i := range addresses {
		r.answers = append(r.answers, a(q.asked, addresses[(first+i)%len(addresses)]))
	}
	return r
}

func header(owner string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

func a(owner string, address netip.Addr) dns.RR {
	return &dns.A{Hdr: header(owner, dns.TypeA), A: address.AsSlice()}
}

// soa is the zone's start, with CoreDNS's timers. There are no transfers, so the
// serial stays.
func soa(zone, domain string) dns.RR {
	return &dns.SOA{
		Hdr: header(zone, dns.TypeSOA), Ns: "ns.dns." + domain, Mbox: "hostmaster." + domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}
