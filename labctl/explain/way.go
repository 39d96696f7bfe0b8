package explain

import (
	"net/netip"

	"github.com/native-routing/labctl/agent/api"
)

// The protocols of a packet.
const (
	ICMP = "icmp" // an echo and its reply
	TCP  = "tcp"  // the opening of a connection and its answer
	UDP  = "udp"  // a datagram and one in return
)

// Packet is what is followed.
type Packet struct {
	From     netip.Addr `json:"from,omitzero"`
	To       netip.Addr `json:"to"`
	Protocol string     `json:"protocol"`
	// The ports of TCP and UDP; 0 where one is not known.
	SourcePort uint16 `json:"sourcePort,omitempty"`
	Port       uint16 `json:"port,omitempty"`
	// Size is that of the IP packet, in bytes.
	Size         int  `json:"size"`
	DontFragment bool `json:"dontFragment,omitempty"`
}

// Leg is one direction of a way.
type Leg string

// The legs.
const (
	Request Leg = "request"
	Reply   Leg = "reply"
)

// Cause is why a packet is lost, or what is to be said of one that arrives.
type Cause string

// The causes. Those from Masqueraded on do not lose a packet by themselves.
const (
	NoRoute         Cause = "no-route"
	DefaultRoute    Cause = "default-route" // only the default route matches, and leads out of the lab
	WrongRoute      Cause = "wrong-route"   // a longer match than the right one
	Blackhole       Cause = "blackhole"
	Unreachable     Cause = "unreachable"
	Prohibit        Cause = "prohibit"
	SilentNeighbour Cause = "neighbour-silent"
	WrongNeighbour  Cause = "wrong-neighbour" // the neighbour table names another's MAC address
	LinkDown        Cause = "link-down"
	NoAddress       Cause = "no-address" // an interface has lost the address that its routes hang on
	ForwardingOff   Cause = "forwarding-off"
	ReversePath     Cause = "rp-filter"
	Martian         Cause = "martian-source" // it comes in with an address of the node's own
	TooBig          Cause = "mtu"
	Loop            Cause = "loop"
	Firewall        Cause = "firewall"
	NoBackend       Cause = "no-backend"
	StaleFlow       Cause = "stale-conntrack"
	NoPod           Cause = "no-pod"
	NotReady        Cause = "pod-not-ready"
	LeftLab         Cause = "left-lab"
	EndsHere        Cause = "ends-here" // out of a device that nobody is behind
	NotForIt        Cause = "not-a-service-port"
	EchoIgnored     Cause = "echo-ignored"
	SourceRefused   Cause = "source-refused" // a pod sends with an address that is not its own
	WrongSource     Cause = "wrong-source"   // the reply bears an address that was not called
	Unknown         Cause = "unknown"
	Masqueraded     Cause = "masqueraded"
	Asymmetric      Cause = "asymmetric-return"
	ForeignAddress  Cause = "foreign-address" // another node bears the address, and takes the packet
)

// Hop is what one namespace does with the packet.
type Hop struct {
	Place
	// In is the device that it comes in by, empty where it is made; Out the one
	// it leaves by, empty where the way ends.
	In  string `json:"in,omitempty"`
	Out string `json:"out,omitempty"`
	// Routes are those that match, in the order in which the kernel looks at
	// them, the winner marked; none where the datapath decides before.
	Routes []Candidate `json:"routes,omitempty"`
	// Rule is the routing rule that led there, where the kernel's usual ones did not.
	Rule string `json:"rule,omitempty"`
	// Via is who the packet is sent to on the link.
	Via          netip.Addr    `json:"via,omitzero"`
	Translations []Translation `json:"translations,omitempty"`
	// Direct says that the eBPF datapath hands it over without the kernel's routing.
	Direct bool `json:"direct,omitempty"`
	// From and To are as the packet leaves, TTL too; MTU is what it may leave with.
	From netip.Addr `json:"from"`
	To   netip.Addr `json:"to"`
	TTL  int        `json:"ttl"`
	MTU  int        `json:"mtu,omitempty"`
	// Notes are rules that could not be judged, and the like.
	Notes []string `json:"notes,omitempty"`
	// Learnt is the path MTU that the kernel remembers for the destination, where
	// it is less than MTU: it sends no larger packet of others than the probe.
	Learnt int `json:"learntMTU,omitempty"`

	// Outer is there where the packet is inside of another, which is what is
	// routed, and whose addresses From and To are.
	Outer *Outer `json:"outer,omitempty"`

	looked bool // a FIB was asked, whether it had a route or not
}

// Outer is the packet around one in a tunnel.
type Outer struct {
	From netip.Addr `json:"from"`
	To   netip.Addr `json:"to"`
}

// Candidate is a route that matches.
type Candidate struct {
	Text  string `json:"route"` // as ip-route(8) prints it
	Table int    `json:"table"`
	Wins  bool   `json:"wins,omitempty"`

	route api.Route
}

// Translation is one change of an address.
type Translation struct {
	// By is service, masquerade, nat (the kernel's own) or reverse, which undoes
	// one of the others.
	By string `json:"by"`
	// What is source or destination.
	What string         `json:"what"`
	Was  netip.AddrPort `json:"was"`
	Is   netip.AddrPort `json:"is"`
	// Rule is the firewall's that does it.
	Rule string `json:"rule,omitempty"`
}

// End is how a leg ends.
type End struct {
	Arrived bool  `json:"arrived"`
	Cause   Cause `json:"cause,omitempty"`
	Place
	// Device is where it is lost, or by which it came.
	Device string `json:"device,omitempty"`
	// Answered says that the sender is told by an ICMP error, or by an error of
	// its own kernel.
	Answered bool `json:"answered,omitempty"`

	route    *api.Route
	chain    *api.Chain
	rule     *api.FilterRule
	address  netip.Addr // the neighbour, the service, the pod, the source
	mtu      int
	size     int
	detail   string
	passing  bool // the packet was to be passed on, not its own
	kernel   bool // it is the kernel's connection tracking, not the datapath's
	sent     bool // the packet was on the link already
	receiver Place
}

// Path is one leg, hop by hop.
type Path struct {
	Leg  Leg   `json:"leg"`
	Hops []Hop `json:"hops"`
	End  End   `json:"end"`
	// Passes are where captures on all devices must see the packet, in order, if
	// it goes the way that was predicted.
	Passes []Sighting `json:"passes"`
	// Loops says that it comes by the same places again and again then.
	Loops bool `json:"loops,omitempty"`
}

func (p *Path) here() *Hop { return &p.Hops[len(p.Hops)-1] }

// Way is one way that a packet can take, out and back.
type Way struct {
	// Backend is the one of a service that this way leads to.
	Backend netip.AddrPort `json:"backend,omitzero"`
	Packet  Packet         `json:"packet"`
	Request Path           `json:"request"`
	Reply   *Path          `json:"reply,omitempty"`

	stale *End // a connection that goes on to a backend that is gone
}

// Arrives says whether the packet arrives and its reply does.
func (w *Way) Arrives() bool { return w.Request.End.Arrived && w.Reply != nil && w.Reply.End.Arrived }

// End is where the way ends: the reply's end where the request arrived.
func (w *Way) End() (Leg, End) {
	if w.Reply != nil {
		return Reply, w.Reply.End
	}
	return Request, w.Request.End
}
