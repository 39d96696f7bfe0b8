//go:build linux

package probe

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/native-routing/labctl/agent/api"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var testTag = tag{session: 0x01020304, probe: 0x05060708, sequence: 9, nonce: 0x0a0b}

// ipv4 puts a header with the given options before an ICMP message.
func ipv4(options, message []byte) []byte {
	header := []byte{
		0x45, 0, 0, 0, 0, 1, 0, 0, 61, protocolICMP, 0, 0,
		10, 0, 1, 2, 10, 0, 3, 2,
	}
	header[0] += byte(len(options) / 4)
	packet := append(append(header, options...), message...)
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	return packet
}

func testEcho(size int) []byte {
	return bytes.Clone(putEcho(make([]byte, 100), 0x1234, 9, testTag, size))
}

func TestPutEcho(t *testing.T) {
	want := []byte{
		8, 0, 0x03, 0x06, 0x12, 0x34, 0, 9,
		'L', 'A', 'B', 'P', 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0x0a, 0x0b,
		16, 17, 18,
	}
	got := testEcho(19)
	binary.BigEndian.PutUint16(want[2:], binary.BigEndian.Uint16(got[2:])) // checked below
	if !bytes.Equal(got, want) {
		t.Errorf("got\n% x, want\n% x", got, want)
	}
	if checksum(got) != 0 {
		t.Errorf("the checksum of the whole is %#x", checksum(got))
	}
}

// The example of RFC 1071, section 3, and an odd length.
func TestChecksum(t *testing.T) {
	for _, test := range []struct {
		bytes []byte
		want  uint16
	}{
		{[]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, ^uint16(0xddf2)},
		{[]byte{0x01, 0x02, 0x03}, ^uint16(0x0402)},
		{nil, 0xffff},
	} {
		if got := checksum(test.bytes); got != test.want {
			t.Errorf("% x: %#x, want %#x", test.bytes, got, test.want)
		}
	}
}

