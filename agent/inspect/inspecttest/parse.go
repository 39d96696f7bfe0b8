//go:build linux

// Package inspecttest writes dumps of a node's maps as text that people read.
package inspecttest

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/bpf"
)

// Parse reads a dump. Each line is one entry; words with = are fields, numbers
// in any base, and what is left out is 0:
//
//	time since=1633021 tick=1000000
//	frontend 10.96.48.145:80/TCP id=20 first=1 count=3 flags=0x0
//	slot 1 backend=23 service=20
//	backend 23 172.20.0.158:80/TCP state=0
//	endpoint 200 172.20.1.219 identity=2219 ifindex=8 mac=… hostmac=… flags=0
//	ipcache 172.20.2.0/24 identity=2 node=192.168.20.100 flags=2
//	flow TCP 10.0.0.1:1 > 10.96.0.1:443 > 10.0.0.2:80 ago=0 tx=0x1b identity=256
//	nat TCP 172.20.0.102:57882 > 10.10.2.200:80 as 192.168.10.100:57882 ago=145
//	metric 158 2 packets=3 bytes=222
//
// A frontend ending in /i is the internal scope. Ago is in ticks before time's;
// those of a dump are 2^30 ns long. A flow with keyed=1 or keyed=2 stands under
// its full key, with the address of its frontend or backend.
func Parse(t testing.TB, text string) *inspect.Dump {
	t.Helper()
	d := &inspect.Dump{
		Slots: map[uint32]bpf.DatapathSlot{}, Backends: map[uint32]bpf.DatapathBackend{},
		Endpoints: map[uint32]bpf.DatapathEndpoint{}, Time: inspect.Time{Clock: bpf.Features{}.Clock()},
	}
	for number, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := add(d, newEntry(words)); err != nil {
			t.Fatalf("line %d: %q: %v", number+1, line, err)
		}
	}
	return d
}

// entry is a line: its kind, its words and its fields. The first failure stays.
type entry struct {
	kind   string
	words  []string
	fields map[string]string
	err    error
}

func newEntry(words []string) *entry {
	e := &entry{kind: words[0], fields: map[string]string{}}
	for _, word := range words[1:] {
		if name, value, ok := strings.Cut(word, "="); ok {
			e.fields[name] = value
		} else if word != ">" && word != "as" {
			e.words = append(e.words, word)
		}
	}
	return e
}

func (e *entry) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func (e *entry) word(i int) string {
	if i >= len(e.words) {
		e.fail(fmt.Errorf("needs %d words", i+1))
		return ""
	}
	return e.words[i]
}

func (e *entry) parse(text string) uint64 {
	number, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		e.fail(err)
	}
	return number
}

// number is a field, which is then used up.
func (e *entry) number(name string) uint64 {
	text, ok := e.fields[name]
	delete(e.fields, name)
	if !ok {
		return 0
	}
	return e.parse(text)
}

func (e *entry) addr(text string) uint32 {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		e.fail(err)
		return 0
	}
	number, err := bpf.Address(addr)
	if err != nil {
		e.fail(err)
	}
	return number
}

func (e *entry) at(i int) (addr uint32, port uint16) {
	both, err := netip.ParseAddrPort(e.word(i))
	if err != nil {
		e.fail(err)
		return 0, 0
	}
	return e.addr(both.Addr().String()), bpf.Port(both.Port())
}

func (e *entry) proto(text string) uint8 {
	number, ok := map[string]uint8{"ICMP": 1, "TCP": 6, "UDP": 17}[text]
	if !ok {
		e.fail(fmt.Errorf("unknown protocol %q", text))
	}
	return number
}

func (e *entry) prefix(text string) bpf.DatapathPrefix {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		e.fail(err)
		return bpf.DatapathPrefix{}
	}
	key, err := bpf.Prefix(prefix)
	if err != nil {
		e.fail(err)
	}
	return key
}

func (e *entry) mac(name string) (mac [6]byte) {
	text, ok := e.fields[name]
	delete(e.fields, name)
	if !ok {
		return mac
	}
	parsed, err := net.ParseMAC(text)
	if err != nil || len(parsed) != len(mac) {
		e.fail(fmt.Errorf("%q is no MAC address", text))
		return mac
	}
	return [6]byte(parsed)
}

