//go:build linux

package inspect

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/native-routing/labctl/bpf"
)

// Connection is an entry of connection tracking as Cilium would have it.
type Connection struct {
	Protocol string `json:"protocol"`
	// Direction is OUT at the client, IN at the server, and SVC for the choice
	// of a backend.
	Direction   string         `json:"direction"`
	Source      netip.AddrPort `json:"source"`
	Destination netip.AddrPort `json:"destination"`
	// Expires is in seconds since boot; Remaining until then, negative for an
	// entry that only waits to be removed.
	Expires   int64 `json:"expires"`
	Remaining int64 `json:"remaining"`
	// RxFlags and TxFlags are the TCP flags seen in the two directions, with the
	// second since boot when that was last; 0 where the datapath does not note it.
	RxFlags uint8 `json:"rxFlagsSeen"`
	LastRx  int64 `json:"lastRxReport"`
	TxFlags uint8 `json:"txFlagsSeen"`
	LastTx  int64 `json:"lastTxReport"`
	// Flags are Cilium's bits, and Words their names.
	Flags          uint16   `json:"flags"`
	Words          []string `json:"flagWords"`
	RevNAT         uint16   `json:"revNAT"`
	SourceIdentity uint32   `json:"sourceIdentity"`
	BackendID      uint32   `json:"backendID"`
}

// connectionFlags are bits of Cilium's ct_entry.
const (
	rxClosing  = 1 << 0
	txClosing  = 1 << 1
	lbLoopback = 1 << 3
	seenNonSyn = 1 << 4
	nodePort   = 1 << 5
	tcpFIN     = 0x01
	tcpRST     = 0x04
	tcpClosing = tcpFIN | tcpRST
)

// ConnectionList is every flow as the entries that Cilium would have for it:
//
//	SVC  client to frontend, where a service was translated for each packet
//	OUT  client to backend, where the client is a pod of this node, the node
//	     itself, or somebody outside who called a NodePort
//	IN   client to backend, where the backend is a pod of this node
//
// It is sorted by protocol, client and server.
func (d *Dump) ConnectionList() []Connection {
	var found []Connection
	for _, f := range d.mergedFlows() {
		found = append(found, d.connections(f)...)
	}
	slices.SortFunc(found, func(a, b Connection) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), a.Source.Compare(b.Source),
			rank(a.Direction)-rank(b.Direction), a.Destination.Compare(b.Destination))
	})
	return found
}

// rank is the order in which a packet meets the entries of its flow.
func rank(direction string) int {
	switch direction {
	case Svc:
		return 0
	case Out:
		return 1
	default:
		return 2
	}
}

// mergedFlows makes one of the two entries of a flow whose client talks to
// several servers from one port: it is known by both addresses of its server,
// and each direction keeps one of them alive.
func (d *Dump) mergedFlows() []Entry[bpf.DatapathFlowKey, bpf.DatapathFlow] {
	type conversation struct {
		client, frontend, backend             uint32
		clientPort, frontendPort, backendPort uint16
		proto                                 uint8
	}
	merged := slices.Clone(d.Flows)
	at := make(map[conversation]int)
	for _, entry := range d.MoreFlows {
		k, f := entry.Key.Client, entry.Value
		c := conversation{k.Client, f.Frontend, f.Backend, k.ClientPort, f.FrontendPort, f.BackendPort, k.Proto}
		i, twice := at[c]
		if !twice {
			at[c] = len(merged)
			merged = append(merged, Entry[bpf.DatapathFlowKey, bpf.DatapathFlow]{Key: k, Value: f})
			continue
		}
		first := &merged[i].Value
		if d.Time.age(f.Seen) < d.Time.age(first.Seen) {
			first.Seen = f.Seen
		}
		first.TxFlags |= f.TxFlags
		first.RxFlags |= f.RxFlags
		first.Flags |= f.Flags
	}
	return merged
}