func TestParseEcho(t *testing.T) {
	reply := testEcho(20)
	reply[0] = icmpEchoReply
	whole := ipv4(nil, testEcho(20))
	changed := func(at int, value byte) []byte {
		b := bytes.Clone(whole)
		b[at] = value
		return b
	}
	for _, test := range []struct {
		name      string
		packet    []byte
		ok, reply bool
	}{
		{"request", whole, true, false},
		{"reply", ipv4(nil, reply), true, true},
		{"options", ipv4(make([]byte, 40), testEcho(16)), true, false},
		{"only the tag", ipv4(nil, testEcho(16)), true, false},
		{"cut in the tag", whole[:ipv4HeaderSize+icmpHeaderSize+15], false, false},
		{"cut in the ICMP header", whole[:ipv4HeaderSize+7], false, false},
		{"cut in the IP header", whole[:19], false, false},
		{"cut in the options", ipv4(make([]byte, 40), nil)[:40], false, false},
		{"empty", nil, false, false},
		{"IPv6", changed(0, 0x65), false, false},
		{"header too short", changed(0, 0x44), false, false},
		{"header beyond the packet", changed(0, 0x4f), false, false},
		{"UDP", changed(9, 17), false, false},
		{"time exceeded", changed(20, icmpTimeExceeded), false, false},
		{"other payload", changed(28, 'X'), false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseEcho(test.packet)
			if ok != test.ok {
				t.Fatalf("ok is %t", ok)
			}
			if !ok {
				return
			}
			if got.tag != testTag || got.identifier != 0x1234 || got.sequence != 9 || got.reply != test.reply || got.ttl != 61 ||
				got.from != addr("10.0.1.2") || got.to != addr("10.0.3.2") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestParseQuote(t *testing.T) {
	whole := testEcho(20)
	for _, test := range []struct {
		name   string
		quoted []byte
		want   quote
		ok     bool
	}{
		{"whole", whole, quote{0x1234, 9, testTag, true}, true},
		{"eight bytes", whole[:8], quote{identifier: 0x1234, sequence: 9}, true},
		{"half a tag", whole[:15], quote{identifier: 0x1234, sequence: 9}, true},
		{"seven bytes", whole[:7], quote{}, false},
		{"empty", nil, quote{}, false},
		{"a reply", append([]byte{0}, whole[1:]...), quote{}, false},
		{"a code", append([]byte{8, 1}, whole[2:]...), quote{}, false},
	} {
		if got, ok := parseQuote(test.quoted); got != test.want || ok != test.ok {
			t.Errorf("%s: %+v, %t", test.name, got, ok)
		}
	}
}

// controlMessage is one message as recvmsg(2) lays it out.
func controlMessage(level, kind int32, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	header := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	header.Level, header.Type = level, kind
	header.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// errorData is struct sock_extended_err and the offender behind it.
func errorData(errno unix.Errno, origin, icmpType, icmpCode uint8, info uint32, offender string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(errno))
	b = append(b, origin, icmpType, icmpCode, 0)
	b = binary.NativeEndian.AppendUint32(b, info)
	b = binary.NativeEndian.AppendUint32(b, 0)
	if offender == "" {
		return append(b, make([]byte, 16)...)
	}
	b = binary.NativeEndian.AppendUint16(b, unix.AF_INET)
	a := addr(offender).As4()
	return append(append(append(b, 0, 0), a[:]...), make([]byte, 8)...)
}

func TestParseControl(t *testing.T) {
	stamp := binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, 1_700_000_000), 5)
	information := append(make([]byte, 8), 10, 0, 1, 2)
	tooBig := errorData(unix.EMSGSIZE, unix.SO_EE_ORIGIN_ICMP, icmpUnreachable, codeFragNeeded, 1400, "10.0.1.1")
	message := func(kind int32, data []byte) []byte { return controlMessage(unix.SOL_IP, kind, data) }
	for _, test := range []struct {
		name string
		oob  []byte
		want control
	}{
		{"nothing", nil, control{}},
		{"all of it", bytes.Join([][]byte{
			controlMessage(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, stamp),
			message(unix.IP_TTL, binary.NativeEndian.AppendUint32(nil, 63)),
			message(unix.IP_PKTINFO, information),
			message(unix.IP_RECVERR, tooBig),
		}, nil), control{
			stamp: time.Unix(1_700_000_000, 5), ttl: 63, local: addr("10.0.1.2"), failed: true,
			failure: extendedError{unix.EMSGSIZE, unix.SO_EE_ORIGIN_ICMP, icmpUnreachable, codeFragNeeded, 1400, addr("10.0.1.1")},
		}},
		{"local", message(unix.IP_RECVERR, errorData(unix.EMSGSIZE, unix.SO_EE_ORIGIN_LOCAL, 0, 0, 1500, "")),
			control{failed: true, failure: extendedError{errno: unix.EMSGSIZE, origin: unix.SO_EE_ORIGIN_LOCAL, info: 1500}}},
		{"no offender", message(unix.IP_RECVERR, tooBig[:16]),
			control{failed: true, failure: extendedError{unix.EMSGSIZE, unix.SO_EE_ORIGIN_ICMP, icmpUnreachable, codeFragNeeded, 1400, netip.Addr{}}}},
		{"half an error", message(unix.IP_RECVERR, tooBig[:15]), control{}},
		{"half a time", controlMessage(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, stamp[:8]), control{}},
		{"empty TTL", message(unix.IP_TTL, nil), control{}},
		{"half an address", message(unix.IP_PKTINFO, information[:11]), control{}},
		{"other level", controlMessage(unix.SOL_SOCKET, unix.IP_RECVERR, tooBig), control{}},
		{"length beyond the end", message(unix.IP_RECVERR, tooBig)[:unix.CmsgLen(0)+8], control{}},
		{"length of 0", make([]byte, 32), control{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := parseControl(test.oob); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	from := addr("10.0.1.1")
	remote := func(icmpType, code uint8, info uint32) extendedError {
		return extendedError{unix.EHOSTUNREACH, unix.SO_EE_ORIGIN_ICMP, icmpType, code, info, from}
	}
	for _, test := range []struct {
		e    extendedError
		want api.ProbeError
	}{
		{remote(icmpUnreachable, 0, 0), api.ProbeError{Kind: kindNet, From: from, Message: "destination net unreachable"}},
		{remote(icmpUnreachable, 1, 0), api.ProbeError{Kind: kindHost, From: from, Message: "destination host unreachable"}},
		{remote(icmpUnreachable, 13, 0), api.ProbeError{Kind: kindProhibited, From: from, Message: "packet filtered"}},
		{remote(icmpUnreachable, 200, 0), api.ProbeError{Kind: kindHost, From: from, Message: "destination unreachable, code 200"}},
		{remote(icmpUnreachable, 4, 1400), api.ProbeError{Kind: kindTooBig, From: from, MTU: 1400, Message: "frag needed and DF set (mtu = 1400)"}},
		{remote(icmpTimeExceeded, 0, 0), api.ProbeError{Kind: kindTTL, From: from, Message: "time to live exceeded"}},
		{remote(icmpTimeExceeded, 1, 0), api.ProbeError{Kind: kindTTL, From: from, Message: "fragment reassembly time exceeded"}},
		{remote(12, 0, 0), api.ProbeError{Kind: kindHost, From: from, Message: "ICMP type 12 code 0: no route to host"}},
		{extendedError{errno: unix.EMSGSIZE, origin: unix.SO_EE_ORIGIN_LOCAL, info: 1500}, api.ProbeError{Kind: kindLocal, MTU: 1500, Message: "message too long (mtu = 1500)"}},
	} {
		if got := *test.e.explain(); got != test.want {
			t.Errorf("%+v: %+v, want %+v", test.e, got, test.want)
		}
	}
}

func TestHopsBack(t *testing.T) {
	for ttl, want := range map[int]int{0: 0, 1: 64, 62: 3, 64: 1, 65: 64, 128: 1, 129: 127, 254: 2, 255: 1} {
		if got := hopsBack(ttl); got != want {
			t.Errorf("TTL %d: %d, want %d", ttl, got, want)
		}
	}
}

func TestTrailPlacesThePathMTU(t *testing.T) {
	r1, r2 := addr("10.0.1.1"), addr("10.0.2.2")
	for _, test := range []struct {
		name  string
		hops  []api.TraceHop
		low   lowering
		index int
		want  api.TraceHop
	}{
		{"the router's own hop", []api.TraceHop{{TTL: 1, Address: r1}, {TTL: 2, Address: r2}}, lowering{2, r1, 1400}, 0, api.TraceHop{TTL: 1, Address: r1, PathMTU: 1400}},
		{"a router that kept silent", []api.TraceHop{{TTL: 1}, {TTL: 2, Address: r2}}, lowering{2, r1, 1400}, 0, api.TraceHop{TTL: 1, Address: r1, PathMTU: 1400}},
		{"another address of the router", []api.TraceHop{{TTL: 1, Address: r2}, {TTL: 2}}, lowering{2, r1, 1400}, 0, api.TraceHop{TTL: 1, Address: r2, PathMTU: 1400}},
		{"at the first TTL", []api.TraceHop{{TTL: 1, Address: r1}}, lowering{1, r1, 1400}, 0, api.TraceHop{TTL: 1, Address: r1, PathMTU: 1400}},
		{"beyond the end", []api.TraceHop{{TTL: 1}}, lowering{5, r1, 1400}, 0, api.TraceHop{TTL: 1, Address: r1, PathMTU: 1400}},
	} {
		trail := newTrail(api.TraceTarget{MaxHops: len(test.hops), Size: 1500})
		for i, h := range test.hops {
			trail.hops[i].line = h
		}
		trail.lower(answer{ttl: test.low.ttl, from: test.low.from}, test.low.mtu)
		if got := trail.result().Hops[test.index]; got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestEventsComeInOrder(t *testing.T) {
	var a agenda
	start := time.Now()
	for i, after := range []time.Duration{3, 1, 1, 2, 1} {
		a.file(event{at: start.Add(after), step: i})
	}
	var got []int
	for {
		e, ok := a.due(start.Add(2))
		if !ok {
			break
		}
		got = append(got, e.step)
	}
	if want := []int{1, 2, 4, 3}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if next, ok := a.next(); !ok || !next.Equal(start.Add(3)) {
		t.Errorf("next is %v, %t", next, ok)
	}
}

// The reply filter in the pure virtual machine of x/net/bpf, which runs what the kernel runs.
func TestReplyFilter(t *testing.T) {
	vm, err := bpf.NewVM(replyFilter(0xfffe, 4))
	if err != nil {
		t.Fatal(err)
	}
	for identifier, want := range map[uint16]bool{0xfffd: false, 0xfffe: true, 0xffff: true, 0: true, 1: true, 2: false} {
		for _, options := range [][]byte{nil, make([]byte, 8)} {
			message := putEcho(make([]byte, 50), identifier, 1, testTag, 16)
			message[0] = icmpEchoReply
			n, err := vm.Run(ipv4(options, message))
			if err != nil || n > 0 != want {
				t.Errorf("identifier %#x: %d, %v", identifier, n, err)
			}
			message[0] = icmpEcho
			if n, err := vm.Run(ipv4(options, message)); err != nil || n > 0 {
				t.Errorf("request %#x: %d, %v", identifier, n, err)
			}
		}
	}
}

func FuzzParseEcho(f *testing.F) {
	f.Add(ipv4(nil, testEcho(20)))
	f.Add(ipv4(make([]byte, 40), testEcho(16)))
	f.Fuzz(func(t *testing.T, packet []byte) {
		e, ok := parseEcho(packet)
		if ok && (len(e.message) < icmpHeaderSize+tagSize || !e.from.Is4() || !e.to.Is4()) {
			t.Errorf("%+v", e)
		}
		checksum(packet)
	})
}

// A hostile ICMP error quotes what it likes: the pinger takes it in with all
// its targets in every state, and the trail with every answer.
func FuzzQuote(f *testing.F) {
	f.Add(testEcho(20), uint8(3), uint8(1), uint32(0))
	f.Add(testEcho(16)[:8], uint8(3), uint8(4), uint32(0xffff_ffff))
	f.Add([]byte{}, uint8(11), uint8(0), uint32(68))
	f.Fuzz(func(t *testing.T, quoted []byte, icmpType, code uint8, info uint32) {
		to := addr("10.0.3.2")
		p, err := newPinger(api.PingRequest{Targets: []api.PingTarget{{To: to, Count: 9, Timeout: 1, Size: 16}, {To: to, Count: 1, Timeout: 1, Size: 16}}})
		if err != nil {
			t.Fatal(err)
		}
		p.identifier, p.nonce = 0x1234, testTag.nonce
		p.targets[0].echoes[8].state = echoWaiting
		m := message{bytes: quoted, address: netip.AddrPortFrom(to, 0)}
		m.failure, m.failed = extendedError{unix.EHOSTUNREACH, unix.SO_EE_ORIGIN_ICMP, icmpType, code, info, addr("10.0.1.1")}, true
		p.refused(&m)
		p.received(&m)
		if p.waiting < 9 || p.waiting > 10 {
			t.Errorf("%d echoes are waited for", p.waiting)
		}

		tracer, err := newTracer(api.TraceRequest{Targets: []api.TraceTarget{{To: to, MaxHops: 3, Tries: 1, Timeout: 1, Size: 1500}}})
		if err != nil {
			t.Fatal(err)
		}
		tracer.probes[netip.AddrPortFrom(to, firstPort)] = udpProbe{trail: 0, ttl: 1, size: 1500}
		m.address = netip.AddrPortFrom(to, firstPort)
		tracer.refused(&m)
		if r := tracer.response().Results[0]; r.PathMTU < minMTU || r.PathMTU > 1500 {
			t.Errorf("path MTU %d", r.PathMTU)
		}
	})
}

func FuzzParseControl(f *testing.F) {
	f.Add(controlMessage(unix.SOL_IP, unix.IP_RECVERR, errorData(unix.EMSGSIZE, unix.SO_EE_ORIGIN_ICMP, 3, 4, 1400, "10.0.1.1")))
	f.Add(controlMessage(unix.SOL_IP, unix.IP_TTL, []byte{1, 2, 3, 4}))
	f.Fuzz(func(t *testing.T, oob []byte) {
		c := parseControl(append(make([]byte, 0, len(oob)+8), oob...))
		if c.ttl < 0 || c.ttl > 255 {
			t.Errorf("TTL %d", c.ttl)
		}
	})
}
