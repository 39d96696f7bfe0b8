// Package capturetest has packets of many kinds, for tests that compare with
// tcpdump and tshark what becomes of them.
package capturetest

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// File writes packets of a link as a pcap file, the time of each being its
// number, in seconds.
func File(t testing.TB, link layers.LinkType, packets [][]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "packets.pcap")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := pcapgo.NewWriter(out)
	if err := w.WriteFileHeader(65535, link); err != nil {
		t.Fatal(err)
	}
	for i, p := range packets {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(p), Length: len(p)}
		if err := w.WritePacket(info, p); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// Serialize joins layers, with lengths and checksums worked out.
func Serialize(t testing.TB, all ...gopacket.SerializableLayer) []byte {
	t.Helper()
	for i, l := range all {
		var network gopacket.NetworkLayer
		for _, below := range all[:i] {
			if n, ok := below.(gopacket.NetworkLayer); ok {
				network = n
			}
		}
		if sum, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok && network != nil {
			if err := sum.SetNetworkLayerForChecksum(network); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Ethernet is a header; to 255 is broadcast, 254 multicast.
func Ethernet(kind layers.EthernetType, to byte) *layers.Ethernet {
	e := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, to}, EthernetType: kind}
	if to == 255 {
		e.DstMAC = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	}
	if to == 254 {
		e.DstMAC = net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}
	}
	return e
}

// IPv4 and IPv6 are headers.
func IPv4(from, to string, protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: protocol, SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to)}
}

func IPv6(from, to string, next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to)}
}

// Datagrams are IP packets of many kinds.
func Datagrams(t testing.TB) [][]byte {
	var all [][]byte
	add := func(l ...gopacket.SerializableLayer) { all = append(all, Serialize(t, l...)) }
	hosts := [][2]string{{"10.0.0.1", "10.0.0.2"}, {"10.0.0.2", "10.0.0.1"}, {"172.20.0.5", "172.20.2.7"}, {"10.0.0.1", "10.0.0.1"}, {"10.1.0.9", "224.0.0.5"}}
	for _, h := range hosts {
		for _, kind := range []layers.ICMPv4TypeCode{0x0800, 0x0000, 0x0301, 0x0304, 0x0b00} {
			add(IPv4(h[0], h[1], layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: kind, Id: 300, Seq: 1}, gopacket.Payload(make([]byte, 56)))
		}
		for _, ports := range [][2]layers.TCPPort{{40000, 80}, {80, 40000}, {443, 53}, {8080, 8085}, {80, 80}} {
			for _, flags := range []layers.TCP{{SYN: true}, {SYN: true, ACK: true}, {ACK: true, PSH: true}, {FIN: true, ACK: true}, {RST: true}} {
				tcp := flags
				tcp.SrcPort, tcp.DstPort, tcp.Seq, tcp.Ack, tcp.Window = ports[0], ports[1], 1000, 500, 65000
				if tcp.SYN {
					tcp.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionData: []byte{5, 0xb4}}}
				}
				payload := gopacket.Payload{}
				if tcp.PSH {
					payload = gopacket.Payload("GET / HTTP/1.1\r\n\r\n")
				}
				add(IPv4(h[0], h[1], layers.IPProtocolTCP), &tcp, payload)
			}
		}
		for _, ports := range [][2]layers.UDPPort{{40000, 53}, {53, 40000}, {50000, 8472}, {8475, 80}} {
			add(IPv4(h[0], h[1], layers.IPProtocolUDP), &layers.UDP{SrcPort: ports[0], DstPort: ports[1]}, gopacket.Payload{8, 0, 0, 0, 0, 0, 9, 0, 1})
		}
	}
	options := IPv4("10.0.0.1", "172.20.2.7", layers.IPProtocolTCP)
	options.Options = []layers.IPv4Option{{OptionType: 7, OptionLength: 7, OptionData: []byte{4, 0, 0, 0, 0}}, {OptionType: 0}}
	add(options, &layers.TCP{SrcPort: 9, DstPort: 80, SYN: true}, gopacket.Payload("GET "))
	for _, offset := range []uint16{0, 100} {
		fragment := IPv4("10.0.0.1", "10.0.0.2", layers.IPProtocolUDP)
		fragment.FragOffset, fragment.Flags = offset, layers.IPv4MoreFragments
		add(fragment, gopacket.Payload{0, 80, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4})
	}
	dont := IPv4("10.0.0.1", "10.0.0.2", layers.IPProtocolTCP)
	dont.Flags, dont.TTL = layers.IPv4DontFragment, 3
	add(dont, &layers.TCP{SrcPort: 22, DstPort: 50000, ACK: true})
	for _, protocol := range []layers.IPProtocol{2, 9, 47, 50, 51, 58, 103, 112, 132} {
		add(IPv4("10.0.0.1", "10.0.0.2", protocol), gopacket.Payload{0, 80, 0, 53, 0, 0, 0, 0, 0, 0, 0, 0})
		add(IPv6("fd00::1", "fd00::2", protocol), gopacket.Payload{0, 80, 0, 53, 0, 0, 0, 0, 0, 0, 0, 0})
	}
	for _, to := range []string{"fd00::2", "ff02::1", "::1"} {
		add(IPv6("fd00::1", to, layers.IPProtocolTCP), &layers.TCP{SrcPort: 40000, DstPort: 80, SYN: true})
		add(IPv6(to, "fd00::1", layers.IPProtocolUDP), &layers.UDP{SrcPort: 53, DstPort: 40000}, gopacket.Payload{1, 2})
		add(IPv6("fd00::1", to, 58), gopacket.Payload{135, 0, 0, 0, 0, 0, 0, 0})
	}
	add(IPv6("fd00::1", "fd00::2", 44), gopacket.Payload{6, 0, 0, 1, 0, 0, 0, 1, 0, 80, 0, 80, 0, 0, 0, 0})
	return all
}

// Frames are the datagrams on Ethernet, and what else there is.
func Frames(t testing.TB) [][]byte {
	var all [][]byte
	for i, d := range Datagrams(t) {
		kind := layers.EthernetTypeIPv4
		if d[0]>>4 == 6 {
			kind = layers.EthernetTypeIPv6
		}
		to := []byte{2, 2, 2, 255, 254}[i%5]
		all = append(all, Serialize(t, Ethernet(kind, to), gopacket.Payload(d)))
	}
	for _, operation := range []uint16{1, 2} {
		for _, kind := range []layers.EthernetType{layers.EthernetTypeARP, 0x8035} {
			all = append(all, Serialize(t, Ethernet(kind, 255), &layers.ARP{
				AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: operation,
				SourceHwAddress: []byte{2, 0, 0, 0, 0, 1}, SourceProtAddress: []byte{10, 0, 0, 1},
				DstHwAddress: []byte{0, 0, 0, 0, 0, 0}, DstProtAddress: []byte{172, 20, 0, 5},
			}))
		}
	}
	lldp := Serialize(t, Ethernet(0x88cc, 254), gopacket.Payload(make([]byte, 46)))
	return append(all, lldp)
}
