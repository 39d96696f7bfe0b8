package tcpdump

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/miekg/dns"

	"github.com/native-routing/labctl/labctl/capture/capturetest"
)

// theirs are the lines of the real tcpdump, a line for each packet of a file.
func theirs(t *testing.T, path string) []string {
	t.Helper()
	out, err := exec.Command("tcpdump", "-nn", "-tt", "-r", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSuffix(line, "\n")
		stamp, text, _ := strings.Cut(line, " ")
		if strings.HasSuffix(stamp, ".000000") {
			lines = append(lines, text)
		} else {
			lines[len(lines)-1] += "\n" + line
		}
	}
	return lines
}

// message is a DNS message as a payload.
func message(t *testing.T, m *dns.Msg) gopacket.Payload {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func resource(t *testing.T, text string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// conversations are the packets that a workshop sees.
func conversations(t *testing.T) [][]byte {
	var all [][]byte
	add := func(l ...gopacket.SerializableLayer) []byte {
		all = append(all, capturetest.Serialize(t, append([]gopacket.SerializableLayer{capturetest.Ethernet(layers.EthernetTypeIPv4, 2)}, l...)...))
		return all[len(all)-1]
	}
	tcp := func(there bool, flags layers.TCP, seq, ack uint32, payload string) {
		from, to := "172.20.0.5", "172.20.2.7"
		flags.SrcPort, flags.DstPort = 43210, 80
		if !there {
			from, to, flags.SrcPort, flags.DstPort = to, from, 80, 43210
		}
		flags.Seq, flags.Ack, flags.Window = seq, ack, 502
		add(capturetest.IPv4(from, to, layers.IPProtocolTCP), &flags, gopacket.Payload(payload))
	}
	stamps := layers.TCPOption{OptionType: layers.TCPOptionKindTimestamps, OptionData: []byte{0, 0, 1, 0, 0, 0, 0, 9}}
	nop := layers.TCPOption{OptionType: layers.TCPOptionKindNop}
	open := []layers.TCPOption{
		{OptionType: layers.TCPOptionKindMSS, OptionData: []byte{5, 0xb4}}, {OptionType: layers.TCPOptionKindSACKPermitted}, stamps, nop,
		{OptionType: layers.TCPOptionKindWindowScale, OptionData: []byte{7}},
	}
	sack := layers.TCPOption{OptionType: layers.TCPOptionKindSACK, OptionData: []byte{0, 0, 0x20, 0, 0, 0, 0x20, 100}}
	other := layers.TCPOption{OptionType: 77, OptionData: []byte{1, 2}}
	tcp(true, layers.TCP{SYN: true, ECE: true, CWR: true, Options: open}, 4000000000, 0, "")
	tcp(false, layers.TCP{SYN: true, ACK: true, ECE: true, Options: open}, 7777, 4000000001, "")
	tcp(true, layers.TCP{ACK: true, Options: []layers.TCPOption{nop, nop, stamps}}, 4000000001, 7778, "")
	tcp(true, layers.TCP{ACK: true, PSH: true}, 4000000001, 7778, "GET / HTTP/1.1\r\nHost: webpod\r\n\r\n")
	tcp(false, layers.TCP{ACK: true, Options: []layers.TCPOption{nop, nop, sack, other}}, 7778, 4000000034, "")
	tcp(false, layers.TCP{ACK: true, PSH: true}, 7778, 4000000034, "HTTP/1.1 200 OK\r\nDate: now\r\n\r\nHostname: webpod")
	tcp(false, layers.TCP{ACK: true}, 7800, 4000000034, "more of the \x01\xe9 body")
	tcp(true, layers.TCP{ACK: true, PSH: true}, 4000000034, 7778, "GET /without-end")
	tcp(true, layers.TCP{FIN: true, ACK: true, URG: true, Urgent: 3}, 4000000034, 7900, "")
	tcp(false, layers.TCP{RST: true}, 7900, 0, "")
	tcp(true, layers.TCP{}, 1, 0, "")

	name := "webpod.default.svc.cluster.local."
	question := new(dns.Msg).SetQuestion(name, dns.TypeA)
	question.Id = 4660
	six := new(dns.Msg).SetQuestion("x.", dns.TypeAAAA).SetEdns0(1232, false)
	six.Id = 7
	reply := new(dns.Msg).SetReply(question)
	reply.Authoritative = true
	for _, text := range []string{
		name + " 5 A 10.96.7.39", name + " 5 CNAME other.", name + " 5 AAAA fd00::1", name + " 5 PTR a.b.", name + ` 5 TXT "hello" "you"`,
		name + " 5 MX 10 mail.", name + " 5 SRV 1 2 80 host.x.", name + " 5 NS ns.x.",
	} {
		reply.Answer = append(reply.Answer, resource(t, text))
	}
	nowhere := new(dns.Msg).SetRcode(question, dns.RcodeNameError)
	nowhere.RecursionAvailable = true
	nowhere.Ns = []dns.RR{resource(t, "x. 5 SOA a. b. 1 2 3 4 5")}
	for _, m := range []*dns.Msg{question, six, reply, nowhere} {
		u := &layers.UDP{SrcPort: 40000, DstPort: 53}
		if m.Response {
			u = &layers.UDP{SrcPort: 53, DstPort: 40000}
		}
		add(capturetest.IPv4("172.20.0.5", "10.96.0.10", layers.IPProtocolUDP), u, message(t, m))
	}

	echo := add(capturetest.IPv4("172.20.0.5", "172.20.2.7", layers.IPProtocolICMPv4),
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 5, Seq: 1}, gopacket.Payload(make([]byte, 56)))
	datagram := add(capturetest.IPv4("172.20.0.5", "172.20.2.7", layers.IPProtocolUDP), &layers.UDP{SrcPort: 1000, DstPort: 33434}, gopacket.Payload("hello"))
	syn := all[0]
	for _, about := range [][]byte{echo, datagram, syn} {
		for code := range uint8(16) {
			add(capturetest.IPv4("192.168.10.200", "172.20.0.5", layers.IPProtocolICMPv4),
				&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, code), Seq: 1450}, gopacket.Payload(about[14:]))
		}
		for _, kind := range [][2]uint8{{5, 0}, {5, 1}, {5, 2}, {5, 3}, {11, 0}, {11, 1}, {4, 0}, {10, 0}, {42, 0}} {
			add(capturetest.IPv4("192.168.10.200", "172.20.0.5", layers.IPProtocolICMPv4),
				&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind[0], kind[1]), Id: 0xc0a8, Seq: 0x0a01}, gopacket.Payload(about[14:]))
		}
	}
	for _, inner := range [][]byte{echo, syn, capturetest.Frames(t)[202]} {
		add(capturetest.IPv4("192.168.10.100", "192.168.10.101", layers.IPProtocolUDP), &layers.UDP{SrcPort: 51000, DstPort: 4789},
			gopacket.Payload(append([]byte{8, 0, 0, 0, 0, 0, 2, 0}, inner...)))
	}
	add(capturetest.IPv4("10.0.0.1", "10.0.0.2", layers.IPProtocolIPv4), gopacket.Payload(echo[14:]))
	add(capturetest.IPv4("10.0.0.1", "10.0.0.2", 253), gopacket.Payload(echo[14:]))
	return append(all, arps(t)...)
}

