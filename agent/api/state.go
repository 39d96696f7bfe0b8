package api

import "net/netip"

// Version says which agent answers.
type Version struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
}

// State is all that one node's agent is to hold. A new one replaces the last.
type State struct {
	// Generation is any text that names this state; Status gives it back.
	Generation string `json:"generation"`
	Lab        string `json:"lab"`
	Node       string `json:"node"`
	// Pods is absent on a node that carries no pods, such as a router.
	Pods *PodNetwork `json:"pods,omitempty"`
	// Sysctls are written when the state arrives and when the agent starts, in
	// this order. One that somebody changes later is reported, not mended: a
	// student must be able to break the lab.
	Sysctls []Sysctl `json:"sysctls,omitempty"`
	// Underlay is what the lab gave the node. The agent watches it and reports what differs.
	Underlay Underlay `json:"underlay"`
	// Cluster is absent on a node that carries no pods.
	Cluster *Cluster `json:"cluster,omitempty"`
	// BGP is absent on a node that speaks none.
	BGP *BGP `json:"bgp,omitempty"`
	// Page is served over HTTP on port 80 of all the node's addresses; nothing is
	// where it is empty.
	Page string `json:"page,omitempty"`
}

// PodNetwork is the node's part in native routing.
type PodNetwork struct {
	CIDR    netip.Prefix `json:"cidr"`
	Gateway netip.Addr   `json:"gateway"`
	// MTU in bytes of the pod gateway's device and of the pods' own.
	MTU int `json:"mtu"`
	// DirectRoutes asks for a route to each peer's pod CIDR. A tunnel has none.
	DirectRoutes    bool   `json:"directRoutes"`
	SkipUnreachable bool   `json:"skipUnreachable"`
	Peers           []Peer `json:"peers,omitempty"`
	// Overlay carries the packets to all peers' pods through a tunnel; nil where
	// they are routed natively.
	Overlay *Overlay `json:"overlay,omitempty"`
}

// Overlay is a tunnel between all nodes that carry pods: VXLAN (RFC 7348), of
// which every node knows by the state where the others are.
type Overlay struct {
	// VNI is the number of the virtual network, 24 bits.
	VNI uint32 `json:"vni"`
	// Port is the UDP port of all nodes.
	Port uint16 `json:"port"`
	// Local is the node's own address, the source of what it sends.
	Local netip.Addr `json:"local"`
	// MTU in bytes of the tunnel's device and of the routes by it: what is left of
	// the underlay's.
	MTU int `json:"mtu"`
}

// Peer is another node that carries pods. Gateway is that of its pods, by which
// the tunnel's routes lead; native routing needs none.
type Peer struct {
	Name    string       `json:"name"`
	Address netip.Addr   `json:"address"`
	CIDR    netip.Prefix `json:"cidr"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// Sysctl is a file under /proc/sys, its name with slashes (net/ipv4/ip_forward).
type Sysctl struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Underlay is the node's network as the lab made it.
type Underlay struct {
	// Uplink names the link that leads out of the lab.
	Uplink string          `json:"uplink,omitempty"`
	Links  []UnderlayLink  `json:"links,omitempty"`
	Routes []UnderlayRoute `json:"routes,omitempty"`
}

// UnderlayLink is an interface that must be up, with this MTU and these addresses.
type UnderlayLink struct {
	Name      string         `json:"name"`
	MTU       int            `json:"mtu"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// UnderlayRoute is a route that must be there.
type UnderlayRoute struct {
	To netip.Prefix `json:"to"`
	// Via is empty for what Device reaches by itself.
	Via    []netip.Addr `json:"via,omitempty"`
	Device string       `json:"device,omitempty"`
	Metric int          `json:"metric,omitempty"`
	// Static means that the lab made it (proto static), with nothing but its next
	// hops; of another its maker may have set more.
	Static bool `json:"static,omitempty"`
}

// Applied answers a new state: it is on disk, and the agent works on it.
type Applied struct {
	Generation string `json:"generation"`
	// Changed is false where the agent held that very state already.
	Changed bool `json:"changed"`
}

// Status is what the agent holds, object by object.
type Status struct {
	Version    Version `json:"version"`
	Node       string  `json:"node"`
	Generation string  `json:"generation"`
	// Settled means that every object of the generation was looked at since it
	// arrived, and none is pending or failed.
	Settled bool     `json:"settled"`
	Objects []Object `json:"objects"`
	// Datapath is absent where none is loaded.
	Datapath *Datapath `json:"datapath,omitempty"`
	// BGP is absent where the node speaks none.
	BGP *BGPStatus `json:"bgp,omitempty"`
}

// Datapath is how the node's eBPF programs are attached.
type Datapath struct {
	// Attach is tcx or clsact.
	Attach string `json:"attach"`
	// Devices are the network devices that bear programs, pods' excepted.
	Devices []string `json:"devices"`
	// SocketLB says whether sockets are balanced at connect.
	SocketLB bool `json:"socketLB"`
	// Missing names what this kernel lacks, and what that means.
	Missing []string `json:"missing,omitempty"`
}

// Condition is how one object stands.
type Condition string

// The conditions of an object.
const (
	InPlace Condition = "in place"
	Refused Condition = "refused" // will not be made, and Reason says why
	Skipped Condition = "skipped" // would be refused, and the topology says to pass over it
	Drifted Condition = "drifted" // not as the lab made it, and not the agent's to mend
	Failed  Condition = "failed"  // the kernel refused; the agent tries again
	Pending Condition = "pending" // not looked at yet
)

// Object is one thing that an agent holds or watches.
type Object struct {
	// Kind is link, address, route, rule, neighbour, qdisc, firewall, sysctl, pod,
	// program, map, service, dns, bgp or page.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Owner is agent for what the agent mends, lab for what it only watches.
	Owner     string    `json:"owner"`
	Condition Condition `json:"condition"`
	Reason    string    `json:"reason,omitempty"`
	// Cure is the command on the node that takes away what a hand added; empty
	// where that is not what is wrong. Its words are parted by single blanks.
	Cure string `json:"cure,omitempty"`
	// Mended counts how often the agent put it back.
	Mended int `json:"mended,omitempty"`
}

// The owners of an object.
const (
	OwnerAgent = "agent"
	OwnerLab   = "lab"
)
