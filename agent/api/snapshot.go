package api

import "net/netip"

// SnapshotRequest asks for what a packet's way through a node depends on.
type SnapshotRequest struct {
	// Pods are the keys of the node's pods whose own tables are wanted too.
	Pods []string `json:"pods,omitempty"`
	// Flows are addresses: what is under way from one of them is told.
	Flows []netip.Addr `json:"flows,omitempty"`
}

// Snapshot is one node as its kernel holds it. What could not be read is in
// Missing, and absent elsewhere.
type Snapshot struct {
	Space Space `json:"space"`
	// Spaces are the network namespaces of the pods that were asked for, by key.
	Spaces map[string]Space `json:"spaces,omitempty"`
	// Pods are all that are on the node.
	Pods []PodStatus `json:"pods,omitempty"`
	// Datapath is absent where no eBPF is loaded.
	Datapath *Datapath  `json:"datapath,omitempty"`
	Services []Frontend `json:"services,omitempty"`
	Flows    []Flow     `json:"flows,omitempty"`
	Missing  []string   `json:"missing,omitempty"`
}

// Space is one network namespace.
type Space struct {
	Links      []Link      `json:"links"`
	Neighbours []Neighbour `json:"neighbours,omitempty"`
	// Routes are of all tables, the local one included, each with its Table.
	Routes []Route `json:"routes"`
	// Rules are the routing policy, in the kernel's order.
	Rules  []Rule  `json:"rules"`
	Chains []Chain `json:"chains,omitempty"`
	// Tracked is the kernel's own connection tracking.
	Tracked []Tracked `json:"tracked,omitempty"`
	// Sysctls by name: those in [SpaceSysctls] that there are.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	Missing []string          `json:"missing,omitempty"`
}

// The sysctls of a Space that bear on what becomes of a packet, beside those in
// its links.
const (
	SysctlForward       = "net/ipv4/ip_forward"
	SysctlIgnoreEcho    = "net/ipv4/icmp_echo_ignore_all"
	SysctlTTL           = "net/ipv4/ip_default_ttl"
	SysctlSkipLinkDown  = "net/ipv4/conf/all/ignore_routes_with_linkdown"
	SysctlMultipathHash = "net/ipv4/fib_multipath_hash_policy"
)

// SpaceSysctls are the names that a Space is asked for.
func SpaceSysctls() []string {
	return []string{SysctlForward, SysctlIgnoreEcho, SysctlTTL, SysctlSkipLinkDown, SysctlMultipathHash}
}

// The tables that every kernel has (linux/rtnetlink.h).
const (
	TableDefault = 253
	TableMain    = 254
	TableLocal   = 255
)

// Rule is one rule of the routing policy (ip-rule(8)). What is zero matches all.
type Rule struct {
	Priority int          `json:"priority"`
	From     netip.Prefix `json:"from,omitzero"`
	To       netip.Prefix `json:"to,omitzero"`
	In       string       `json:"in,omitempty"`
	Out      string       `json:"out,omitempty"`
	Mark     uint32       `json:"mark,omitempty"`
	Mask     uint32       `json:"mask,omitempty"`
	// Protocol is the number of an IP protocol; Ports are inclusive ranges.
	Protocol         int       `json:"protocol,omitempty"`
	SourcePorts      [2]uint16 `json:"sourcePorts,omitzero"`
	DestinationPorts [2]uint16 `json:"destinationPorts,omitzero"`
	Not              bool      `json:"not,omitempty"`
	// Action is lookup, goto, nop, blackhole, unreachable or prohibit.
	Action string `json:"action"`
	Table  int    `json:"table,omitempty"`
	Goto   int    `json:"goto,omitempty"`
	// SuppressLength refuses what is found if its prefix has this many bits or
	// fewer; -1 does not.
	SuppressLength int `json:"suppressLength"`
}

