// Package ladder says what all nodes saw of one packet and its answer: each
// sighting is a rung, and they stand in the order in which the packet passed.
package ladder

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/capture"
)

// The protocols of a probe.
const (
	ICMP = "icmp" // one echo request
	TCP  = "tcp"  // the opening of a connection
	UDP  = "udp"  // one datagram
)

// Probe is one packet to follow.
type Probe struct {
	// Node sends it, from the namespace of Pod (a pod's key) where that is not empty.
	Node string `json:"node"`
	Pod  string `json:"pod,omitempty"`
	// From is the source address; the sender's kernel chooses where it is absent.
	From netip.Addr `json:"from,omitzero"`
	To   netip.Addr `json:"to"`
	// Port is the destination's, of TCP and UDP.
	Port     uint16 `json:"port,omitempty"`
	Protocol string `json:"protocol"`
	// Size is that of an echo's payload in bytes, 56 where it is 0. DontFragment
	// sets DF on the echo.
	Size         int  `json:"size,omitempty"`
	DontFragment bool `json:"dontFragment,omitempty"`
	// Timeout is how long an answer is waited for; 1 s where it is 0.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Place is a namespace to look in: a node's own, or that of one of its pods.
type Place struct {
	Node string `json:"node"`
	Pod  string `json:"pod,omitempty"` // its key
}

// Ladder is what was seen of a probe.
type Ladder struct {
	Probe Probe `json:"probe"`
	// Answered says that the sender had the answer it waits for: an echo reply, a
	// connection, a datagram. Failure is what its kernel told it instead; nil
	// where nothing came.
	Answered bool            `json:"answered"`
	Failure  *api.ProbeError `json:"failure,omitempty"`
	// Local is the sender's end, with its port where there is one.
	Local netip.AddrPort `json:"local,omitzero"`
	// There is the way of the request, from its sender onwards; Back that of the
	// answer: an echo reply, SYN-ACK or RST, a datagram.
	There []Rung `json:"there"`
	Back  []Rung `json:"back"`
	// Errors are ICMP errors that quote the request or its answer, from their
	// sender onwards.
	Errors []Rung `json:"errors,omitempty"`
	// Blind are places that could not look, and why. A loss that would be there
	// cannot be told.
	Blind map[Place]error `json:"-"`
	// Dropped is how many packets the kernels could not hand over.
	Dropped uint64 `json:"dropped,omitempty"`
	// ClockOffsets are how far the nodes' clocks are ahead of this machine's,
	// where that could be told; the rungs' times are corrected by it.
	ClockOffsets map[string]time.Duration `json:"clockOffsets,omitempty"`
}

// Rung is one sighting: a packet passing one device.
type Rung struct {
	Place
	Device   string `json:"device"`
	Outgoing bool   `json:"outgoing"`
	// Time is by this machine's clock, as far as the node's could be compared.
	Time time.Time `json:"time"`
	// From and To are as the packet bore them here; their ports are 0 in an echo
	// and an ICMP error.
	From netip.AddrPort `json:"from"`
	To   netip.AddrPort `json:"to"`
	TTL  int            `json:"ttl"`
	// Length is that of the IP packet, in bytes.
	Length int `json:"length"`
	// Flags of TCP as tcpdump writes them: S, S., R.
	Flags string `json:"flags,omitempty"`
	// Tunnel is there where the packet was seen inside of another one.
	Tunnel *Tunnel `json:"tunnel,omitempty"`
	// Error is there in an ICMP error.
	Error *ICMPError `json:"error,omitempty"`
	// Packet is as it was captured.
	Packet capture.Packet `json:"-"`
}

// Tunnel is the outer packet of a VXLAN.
type Tunnel struct {
	From netip.Addr `json:"from"`
	To   netip.Addr `json:"to"`
	Port uint16     `json:"port"`
	VNI  uint32     `json:"vni"`
	TTL  int        `json:"ttl"`
}

// ICMPError is what an ICMP error says.
type ICMPError struct {
	Type int `json:"type"`
	Code int `json:"code"`
	// MTU of the next hop, where the packet was too big.
	MTU int `json:"mtu,omitempty"`
	// Reply says that it quotes the answer, and not the request. QuotedFrom and
	// QuotedTo are the addresses of the packet that it quotes.
	Reply      bool       `json:"reply,omitempty"`
	QuotedFrom netip.Addr `json:"quotedFrom"`
	QuotedTo   netip.Addr `json:"quotedTo"`
}

// Last is where a leg was last seen; false for one that was never seen.
func Last(leg []Rung) (Rung, bool) {
	if len(leg) == 0 {
		return Rung{}, false
	}
	return leg[len(leg)-1], true
}

// Prober sends probes and captures packets on the nodes of a running lab. Its
// methods are safe for concurrent use; an error names the node's trouble and
// the cure.
type Prober interface {
	Ping(ctx context.Context, node string, targets []api.PingTarget) ([]api.PingResult, error)
	Knock(ctx context.Context, node string, targets []api.KnockTarget) ([]api.KnockResult, error)
	Capture(ctx context.Context, node string, request api.CaptureRequest) (*api.CaptureStream, error)
}

// String is the node's name, or the pod's without the namespace default.
func (p Place) String() string {
	if p.Pod == "" {
		return p.Node
	}
	return strings.TrimPrefix(p.Pod, "default/")
}
