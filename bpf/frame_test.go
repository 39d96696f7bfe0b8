//go:build linux

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A frame is written as one line:
//
//	tcp 172.20.0.10:40000 > 10.96.0.10:80 S ttl=3 options
//	udp 172.20.0.10:40000 > 10.96.0.10:53 size=100 first
//	echo 172.20.0.10 > 10.10.1.200 id=7
//	unreach 192.168.10.200 > 172.20.0.10 about udp 172.20.0.10:40000 > 10.10.1.200:53
//
// (an answer is an error that the datapath makes: it quotes the header of TCP,
// and is not to be fragmented) and made into bytes from the RFCs alone, with checksums summed up from
// scratch: nothing here is shared with what is tested.
type frame struct {
	kind     string
	src, dst netip.AddrPort
	flags    string
	ttl      int
	id       int // of an echo
	size     int // of the payload
	words    map[string]bool
	inner    *frame
}

var icmpTypes = map[string][2]byte{
	"echo": {8, 0}, "reply": {0, 0}, "unreach": {3, 3}, "needfrag": {3, 4}, "exceeded": {11, 0},
	"timestamp": {13, 0},
}

var tcpFlags = map[rune]byte{'F': 1, 'S': 2, 'R': 4, 'P': 8, 'A': 16}

func parseFrame(line string) (*frame, error) {
	outer, about, quoted := strings.Cut(line, " about ")
	words := strings.Fields(outer)
	if len(words) < 4 || words[2] != ">" {
		return nil, fmt.Errorf("no frame: %q", line)
	}
	f := &frame{kind: words[0], ttl: 64, size: 32, words: map[string]bool{}}
	var err error
	if f.src, err = parseEnd(words[1]); err != nil {
		return nil, err
	}
	if f.dst, err = parseEnd(words[3]); err != nil {
		return nil, err
	}
	for _, word := range words[4:] {
		name, value, valued := strings.Cut(word, "=")
		number, _ := strconv.Atoi(value)
		switch {
		case name == "ttl":
			f.ttl = number
		case name == "id":
			f.id = number
		case name == "size":
			f.size = number
		case !valued && strings.Trim(name, "SARFP") == "":
			f.flags = name
		default:
			f.words[word] = true
		}
	}
	if quoted {
		if f.inner, err = parseFrame(about); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func parseEnd(text string) (netip.AddrPort, error) {
	if strings.Contains(text, ":") {
		return netip.ParseAddrPort(text)
	}
	addr, err := netip.ParseAddr(text)
	return netip.AddrPortFrom(addr, 0), err
}

// l4 is what follows the IPv4 header, with its checksum.
func (f *frame) l4() (proto byte, b []byte) {
	payload := make([]byte, f.size)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	switch f.kind {
	case "tcp":
		b = make([]byte, 20, 20+f.size)
		binary.BigEndian.PutUint16(b, f.src.Port())
		binary.BigEndian.PutUint16(b[2:], f.dst.Port())
		b[7], b[12] = 1, 5<<4
		for _, flag := range f.flags {
			b[13] |= tcpFlags[flag]
		}
		b = append(b, payload...)
		binary.BigEndian.PutUint16(b[16:], sum(b, f.pseudo(6, len(b))))
		return 6, b
	case "udp":
		b = make([]byte, 8, 8+f.size)
		binary.BigEndian.PutUint16(b, f.src.Port())
		binary.BigEndian.PutUint16(b[2:], f.dst.Port())
		binary.BigEndian.PutUint16(b[4:], uint16(8+f.size))
		b = append(b, payload...)
		if !f.words["nochecksum"] {
			check := sum(b, f.pseudo(17, len(b)))
			if check == 0 {
				check = 0xffff
			}
			binary.BigEndian.PutUint16(b[6:], check)
		}
		return 17, b
	case "sctp":
		return 132, make([]byte, 12)
	}
	b = make([]byte, 8, 8+f.size)
	b[0], b[1] = icmpTypes[f.kind][0], icmpTypes[f.kind][1]
	binary.BigEndian.PutUint16(b[4:], uint16(f.id))
	if f.inner != nil {
		quote := f.inner.ip()
		switch length := int(quote[0]&15) * 4; {
		case f.words["answer"] && f.inner.kind == "tcp":
			quote = quote[:length+20]
		case !f.words["full"]:
			quote = quote[:length+8]
		}
		b = append(b, quote...)
	} else {
		b = append(b, payload...)
	}
	binary.BigEndian.PutUint16(b[2:], sum(b, 0))
	return 1, b
}

func (f *frame) pseudo(proto byte, length int) uint32 {
	src, dst := f.src.Addr().As4(), f.dst.Addr().As4()
	total := uint32(proto) + uint32(length)
	for _, b := range [][]byte{src[:], dst[:]} {
		total += uint32(binary.BigEndian.Uint16(b)) + uint32(binary.BigEndian.Uint16(b[2:]))
	}
	return total
}

func (f *frame) ip() []byte {
	proto, body := f.l4()
	header := make([]byte, 20)
	if f.words["options"] {
		header = append(header, 1, 1, 1, 0) // no-operation, end of list
	}
	fragment := uint16(0)
	half := (len(body) / 2) &^ 7
	switch {
	case f.words["first"]:
		body, fragment = body[:half], 0x2000
	case f.words["later"]:
		body, fragment = body[half:], uint16(half/8)
	}
	header[0] = 0x40 | byte(len(header)/4)
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(body)))
	binary.BigEndian.PutUint16(header[4:], 0x1234)
	if f.words["answer"] {
		binary.BigEndian.PutUint16(header[4:], 0)
		fragment = 0x4000
	}
	binary.BigEndian.PutUint16(header[6:], fragment)
	header[8], header[9] = byte(f.ttl), proto
	src, dst := f.src.Addr().As4(), f.dst.Addr().As4()
	copy(header[12:], src[:])
	copy(header[16:], dst[:])
	binary.BigEndian.PutUint16(header[10:], sum(header, 0))
	return append(header, body...)
}

// bytes is the frame with its Ethernet header.
func (f *frame) bytes(destination, source [6]byte) []byte {
	eth := append(append(append([]byte{}, destination[:]...), source[:]...), 8, 0)
	return append(eth, f.ip()...)
}

// sum is the Internet checksum, RFC 1071.
func sum(b []byte, start uint32) uint16 {
	total := start
	for i := 0; i < len(b); i += 2 {
		total += uint32(b[i]) << 8
		if i+1 < len(b) {
			total += uint32(b[i+1])
		}
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return ^uint16(total)
}
