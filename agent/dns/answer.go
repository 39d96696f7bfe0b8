//go:build linux

package dns

import (
	"github.com/miekg/dns"
)

// largest is what is sent in one datagram, in bytes: what passes every link
// without fragments (the default of the resolvers' agreement of 2020).
const largest = 1232

// ServeDNS answers one query.
func (s *Server) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	answer := s.answer(query, w.RemoteAddr().Network() == "udp")
	s.queries[answer.Rcode&0xf].Add(1)
	_ = w.WriteMsg(answer) // the client has gone: it asks again
}

// answer never fails: what makes no sense is answered with a code that says so.
func (s *Server) answer(query *dns.Msg, datagram bool) *dns.Msg {
	answer := new(dns.Msg)
	answer.SetReply(query)
	size := dns.MaxMsgSize
	if datagram {
		size = dns.MinMsgSize
	}
	edns := query.IsEdns0()
	if edns != nil {
		if datagram {
			size = max(size, min(int(edns.UDPSize()), largest))
		}
		answer.SetEdns0(largest, false)
	}
	zone := s.zone.Load()
	switch {
	case query.Opcode != dns.OpcodeQuery:
		answer.Rcode = dns.RcodeNotImplemented
	case len(query.Question) != 1:
		answer.Rcode = dns.RcodeFormatError
	case edns != nil && edns.Version() != 0:
		answer.Rcode = dns.RcodeBadVers
	case zone == nil: // it was taken away while the query was read
		answer.Rcode = dns.RcodeServerFailure
	default:
		var ready map[string]bool
		if known := s.ready.Load(); known != nil {
			ready = *known
		}
		fill(answer, zone, zone.resolve(query.Question[0], ready))
	}
	answer.Truncate(size)
	return answer
}

func fill(answer *dns.Msg, z *zone, r result) {
	answer.Rcode = r.rcode
	answer.Authoritative = r.authority != ""
	answer.Answer = r.answers
	answer.Extra = append(r.extra, answer.Extra...)
	if r.authority != "" && len(r.answers) == 0 {
		answer.Ns = []dns.RR{soa(r.authority, z.domain)}
	}
}
