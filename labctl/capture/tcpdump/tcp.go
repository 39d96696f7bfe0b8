package tcpdump

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// maxConversations are remembered; when there are more all are forgotten, and
// their numbers begin anew.
const maxConversations = 8192

// conversation is a connection, the same for both ways.
type conversation struct{ low, high netip.AddrPort }

// begin is the number before the first byte each way, as seen from the low end.
type begin struct{ seq, ack uint32 }

// relative counts the numbers of a segment from where its connection began: the
// first segment with an acknowledgement is where that is, and a SYN's always.
func (p *Printer) relative(s segment, t *layers.TCP) (seq, ack uint32, began begin) {
	if !t.ACK {
		return t.Seq, t.Ack, begin{}
	}
	from, to := netip.AddrPortFrom(s.from, uint16(t.SrcPort)), netip.AddrPortFrom(s.to, uint16(t.DstPort))
	key, reverse := conversation{from, to}, false
	if from.Port() > to.Port() || from.Port() == to.Port() && from.Addr().Compare(to.Addr()) > 0 {
		key, reverse = conversation{to, from}, true
	}
	known, ok := p.conversations[key]
	if !ok || t.SYN {
		if p.conversations == nil || len(p.conversations) >= maxConversations {
			p.conversations = map[conversation]begin{}
		}
		known = begin{t.Seq, t.Ack - 1}
		if reverse {
			known = begin{t.Ack - 1, t.Seq}
		}
		p.conversations[key] = known
		if reverse {
			return t.Seq, t.Ack, begin{known.ack, known.seq}
		}
		return t.Seq, t.Ack, known
	}
	if reverse {
		known = begin{known.ack, known.seq}
	}
	return t.Seq - known.seq, t.Ack - known.ack, known
}

func (p *Printer) tcp(b *strings.Builder, s segment) {
	var t layers.TCP
	if len(s.data) < 20 {
		portsOnly(b, s, "tcp")
		return
	}
	whole := t.DecodeFromBytes(s.data, gopacket.NilDecodeFeedback) == nil
	b.WriteString(ends(s, uint16(t.SrcPort), uint16(t.DstPort)))
	length := s.length - int(t.DataOffset)*4
	if t.DataOffset < 5 || length < 0 {
		fmt.Fprintf(b, "tcp %d [bad hdr length %d]", max(length, 0), int(t.DataOffset)*4)
		return
	}
	fmt.Fprintf(b, "Flags [%s]", flags(&t))
	seq, ack, began := p.relative(s, &t)
	if length > 0 || t.SYN || t.FIN || t.RST {
		fmt.Fprintf(b, ", seq %d", seq)
		if length > 0 {
			fmt.Fprintf(b, ":%d", seq+uint32(length))
		}
	}
	if t.ACK {
		fmt.Fprintf(b, ", ack %d", ack)
	}
	fmt.Fprintf(b, ", win %d", t.Window)
	if t.URG {
		fmt.Fprintf(b, ", urg %d", t.Urgent)
	}
	if t.DataOffset > 5 {
		if !whole {
			b.WriteString(" [|tcp]")
			return
		}
		fmt.Fprintf(b, ", options [%s]", options(s.data[20:int(t.DataOffset)*4], began))
	}
	fmt.Fprintf(b, ", length %d", length)
	if whole {
		application(b, &t, length)
	}
}

// portsOnly writes a segment that was cut in its header.
func portsOnly(b *strings.Builder, s segment, name string) {
	if len(s.data) < 4 {
		fmt.Fprintf(b, "%s > %s:  [|%s]", s.from, s.to, name)
		return
	}
	b.WriteString(ends(s, binary.BigEndian.Uint16(s.data), binary.BigEndian.Uint16(s.data[2:])))
	fmt.Fprintf(b, " [|%s]", name)
}

func flags(t *layers.TCP) string {
	var text strings.Builder
	for _, flag := range []struct {
		set  bool
		sign string
	}{{t.FIN, "F"}, {t.SYN, "S"}, {t.RST, "R"}, {t.PSH, "P"}, {t.ACK, "."}, {t.URG, "U"}, {t.ECE, "E"}, {t.CWR, "W"}} {
		if flag.set {
			text.WriteString(flag.sign)
		}
	}
	if text.Len() == 0 {
		return "none"
	}
	return text.String()
}

// options are those of RFC 9293, RFC 7323 and RFC 2018.
func options(data []byte, began begin) string {
	var all []string
	for len(data) > 0 {
		switch data[0] {
		case 0:
			return strings.Join(append(all, "eol"), ",")
		case 1:
			all, data = append(all, "nop"), data[1:]
			continue
		}
		if len(data) < 2 || int(data[1]) < 2 || int(data[1]) > len(data) {
			return strings.Join(append(all, "[bad opt]"), ",")
		}
		all = append(all, option(data[0], data[2:data[1]], began))
		data = data[data[1]:]
	}
	return strings.Join(all, ",")
}

func option(kind byte, data []byte, began begin) string {
	switch {
	case kind == 2 && len(data) == 2:
		return fmt.Sprintf("mss %d", binary.BigEndian.Uint16(data))
	case kind == 3 && len(data) == 1:
		return fmt.Sprintf("wscale %d", data[0])
	case kind == 4 && len(data) == 0:
		return "sackOK"
	case kind == 5 && len(data)%8 == 0:
		text := fmt.Sprintf("sack %d ", len(data)/8)
		for ; len(data) > 0; data = data[8:] {
			text += fmt.Sprintf("{%d:%d}", binary.BigEndian.Uint32(data)-began.ack, binary.BigEndian.Uint32(data[4:])-began.ack)
		}
		return text
	case kind == 8 && len(data) == 8:
		return fmt.Sprintf("TS val %d ecr %d", binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]))
	}
	text := fmt.Sprintf("unknown-%d", kind)
	if len(data) > 0 {
		text += fmt.Sprintf(" 0x%x", data)
	}
	return text
}

// application writes what a connection carries, where tcpdump does so without -v.
func application(b *strings.Builder, t *layers.TCP, length int) {
	on := func(ports ...layers.TCPPort) bool {
		return slices.Contains(ports, t.SrcPort) || slices.Contains(ports, t.DstPort)
	}
	switch {
	case length == 0:
	case on(80, 8080):
		b.WriteString(": HTTP")
		line, _, ended := bytes.Cut(t.Payload, []byte("\n"))
		if !http(line) {
			return
		}
		b.WriteString(": ")
		b.WriteString(printable(bytes.TrimSuffix(line, []byte("\r"))))
		if !ended {
			b.WriteString(" [|http]")
		}
	case on(179):
		b.WriteString(": BGP")
	}
}

// http says whether a line is the first of a request or of an answer.
func http(line []byte) bool {
	first, rest, _ := bytes.Cut(line, []byte(" "))
	switch string(first) {
	case "GET", "PUT", "HEAD", "POST", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return string(first) != "PATCH" // which tcpdump does not know
	}
	code, _, _ := bytes.Cut(rest, []byte(" "))
	return len(code) == 3 && strings.Trim(string(code), "0123456789") == ""
}

// printable keeps control characters off the terminal, as tcpdump does.
func printable(text []byte) string {
	var b strings.Builder
	for _, c := range text {
		switch {
		case c < 0x20 && c != '\t':
			b.WriteString("^" + string(rune(c^0x40)))
		case c == 0x7f:
			b.WriteString("^?")
		case c >= 0x80:
			fmt.Fprintf(&b, "M-%c", rune(c&0x7f))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
