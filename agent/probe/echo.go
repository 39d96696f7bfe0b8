//go:build linux

package probe

import (
	"encoding/binary"
	"net/netip"

	"github.com/native-routing/labctl/agent/api"
)

// The ICMP types of RFC 792 that probes send and meet.
const (
	icmpEchoReply    = 0
	icmpUnreachable  = 3
	icmpEcho         = 8
	icmpTimeExceeded = 11
)

const (
	protocolICMP   = 1
	icmpHeaderSize = 8
	ipv4HeaderSize = 20
	maxIPv4Header  = 60
)

// tagSize is what a tag takes of the payload, in bytes.
const tagSize = 16

// tag is the head of an echo's payload: the magic, the session and the probe
// in 32 bits each, then the sequence and a number that only the sender knows in
// 16 bits each, all in network order. Witnesses know an echo by it.
type tag struct {
	session  uint32
	probe    uint32
	sequence uint16
	nonce    uint16
}

func (t tag) put(b []byte) {
	binary.BigEndian.PutUint32(b, api.TagMagic)
	binary.BigEndian.PutUint32(b[4:], t.session)
	binary.BigEndian.PutUint32(b[8:], t.probe)
	binary.BigEndian.PutUint16(b[12:], t.sequence)
	binary.BigEndian.PutUint16(b[14:], t.nonce)
}

func parseTag(b []byte) (tag, bool) {
	if len(b) < tagSize || binary.BigEndian.Uint32(b) != api.TagMagic {
		return tag{}, false
	}
	return tag{
		session:  binary.BigEndian.Uint32(b[4:]),
		probe:    binary.BigEndian.Uint32(b[8:]),
		sequence: binary.BigEndian.Uint16(b[12:]),
		nonce:    binary.BigEndian.Uint16(b[14:]),
	}, true
}

// putEcho writes an echo request with a payload of size bytes into b, which
// must hold it, and returns the message. Behind the tag the payload counts
// upwards, as ping's does, so that a capture shows where it was cut.
func putEcho(b []byte, identifier, sequence uint16, t tag, size int) []byte {
	b = b[:icmpHeaderSize+size]
	b[0], b[1], b[2], b[3] = icmpEcho, 0, 0, 0
	binary.BigEndian.PutUint16(b[4:], identifier)
	binary.BigEndian.PutUint16(b[6:], sequence)
	t.put(b[icmpHeaderSize:])
	for i := icmpHeaderSize + tagSize; i < len(b); i++ {
		b[i] = byte(i - icmpHeaderSize)
	}
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// checksum is the Internet checksum of RFC 1071: over a message that carries
// its own it is 0.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// echo is an ICMP echo or echo reply with its IPv4 header.
type echo struct {
	from, to   netip.Addr
	ttl        int
	reply      bool
	identifier uint16
	sequence   uint16
	tag        tag
	// message is the ICMP message as far as it was captured.
	message []byte
}

// parseEcho reads a packet from its IPv4 header on. It is false for all that
// is not an echo or echo reply with a tag.
func parseEcho(packet []byte) (echo, bool) {
	if len(packet) < ipv4HeaderSize || packet[0]>>4 != 4 || packet[9] != protocolICMP {
		return echo{}, false
	}
	headerSize := int(packet[0]&0xf) * 4
	if headerSize < ipv4HeaderSize || len(packet) < headerSize+icmpHeaderSize {
		return echo{}, false
	}
	message := packet[headerSize:]
	if message[0] != icmpEcho && message[0] != icmpEchoReply {
		return echo{}, false
	}
	t, ok := parseTag(message[icmpHeaderSize:])
	if !ok {
		return echo{}, false
	}
	return echo{
		from:       netip.AddrFrom4([4]byte(packet[12:16])),
		to:         netip.AddrFrom4([4]byte(packet[16:20])),
		ttl:        int(packet[8]),
		reply:      message[0] == icmpEchoReply,
		identifier: binary.BigEndian.Uint16(message[4:]),
		sequence:   binary.BigEndian.Uint16(message[6:]),
		tag:        t,
		message:    message,
	}, true
}

// quote is our echo as an ICMP error quotes it.
type quote struct {
	identifier uint16
	sequence   uint16
	// tag is there where the error quotes more than RFC 792 asks for.
	tag    tag
	tagged bool
}

// parseQuote reads a quoted ICMP message from its own header on, as the error
// queue hands it out. It is false for all that is not an echo request.
func parseQuote(message []byte) (quote, bool) {
	if len(message) < icmpHeaderSize || message[0] != icmpEcho || message[1] != 0 {
		return quote{}, false
	}
	q := quote{
		identifier: binary.BigEndian.Uint16(message[4:]),
		sequence:   binary.BigEndian.Uint16(message[6:]),
	}
	q.tag, q.tagged = parseTag(message[icmpHeaderSize:])
	return q, true
}
