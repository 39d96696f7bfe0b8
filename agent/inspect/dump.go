//go:build linux

package inspect

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/native-routing/labctl/bpf"
)

// Entry is one entry of a map.
type Entry[Key, Value any] struct {
	Key   Key
	Value Value
}

// Dump is what maps held when they were read. Only those that were asked for
// are filled. The order of entries is the kernel's, which has no meaning.
type Dump struct {
	Frontends []Entry[bpf.DatapathFrontendKey, bpf.DatapathFrontend]
	// Slots, Backends and Endpoints are arrays in the kernel: by index here,
	// without the empty ones. Slots are only those of a frontend.
	Slots     map[uint32]bpf.DatapathSlot
	Backends  map[uint32]bpf.DatapathBackend
	Endpoints map[uint32]bpf.DatapathEndpoint
	// Maglev are the ids of the frontends that have a table.
	Maglev        []uint32
	Affinities    []Entry[bpf.DatapathAffinityKey, bpf.DatapathAffinity]
	AffinityMatch []Entry[bpf.DatapathAffinityMatchKey, uint8]
	IPCache       []Entry[bpf.DatapathPrefix, bpf.DatapathRemote]
	Nonmasquerade []Entry[bpf.DatapathPrefix, uint8]
	Devices       []Entry[uint32, bpf.DatapathDevice]
	// Flows are found by their client, MoreFlows by client and server; they are
	// read together.
	Flows     []Entry[bpf.DatapathFlowKey, bpf.DatapathFlow]
	MoreFlows []Entry[bpf.DatapathFlowFullKey, bpf.DatapathFlow]
	NATs      []Entry[bpf.DatapathNatKey, bpf.DatapathNat]
	Fragments []Entry[bpf.DatapathFragmentKey, bpf.DatapathFragment]
	Sockets   []Entry[bpf.DatapathSocketKey, bpf.DatapathSocketPeer]
	// Metrics are summed over all CPUs, without those that count nothing.
	Metrics []Entry[uint32, bpf.DatapathMetric]

	Sizes []Size
	Time  Time
}

// Size is how many entries a map can hold.
type Size struct {
	// Name is Cilium's, or labctl_… for a map that Cilium has not.
	Name string `json:"name"`
	Size uint32 `json:"size"`
}

// Time is when a dump was made: in the datapath's ticks, and on CLOCK_MONOTONIC.
type Time struct {
	Clock bpf.Clock
	Tick  uint32
	Since time.Duration // since boot
}

// age is how long ago an entry was stamped with tick.
func (t Time) age(tick uint32) time.Duration { return t.Clock.Age(t.Tick, tick) }

// uptime is the second since boot at which an entry was stamped with tick.
func (t Time) uptime(tick uint32) int64 { return int64((t.Since - t.age(tick)) / time.Second) }

func addrPort(addr uint32, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(bpf.Addr(addr), bpf.Port(port))
}

// Numbers of protocols in the maps.
const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

func protocol(number uint8) string {
	switch number {
	case protoICMP:
		return "ICMP"
	case protoTCP:
		return "TCP"
	case protoUDP:
		return "UDP"
	default:
		return strconv.Itoa(int(number))
	}
}

func prefixOf(p bpf.DatapathPrefix) netip.Prefix {
	return netip.PrefixFrom(bpf.Addr(p.Addr), int(p.Bits))
}

func macText(mac [6]uint8) string {
	return fmt.Sprintf("%02X:%02X:%02X:%02X:%02X:%02X", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
}
