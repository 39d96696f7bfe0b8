package tcpdump

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// dnsText is a DNS message: the number, the flags as signs, the question of a
// query, the answers of an answer.
func dnsText(data []byte, length int) string {
	if length < 12 {
		return fmt.Sprintf("domain [length %d < 12] (invalid)", length)
	}
	var m dns.Msg
	if m.Unpack(data) != nil {
		return fmt.Sprintf("UDP, length %d", length)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d", m.Id)
	if m.Opcode != dns.OpcodeQuery {
		fmt.Fprintf(&b, " op%d", m.Opcode)
	}
	if m.Response {
		answered(&b, &m)
	} else {
		asked(&b, &m)
	}
	fmt.Fprintf(&b, " (%d)", length)
	return b.String()
}

func asked(b *strings.Builder, m *dns.Msg) {
	b.WriteString(sign(m.RecursionDesired, "+") + sign(m.CheckingDisabled, "%"))
	if m.AuthenticatedData {
		b.WriteString(" [b2&3=0x" + fmt.Sprintf("%x", flagWord(m)) + "]")
	}
	for _, section := range []struct {
		count int
		usual int
		sign  string
	}{{len(m.Answer), 0, "a"}, {len(m.Question), 1, "q"}, {len(m.Ns), 0, "n"}, {len(m.Extra), 0, "au"}} {
		if section.count != section.usual {
			fmt.Fprintf(b, " [%d%s]", section.count, section.sign)
		}
	}
	for _, q := range m.Question {
		fmt.Fprintf(b, " %s? %s", typeText(q.Qtype), q.Name)
	}
}

// flagWord are the flags of a query as they stood in the message.
func flagWord(m *dns.Msg) uint16 {
	word := uint16(0)
	for _, flag := range []struct {
		set bool
		bit uint16
	}{{m.RecursionDesired, 1 << 8}, {m.RecursionAvailable, 1 << 7}, {m.AuthenticatedData, 1 << 5}, {m.CheckingDisabled, 1 << 4}} {
		if flag.set {
			word |= flag.bit
		}
	}
	return word
}

func answered(b *strings.Builder, m *dns.Msg) {
	b.WriteString(rcode(m.Rcode & 0xf))
	b.WriteString(sign(m.Authoritative, "*") + sign(!m.RecursionAvailable, "-") + sign(m.Truncated, "|") + sign(m.AuthenticatedData, "$"))
	if len(m.Question) != 1 {
		fmt.Fprintf(b, " [%dq]", len(m.Question))
	}
	fmt.Fprintf(b, " %d/%d/%d", len(m.Answer), len(m.Ns), len(m.Extra))
	for i, r := range m.Answer {
		fmt.Fprintf(b, "%s %s%s", sign(i > 0, ","), typeText(r.Header().Rrtype), record(r))
	}
}

func sign(set bool, text string) string {
	if set {
		return text
	}
	return ""
}

func rcode(code int) string {
	words := []string{"", " FormErr", " ServFail", " NXDomain", " NotImp", " Refused", " YXDomain", " YXRRSet", " NXRRSet", " NotAuth", " NotZone"}
	if code < len(words) {
		return words[code]
	}
	return fmt.Sprintf(" Resp%d", code)
}

func typeText(number uint16) string {
	if name, ok := dns.TypeToString[number]; ok {
		return name
	}
	return fmt.Sprintf("Type%d", number)
}

// record is what a resource record says.
func record(r dns.RR) string {
	switch r := r.(type) {
	case *dns.A:
		return " " + r.A.String()
	case *dns.AAAA:
		return " " + r.AAAA.String()
	case *dns.CNAME:
		return " " + r.Target
	case *dns.NS:
		return " " + r.Ns
	case *dns.PTR:
		return " " + r.Ptr
	case *dns.MX:
		return fmt.Sprintf(" %s %d", r.Mx, r.Preference)
	case *dns.SRV:
		return fmt.Sprintf(" %s:%d %d %d", r.Target, r.Port, r.Priority, r.Weight)
	case *dns.TXT:
		text := ""
		for _, t := range r.Txt {
			text += ` "` + t + `"`
		}
		return text
	}
	return ""
}