// Chain is one list of firewall rules.
type Chain struct {
	// Family is nft's: ip or inet. Tool is nft, iptables or iptables-legacy:
	// with which the chain was read, and by which it can be changed.
	Family string `json:"family"`
	Tool   string `json:"tool"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	// Hook is prerouting, input, forward, output or postrouting; empty for a
	// chain that only others jump to. Type is filter, nat or route.
	Hook     string `json:"hook,omitempty"`
	Type     string `json:"type,omitempty"`
	Priority int    `json:"priority"`
	// Policy is accept or drop, for the end of a chain with a hook.
	Policy string       `json:"policy,omitempty"`
	Rules  []FilterRule `json:"rules,omitempty"`
}

// FilterRule is one rule of a chain.
type FilterRule struct {
	// Handle is nft's; 0 with iptables, which names a rule by its text.
	Handle uint64 `json:"handle,omitempty"`
	// Text is the rule as its tool prints it.
	Text    string  `json:"text"`
	Matches []Match `json:"matches,omitempty"`
	// Verdict is accept, drop, reject, return, jump, goto, masquerade, snat,
	// dnat, or empty for a rule that only counts; Target is the chain of a jump,
	// or the address of a translation.
	Verdict string `json:"verdict,omitempty"`
	Target  string `json:"target,omitempty"`
}

// Match is one condition of a rule; all of a rule's must hold.
type Match struct {
	// Key is source, destination, in, out, protocol, sport, dport, icmp-type,
	// state, mark, or other for what is not understood.
	Key string `json:"key"`
	Not bool   `json:"not,omitempty"`
	// Values are alternatives, as text: prefixes or ranges of addresses,
	// interfaces (with a trailing * for any rest), names of protocols, ports or
	// ranges of them (80-90), words.
	Values []string `json:"values,omitempty"`
}

// Tracked is an entry of the kernel's connection tracking.
type Tracked struct {
	Protocol string `json:"protocol"` // tcp, udp, icmp
	// Source and Destination are the first packet's; the Reply's are those of the
	// answers, as they come in. Ports are 0 with ICMP.
	Source           netip.AddrPort `json:"source"`
	Destination      netip.AddrPort `json:"destination"`
	ReplySource      netip.AddrPort `json:"replySource"`
	ReplyDestination netip.AddrPort `json:"replyDestination"`
}

// Flow is a connection that the node's eBPF datapath follows.
type Flow struct {
	Protocol string         `json:"protocol"` // TCP, UDP, ICMP
	Client   netip.AddrPort `json:"client"`
	// Frontend is whom the client called, and Backend whom it got; the same
	// where no service is between.
	Frontend netip.AddrPort `json:"frontend"`
	Backend  netip.AddrPort `json:"backend"`
	// Service is the frontend's id; 0 for none.
	Service uint16 `json:"service,omitempty"`
}

// PathRequest asks a FIB of the node for its decision on each query.
type PathRequest struct {
	Queries []PathQuery `json:"queries"`
}

// PathQuery is one question: where a packet goes that has these marks. With In
// it is one that came in there; otherwise one of the namespace's own.
type PathQuery struct {
	// Pod is the key of the pod whose namespace is asked; empty for the node's.
	Pod  string     `json:"pod,omitempty"`
	To   netip.Addr `json:"to"`
	From netip.Addr `json:"from,omitzero"`
	In   string     `json:"in,omitempty"`
	Out  string     `json:"out,omitempty"`
	Mark uint32     `json:"mark,omitempty"`
	// Protocol is the number of the IP protocol, or 0; with it the ports count,
	// where they are not 0.
	Protocol        int    `json:"protocol,omitempty"`
	SourcePort      uint16 `json:"sourcePort,omitempty"`
	DestinationPort uint16 `json:"destinationPort,omitempty"`
}

// PathResponse has one decision for each query, in the same order.
type PathResponse struct {
	Decisions []PathDecision `json:"decisions"`
}

// PathDecision is a [Decision], and the route that it comes from.
type PathDecision struct {
	Decision
	// To is the prefix of the route that won, and Table where it is; they are
	// absent with Error, and where the kernel does not say.
	To    netip.Prefix `json:"to,omitzero"`
	Table int          `json:"table,omitempty"`
	// Errno is the kernel's number of Error.
	Errno int `json:"errno,omitempty"`
}
