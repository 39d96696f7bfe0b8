package filter

import (
	"slices"

	"github.com/agnivade/levenshtein"
)

// protocol is what a name of a protocol stands for.
type protocol struct {
	name string
	// ether is its number in Ethernet; number that in IP where ether is 0.
	ether  etherType
	number uint32
	// ip and ip6 say which carry it.
	ip, ip6 bool
	// ports says that it has them, header that its own can be looked into.
	ports, header bool
}

// protocols are those of pcap-filter(7), with IANA's numbers.
func protocols() []protocol {
	return []protocol{
		{name: "ip", ether: typeIP, header: true},
		{name: "ip6", ether: typeIPv6, header: true},
		{name: "arp", ether: typeARP, header: true},
		{name: "rarp", ether: typeRARP, header: true},
		{name: "icmp", number: 1, ip: true, header: true},
		{name: "igmp", number: 2, ip: true, header: true},
		{name: "tcp", number: protocolTCP, ip: true, ip6: true, ports: true, header: true},
		{name: "igrp", number: 9, ip: true, header: true},
		{name: "udp", number: protocolUDP, ip: true, ip6: true, ports: true, header: true},
		{name: "esp", number: 50, ip: true, ip6: true},
		{name: "ah", number: 51, ip: true, ip6: true},
		{name: "icmp6", number: 58, ip6: true, header: true},
		{name: "pim", number: 103, ip: true, ip6: true, header: true},
		{name: "vrrp", number: 112, ip: true, header: true},
		{name: "sctp", number: protocolSCTP, ip: true, ip6: true, ports: true, header: true},
	}
}

const (
	protocolTCP      = 6
	protocolUDP      = 17
	protocolSCTP     = 132
	protocolFragment = 44 // IPv6's header of fragments
)

func protocolNamed(name string) (protocol, bool) {
	all := protocols()
	if i := slices.IndexFunc(all, func(p protocol) bool { return p.name == name }); i >= 0 {
		return all[i], true
	}
	return protocol{}, false
}

// constants are the names that pcap-filter(7) gives to offsets and values in
// ICMP's and TCP's headers.
func constants() map[string]number {
	return map[string]number{
		"icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1, "tcpflags": 13,
		"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
		"icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12,
		"icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16,
		"icmp-maskreq": 17, "icmp-maskreply": 18,
		"tcp-fin": 0x01, "tcp-syn": 0x02, "tcp-rst": 0x04, "tcp-push": 0x08,
		"tcp-ack": 0x10, "tcp-urg": 0x20, "tcp-ece": 0x40, "tcp-cwr": 0x80,
	}
}

// keywords are all words with a meaning.
func keywords() []string {
	words := []string{
		"and", "or", "not", "src", "dst", "host", "net", "mask", "port", "portrange", "proto", "ether", "link",
		"broadcast", "multicast", "less", "greater", "len", "inbound", "outbound",
	}
	for _, p := range protocols() {
		words = append(words, p.name)
	}
	return words
}

// nearest is the keyword that was meant, perhaps; empty where none is near. Of
// two that are as near the one with the same first letter counts.
func nearest(word string) string {
	best, least := "", 5
	for _, k := range keywords() {
		distance := 2 * levenshtein.ComputeDistance(word, k)
		if k[0] != word[0] {
			distance++
		}
		if distance < least && distance < 2*len(word) {
			best, least = k, distance
		}
	}
	return best
}
