//go:build linux

package datapath

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/native-routing/labctl/bpf"
)

// Collection is done at an interval between these: more often while much is
// found, as Cilium does.
const (
	shortestGC = 10 * time.Second
	longestGC  = 5 * time.Minute
)

// GCStats count what was removed since the start, and say what is left.
type GCStats struct {
	Runs                      uint64
	FlowsRemoved, NATsRemoved uint64
	// Flows and NATs are the entries that the last run left in place; Took is
	// how long it worked.
	Flows, NATs int
	Took        time.Duration
	// Interval is until the next run.
	Interval time.Duration
}

const tcpClosing = 0x01 | 0x04 // FIN, RST

// Protocol numbers of IP.
const (
	protocolTCP = 6
	protocolUDP = 17
)

// isOver says whether a flow has ended, as flow_is_over in flow.h does for who
// wants its place.
func isOver(protocol uint8, flow *bpf.DatapathFlow, age time.Duration) bool {
	flags := flow.TxFlags | flow.RxFlags
	switch {
	case protocol != protocolTCP:
		return age > bpf.AgeAny
	case flags&tcpClosing != 0:
		return age > bpf.AgeClosing
	case flow.Flags&uint16(bpf.DatapathFlowFlagFLOW_SEEN_NON_SYN) != 0:
		return age > bpf.AgeTCP
	default:
		return age > bpf.AgeSYN
	}
}

// natIsOver says the same of a translation that has no flow any more: LRU may
// have pushed that out, so replies alone keep it.
func natIsOver(protocol uint8, nat *bpf.DatapathNat, age time.Duration) bool {
	switch {
	case protocol != protocolTCP:
		return age > bpf.AgeAny
	case nat.RxFlags&tcpClosing != 0:
		return age > bpf.AgeClosing
	case nat.RxFlags == 0:
		return age > bpf.AgeSYN
	default:
		return age > bpf.AgeTCP
	}
}

// collect removes the flows that are over and the translations that serve none.
func (m Maps) collect(stats *GCStats) error {
	began := time.Now()
	now, err := m.Clock.Now()
	if err != nil {
		return err
	}
	ended, err := m.collectFlows(now, stats)
	if err == nil {
		err = m.collectNATs(now, ended, stats)
	}
	stats.Took = time.Since(began)
	stats.Runs++
	if err != nil {
		return fmt.Errorf("remove flows that are over: %w", err)
	}
	return nil
}

func (m Maps) collectFlows(now uint32, stats *GCStats) (ended map[bpf.DatapathNatKey]bool, err error) {
	ended = make(map[bpf.DatapathNatKey]bool)
	stats.Flows = 0
	err = m.walkFlows(func(e flowEntry) error {
		stats.Flows++
		if !isOver(e.client.Proto, e.flow, m.Clock.Age(now, e.flow.Seen)) {
			return nil
		}
		// It may have been seen since it was read.
		var again bpf.DatapathFlow
		if e.in.Lookup(e.key, &again) != nil || again.Seen != e.flow.Seen || again.Born != e.flow.Born {
			return nil
		}
		if nat, ok := natOf(e.client, e.flow); ok {
			ended[*nat] = true
		}
		stats.Flows--
		stats.FlowsRemoved++
		return remove(e.in, e.key)
	})
	return ended, err
}

func (m Maps) collectNATs(now uint32, ended map[bpf.DatapathNatKey]bool, stats *GCStats) error {
	nats := m.Map(bpf.NATs)
	stats.NATs = 0
	return walk(nats, func(key *bpf.DatapathNatKey, nat *bpf.DatapathNat) error {
		stats.NATs++
		age := m.Clock.Age(now, nat.Seen)
		if age <= bpf.AgeClosing || !ended[*key] && !natIsOver(key.Proto, nat, age) || m.serves(key, nat) {
			return nil
		}
		stats.NATs--
		stats.NATsRemoved++
		return remove(nats, key)
	})
}

// serves says whether a flow goes by a translation: one that is found by its
// client alone, or by its client and its server.
func (m Maps) serves(key *bpf.DatapathNatKey, nat *bpf.DatapathNat) bool {
	client := bpf.DatapathFlowKey{Client: nat.Addr, ClientPort: nat.Port, Proto: key.Proto}
	full := bpf.DatapathFlowFullKey{Client: client, Peer: key.Remote, PeerPort: key.RemotePort}
	goesBy := func(m *ebpf.Map, by any) bool {
		var flow bpf.DatapathFlow
		return m.Lookup(by, &flow) == nil && flow.NatAddr == key.Local && flow.NatPort == key.LocalPort &&
			flow.Backend == key.Remote && flow.BackendPort == key.RemotePort
	}
	return goesBy(m.Map(bpf.Flows), &client) || goesBy(m.Map(bpf.MoreFlows), &full)
}

// nextGC adapts the interval to how much of what was looked at had to go.
func nextGC(last time.Duration, removed, left uint64) time.Duration {
	if last == 0 {
		last = 30 * time.Second
	}
	switch total := removed + left; {
	case removed*4 > total:
		last /= 2
	case removed*20 < total || total == 0:
		last = last * 3 / 2
	}
	return min(max(last, shortestGC), longestGC)
}