// arps are questions, one of them asked of somebody, and an answer.
func arps(t *testing.T) [][]byte {
	var all [][]byte
	for _, a := range []struct {
		operation uint16
		from, to  string
		known     byte
	}{{1, "192.168.10.100", "192.168.10.200", 0}, {1, "192.168.10.100", "192.168.10.200", 9}, {1, "10.0.0.1", "10.0.0.1", 0}, {1, "0.0.0.0", "10.0.0.1", 0}, {2, "10.0.0.1", "10.0.0.2", 3}} {
		all = append(all, capturetest.Serialize(t, capturetest.Ethernet(layers.EthernetTypeARP, 255), &layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: a.operation,
			SourceHwAddress: net.HardwareAddr{2, 0, 0, 0, 0, 1}, SourceProtAddress: netip.MustParseAddr(a.from).AsSlice(),
			DstHwAddress: net.HardwareAddr{a.known, 0, 0, 0, 0, 0}, DstProtAddress: netip.MustParseAddr(a.to).AsSlice(),
		}))
	}
	return all
}

// otherwise are beginnings of what tcpdump says of protocols that are not looked into here.
func otherwise(line string) bool {
	for _, text := range []string{
		"OTV", "ESP(", "AH(", "GRE", "PIM", "VRRP", "igrp", "igmp", "IGMP", "ICMPv6 requires", "sctp", "frag (", "prefix length", "IP6 fd00::1 > fd00::2: ICMP6, unknown",
		"neighbor solicitation [|icmp6]",
	} {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}

func TestLinesAreTcpdumps(t *testing.T) {
	for name, packets := range map[string][][]byte{"conversations": conversations(t), "kinds": capturetest.Frames(t)} {
		want := theirs(t, capturetest.File(t, layers.LinkTypeEthernet, packets))
		if len(want) != len(packets) {
			t.Fatalf("%d lines for %d packets", len(want), len(packets))
		}
		var p Printer
		same := 0
		for i, packet := range packets {
			got := p.Packet(layers.LinkTypeEthernet, packet, len(packet))
			switch {
			case otherwise(want[i]):
			case got != want[i]:
				t.Errorf("%s %d:\n%s\ntcpdump says\n%s", name, i, got, want[i])
			default:
				same++
			}
		}
		t.Logf("%s: %d of %d lines are the same", name, same, len(packets))
	}
}

// TestCutPackets: no packet, cut anywhere, makes the printer fail.
func TestCutPackets(t *testing.T) {
	var p Printer
	for _, packet := range append(conversations(t), capturetest.Frames(t)...) {
		for n := range packet {
			if line := p.Packet(layers.LinkTypeEthernet, packet[:n], len(packet)); line == "" {
				t.Errorf("nothing is said of %x", packet[:n])
			}
			if n >= 14 {
				p.Packet(layers.LinkTypeRaw, packet[14:n], len(packet)-14)
			}
		}
	}
}

// TestVXLANOnLinuxPort: tcpdump would say OTV.
func TestVXLANOnLinuxPort(t *testing.T) {
	inner := capturetest.Frames(t)[0]
	packet := capturetest.Serialize(t, capturetest.Ethernet(layers.EthernetTypeIPv4, 2), capturetest.IPv4("192.168.10.100", "192.168.20.100", layers.IPProtocolUDP),
		&layers.UDP{SrcPort: 51000, DstPort: 8472}, gopacket.Payload(append([]byte{8, 0, 0, 0, 0, 0, 2, 0}, inner...)))
	var p Printer
	want := "IP 192.168.10.100.51000 > 192.168.20.100.8472: VXLAN, flags [I] (0x08), vni 2\nIP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 300, seq 1, length 64"
	if got := p.Packet(layers.LinkTypeEthernet, packet, len(packet)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzPacket(f *testing.F) {
	for _, packet := range capturetest.Frames(f) {
		f.Add(packet)
	}
	f.Fuzz(func(_ *testing.T, packet []byte) {
		var p Printer
		p.Packet(layers.LinkTypeEthernet, packet, len(packet))
		p.Packet(layers.LinkTypeRaw, packet, len(packet))
	})
}
