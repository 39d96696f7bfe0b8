package api

import (
	"net/netip"
	"time"
)

// TagMagic begins the payload of every echo and datagram that an agent sends as
// a probe: "LABP". The session and the probe follow, 32 bits each in network order.
const TagMagic = 0x4c414250

// PingRequest sends ICMP echoes; all targets at once.
type PingRequest struct {
	Targets []PingTarget `json:"targets"`
}

// PingTarget is one destination.
type PingTarget struct {
	// Pod is the key of the pod on this node that sends; empty for the node itself.
	Pod string     `json:"pod,omitempty"`
	To  netip.Addr `json:"to"`
	// From is the source address; the kernel chooses where it is absent.
	From  netip.Addr `json:"from,omitzero"`
	Count int        `json:"count"`
	// Interval between two echoes; Timeout is how long each is waited for.
	Interval time.Duration `json:"interval"`
	Timeout  time.Duration `json:"timeout"`
	// Size of the ICMP payload in bytes; at least 16, which the tag takes.
	Size int `json:"size"`
	TTL  int `json:"ttl,omitempty"`
	// DontFragment sets DF and refuses local fragmentation.
	DontFragment bool `json:"dontFragment,omitempty"`
	// Session and Probe go into the payload, where a witness finds them.
	Session uint32 `json:"session,omitempty"`
	Probe   uint32 `json:"probe,omitempty"`
}

// PingResponse has one result for each target, in the same order.
type PingResponse struct {
	Results []PingResult `json:"results"`
}

// PingResult is what came back from one target.
type PingResult struct {
	Sent     int `json:"sent"`
	Received int `json:"received"`
	// RTTs of the echoes that were answered, in order.
	RTTs []time.Duration `json:"rtts,omitempty"`
	// ReplyTTL is the TTL of the last answer as it arrived.
	ReplyTTL int `json:"replyTTL,omitempty"`
	// Failure is the last ICMP error or local error; nil where packets just vanished.
	Failure *ProbeError `json:"failure,omitempty"`
}

// ProbeError is why a probe was not answered, as the kernel's error queue or a
// system call gave it.
type ProbeError struct {
	// Kind is net-unreachable, host-unreachable, prohibited, ttl-exceeded,
	// too-big, or local for an error of this node's own kernel.
	Kind string `json:"kind"`
	// From is who sent the ICMP error; the zero address for a local one.
	From netip.Addr `json:"from,omitzero"`
	// MTU of the next hop, with too-big.
	MTU     int    `json:"mtu,omitempty"`
	Message string `json:"message"`
}

// TraceRequest follows the path to each target; all at once.
type TraceRequest struct {
	Targets []TraceTarget `json:"targets"`
}

// TraceTarget is one destination of a trace by UDP, as tracepath(8) does it.
type TraceTarget struct {
	To      netip.Addr    `json:"to"`
	From    netip.Addr    `json:"from,omitzero"`
	MaxHops int           `json:"maxHops"`
	Timeout time.Duration `json:"timeout"` // for each probe
	Tries   int           `json:"tries"`   // probes of one hop before it counts as silent
	// Size of the first probe, IP header included, in bytes; the path MTU is found downwards from it.
	Size int `json:"size"`
}

// TraceResponse has one result for each target, in the same order.
type TraceResponse struct {
	Results []TraceResult `json:"results"`
}

// TraceResult is the path as it was found.
type TraceResult struct {
	Hops    []TraceHop `json:"hops"`
	Reached bool       `json:"reached"`
	// PathMTU in bytes, as far as the trace came.
	PathMTU int `json:"pathMTU"`
	// HopsThere is the TTL at which the target answered; HopsBack is derived
	// from the TTL of its answer; 0 where it was not reached.
	HopsThere int         `json:"hopsThere,omitempty"`
	HopsBack  int         `json:"hopsBack,omitempty"`
	Failure   *ProbeError `json:"failure,omitempty"`
}

// TraceHop is one line of a trace.
type TraceHop struct {
	TTL int `json:"ttl"`
	// Address is the zero address where nobody answered.
	Address netip.Addr    `json:"address,omitzero"`
	RTT     time.Duration `json:"rtt,omitempty"`
	Reached bool          `json:"reached,omitempty"`
	// PathMTU is set on a hop that lowered it.
	PathMTU int `json:"pathMTU,omitempty"`
	// Asymmetric is the number of hops back where it is not TTL; 0 otherwise.
	Asymmetric int `json:"asymmetric,omitempty"`
}

// WitnessRequest names a session of echoes to look out for on every interface.
// A witness ends by itself after Lifetime.
type WitnessRequest struct {
	Session  uint32        `json:"session"`
	Lifetime time.Duration `json:"lifetime,omitempty"`
}

// WitnessResponse is what was seen, in the order of time.
type WitnessResponse struct {
	Sightings []Sighting `json:"sightings"`
	// Dropped counts packets that the kernel could not hand over.
	Dropped int `json:"dropped,omitempty"`
}

// Sighting is one tagged packet passing one interface.
type Sighting struct {
	Probe    uint32     `json:"probe"`
	Sequence int        `json:"sequence"`
	Device   string     `json:"device"`
	Outgoing bool       `json:"outgoing"`
	Reply    bool       `json:"reply"` // an echo reply; otherwise an echo request
	From     netip.Addr `json:"from"`
	To       netip.Addr `json:"to"`
	TTL      int        `json:"ttl"`
	// CarrierTTL is that of the packet which carries this one through a tunnel; 0
	// where it goes by itself.
	CarrierTTL int       `json:"carrierTTL,omitempty"`
	Timestamp  time.Time `json:"timestamp"`
}

// KnockRequest opens one connection or sends one datagram to each target; all
// at once.
type KnockRequest struct {
	Targets []KnockTarget `json:"targets"`
}

// The protocols of a KnockTarget.
const (
	KnockTCP = "tcp" // connects, and closes at once
	KnockUDP = "udp" // sends one datagram, and waits for an answer
)

// KnockTarget is one port.
type KnockTarget struct {
	// Pod is the key of the pod on this node that sends; empty for the node itself.
	Pod      string     `json:"pod,omitempty"`
	Protocol string     `json:"protocol"`
	To       netip.Addr `json:"to"`
	Port     uint16     `json:"port"`
	// From is the source address; the kernel chooses where it is absent.
	From    netip.Addr    `json:"from,omitzero"`
	Timeout time.Duration `json:"timeout"`
	// Session and Probe go into a datagram's payload, in the same layout as an
	// echo's.
	Session uint32 `json:"session,omitempty"`
	Probe   uint32 `json:"probe,omitempty"`
}

// KnockResponse has one result for each target, in the same order.
type KnockResponse struct {
	Results []KnockResult `json:"results"`
}

// The outcomes of a KnockResult.
const (
	KnockAnswered = "answered" // connected, or a datagram came back
	KnockRefused  = "refused"  // a reset, or ICMP port unreachable: nobody listens there
	KnockSilent   = "silent"   // nothing came back in time
	KnockFailed   = "failed"   // an ICMP error or an error of this node's kernel: see Failure
)

// KnockResult is what came of one target.
type KnockResult struct {
	Outcome string `json:"outcome"`
	// Local is the socket's own end, by which its packets are known where they leave.
	Local netip.AddrPort `json:"local,omitzero"`
	// Peer is what the socket says it is connected to.
	Peer netip.AddrPort `json:"peer,omitzero"`
	Took time.Duration  `json:"took"`
	// Failure is why, where an error was told.
	Failure *ProbeError `json:"failure,omitempty"`
}