func (d *Dump) connections(entry Entry[bpf.DatapathFlowKey, bpf.DatapathFlow]) []Connection {
	key, f := entry.Key, entry.Value
	client := addrPort(key.Client, key.ClientPort)
	frontend, backend := addrPort(f.Frontend, f.FrontendPort), addrPort(f.Backend, f.BackendPort)
	base := d.connection(key.Proto, f)
	has := func(flag bpf.DatapathFlowFlag) bool { return f.Flags&uint16(flag) != 0 }
	external := has(bpf.DatapathFlowFlagFLOW_EXTERNAL)

	var found []Connection
	if f.Service != 0 {
		c := base
		c.Direction, c.Source, c.Destination = Svc, client, frontend
		c.RevNAT, c.BackendID, c.SourceIdentity = f.Service, f.BackendId, 0
		c.RxFlags, c.LastRx = 0, 0 // replies do not meet it
		found = append(found, c.flagged(txClosing|seenNonSyn))
	}
	if f.ClientEp != 0 || external || f.BackendEp == 0 {
		c := base
		c.Direction, c.Source, c.Destination, c.RevNAT = Out, client, backend, f.Service
		if external {
			c.Flags |= nodePort
		}
		if has(bpf.DatapathFlowFlagFLOW_LOOPBACK) {
			c.Flags |= lbLoopback
		}
		found = append(found, c.flagged(^uint16(0)))
	}
	if f.BackendEp != 0 {
		c := base
		c.Direction, c.Source, c.Destination = In, client, backend
		if has(bpf.DatapathFlowFlagFLOW_LOOPBACK) {
			c.Source = netip.AddrPortFrom(bpf.DefaultLoopback, client.Port())
		}
		c.RxFlags, c.TxFlags, c.LastRx, c.LastTx = base.TxFlags, base.RxFlags, base.LastTx, base.LastRx
		c.Flags = c.Flags&^(rxClosing|txClosing) | closing(c.RxFlags, c.TxFlags)
		found = append(found, c.flagged(^uint16(0)))
	}
	return found
}

// connection is what all entries of a flow have in common, as its client sees it.
func (d *Dump) connection(proto uint8, f bpf.DatapathFlow) Connection {
	seen := d.Time.uptime(f.Seen)
	c := Connection{Protocol: protocol(proto), SourceIdentity: f.Identity, LastTx: seen}
	age := lifetime(proto, f)
	c.Remaining = int64((age - d.Time.age(f.Seen)) / time.Second)
	c.Expires = int64(d.Time.Since/time.Second) + c.Remaining
	if proto != protoTCP { // one bit stands for flags there, which Cilium does not show
		if f.RxFlags != 0 {
			c.LastRx = seen
		}
		return c
	}
	c.TxFlags, c.RxFlags = f.TxFlags, f.RxFlags
	if f.RxFlags != 0 {
		c.LastRx = seen
	}
	if f.TxFlags == 0 {
		c.LastTx = 0
	}
	c.Flags = closing(f.RxFlags, f.TxFlags)
	if f.Flags&uint16(bpf.DatapathFlowFlagFLOW_SEEN_NON_SYN) != 0 {
		c.Flags |= seenNonSyn
	}
	return c
}

func closing(rx, tx uint8) uint16 {
	var flags uint16
	if rx&tcpClosing != 0 {
		flags |= rxClosing
	}
	if tx&tcpClosing != 0 {
		flags |= txClosing
	}
	return flags
}

// lifetime is how long a flow is kept without a packet.
func lifetime(proto uint8, f bpf.DatapathFlow) time.Duration {
	switch {
	case proto != protoTCP:
		return bpf.AgeAny
	case (f.TxFlags|f.RxFlags)&tcpClosing != 0:
		return bpf.AgeClosing
	case f.Flags&uint16(bpf.DatapathFlowFlagFLOW_SEEN_NON_SYN) != 0:
		return bpf.AgeTCP
	default:
		return bpf.AgeSYN
	}
}

// flagged keeps the flags of mask, and names them.
func (c Connection) flagged(mask uint16) Connection {
	c.Flags &= mask
	c.Words = []string{}
	for _, w := range []struct {
		bit  uint16
		word string
	}{
		{rxClosing, "RxClosing"}, {txClosing, "TxClosing"}, {lbLoopback, "LBLoopback"},
		{seenNonSyn, "SeenNonSyn"}, {nodePort, "NodePort"},
	} {
		if c.Flags&w.bit != 0 {
			c.Words = append(c.Words, w.word)
		}
	}
	return c
}