func add(d *inspect.Dump, e *entry) error {
	switch e.kind {
	case "time":
		d.Time.Since = time.Duration(e.number("since")) * time.Second
		d.Time.Tick = uint32(e.number("tick"))
	case "frontend":
		addFrontend(d, e)
	case "slot":
		d.Slots[uint32(e.parse(e.word(0)))] = bpf.DatapathSlot{
			Backend: uint32(e.number("backend")), Service: uint16(e.number("service"))}
	case "backend":
		addBackend(d, e)
	case "endpoint":
		d.Endpoints[uint32(e.parse(e.word(0)))] = bpf.DatapathEndpoint{
			Addr: e.addr(e.word(1)), Identity: uint32(e.number("identity")), Ifindex: uint32(e.number("ifindex")),
			Flags: uint32(e.number("flags")), Mac: e.mac("mac"), HostMac: e.mac("hostmac"),
		}
	case "ipcache":
		value := bpf.DatapathRemote{Identity: uint32(e.number("identity")), Flags: uint32(e.number("flags"))}
		if node, ok := e.fields["node"]; ok {
			value.Node = e.addr(node)
			delete(e.fields, "node")
		}
		d.IPCache = append(d.IPCache, inspect.Entry[bpf.DatapathPrefix, bpf.DatapathRemote]{Key: e.prefix(e.word(0)), Value: value})
	case "flow":
		addFlow(d, e)
	case "nat":
		addNAT(d, e)
	case "metric":
		index := bpf.MetricIndex(bpf.DatapathReason(e.parse(e.word(0))), bpf.DatapathDirection(e.parse(e.word(1))))
		d.Metrics = append(d.Metrics, inspect.Entry[uint32, bpf.DatapathMetric]{
			Key: index, Value: bpf.DatapathMetric{Packets: e.number("packets"), Bytes: e.number("bytes")}})
	default:
		return fmt.Errorf("unknown kind %q", e.kind)
	}
	for name := range e.fields {
		e.fail(fmt.Errorf("unknown field %q", name))
	}
	return e.err
}

func addFrontend(d *inspect.Dump, e *entry) {
	name, internal := strings.CutSuffix(e.word(0), "/i")
	address, protocol, _ := strings.Cut(name, "/")
	e.words[0] = address
	addr, port := e.at(0)
	key := bpf.DatapathFrontendKey{Addr: addr, Port: port, Proto: e.proto(protocol)}
	if internal {
		key.Scope = uint8(bpf.DatapathScopeSCOPE_INTERNAL)
	}
	d.Frontends = append(d.Frontends, inspect.Entry[bpf.DatapathFrontendKey, bpf.DatapathFrontend]{
		Key: key,
		Value: bpf.DatapathFrontend{
			Id: uint16(e.number("id")), First: uint32(e.number("first")), Count: uint16(e.number("count")),
			Qcount: uint16(e.number("qcount")), Flags: uint16(e.number("flags")),
			Affinity: uint32(e.number("affinity")), Algorithm: uint8(e.number("algorithm")),
		},
	})
}

func addBackend(d *inspect.Dump, e *entry) {
	address, protocol, _ := strings.Cut(e.word(1), "/")
	e.words[1] = address
	addr, port := e.at(1)
	d.Backends[uint32(e.parse(e.word(0)))] = bpf.DatapathBackend{
		Addr: addr, Port: port, Proto: e.proto(protocol), State: uint8(e.number("state"))}
}

func addFlow(d *inspect.Dump, e *entry) {
	key := bpf.DatapathFlowKey{Proto: e.proto(e.word(0))}
	key.Client, key.ClientPort = e.at(1)
	ago := uint32(e.number("ago"))
	flow := bpf.DatapathFlow{
		Service: uint16(e.number("service")), BackendId: uint32(e.number("backend")),
		ClientEp: uint16(e.number("client_ep")), BackendEp: uint16(e.number("backend_ep")),
		Flags: uint16(e.number("flags")), TxFlags: uint8(e.number("tx")), RxFlags: uint8(e.number("rx")),
		Identity: uint32(e.number("identity")), Seen: d.Time.Tick - ago, Born: d.Time.Tick - ago,
	}
	flow.Frontend, flow.FrontendPort = e.at(2)
	flow.Backend, flow.BackendPort = e.at(3)
	full := bpf.DatapathFlowFullKey{Client: key}
	switch e.number("keyed") {
	case 1:
		full.Peer, full.PeerPort = flow.Frontend, flow.FrontendPort
	case 2:
		full.Peer, full.PeerPort = flow.Backend, flow.BackendPort
	}
	if full.Peer != 0 {
		d.MoreFlows = append(d.MoreFlows, inspect.Entry[bpf.DatapathFlowFullKey, bpf.DatapathFlow]{Key: full, Value: flow})
		return
	}
	d.Flows = append(d.Flows, inspect.Entry[bpf.DatapathFlowKey, bpf.DatapathFlow]{Key: key, Value: flow})
}

func addNAT(d *inspect.Dump, e *entry) {
	key := bpf.DatapathNatKey{Proto: e.proto(e.word(0))}
	key.Remote, key.RemotePort = e.at(2)
	key.Local, key.LocalPort = e.at(3)
	value := bpf.DatapathNat{Flags: uint8(e.number("flags")), Born: d.Time.Tick - uint32(e.number("ago"))}
	value.Addr, value.Port = e.at(1)
	d.NATs = append(d.NATs, inspect.Entry[bpf.DatapathNatKey, bpf.DatapathNat]{Key: key, Value: value})
}
