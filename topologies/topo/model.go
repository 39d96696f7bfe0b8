// Package topo is the model of a lab: what a topology file says, checked as a
// whole. It knows nothing of how a lab is made real.
package topo

import "net/netip"

// APIVersion and Kind are the only values that a file's apiVersion and kind may have.
const (
	APIVersion = "labctl/v1"
	Kind       = "Topology"
)

// Topology is one lab, as its file describes it. [Load] returns only valid ones.
type Topology struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Metadata   Metadata     `json:"metadata"`
	Requires   Requires     `json:"requires,omitzero"`
	Networks   Map[Network] `json:"networks"`
	Nodes      Map[Node]    `json:"nodes"`
	Cluster    Cluster      `json:"cluster,omitzero"`
	Workloads  []string     `json:"workloads,omitempty"`
	Providers  Providers    `json:"providers,omitzero"`
	Stages     Map[Stage]   `json:"stages,omitempty"`
}

// Metadata names the lab. The name marks everything that the lab makes.
type Metadata struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
}

// Requires holds version constraints in go-version's syntax, such as ">= 5.10".
type Requires struct {
	Labctl  string `json:"labctl,omitempty"`
	Kernel  string `json:"kernel,omitempty"`
	Vagrant string `json:"vagrant,omitempty"`
}

// Network is one broadcast domain.
type Network struct {
	CIDR netip.Prefix `json:"cidr"`
	// MTU in bytes of every link on it; 1500 where the file is silent.
	MTU int `json:"mtu,omitempty"`
}

// Role is what a node does in the cluster.
type Role string

// The roles of a node.
const (
	RoleRouter       Role = "router"
	RoleControlPlane Role = "control-plane"
	RoleWorker       Role = "worker"
	RoleHost         Role = "host"
)

// Node is one machine of the lab.
type Node struct {
	Role       Role           `json:"role"`
	PodCIDR    netip.Prefix   `json:"podCIDR,omitzero"`
	Interfaces Map[Interface] `json:"interfaces"`
	Routes     []Route        `json:"routes,omitempty"`
	// BGP makes the node a speaker of BGP; nil where it is none.
	BGP *BGP `json:"bgp,omitempty"`
	// WebServer serves a page that names the node on port 80 of all its addresses.
	WebServer bool      `json:"webServer,omitempty"`
	Resources Resources `json:"resources,omitzero"`
}

// BGP is a node's part in BGP-4 (RFC 4271). A node with pods advertises its pod
// CIDR; what a node learns goes into its main table.
type BGP struct {
	// ASN is the number of the node's autonomous system, of four octets (RFC 6793).
	ASN uint32 `json:"asn"`
	// Neighbors are addresses of other nodes that speak BGP. A node that names
	// none waits for those that name it.
	Neighbors []netip.Addr `json:"neighbors,omitempty"`
}

// InterfaceType tells a link on a network from one that stands alone.
type InterfaceType string

// The types of an interface; ethernet where the file is silent.
const (
	Ethernet InterfaceType = "ethernet"
	Dummy    InterfaceType = "dummy"
)

// Interface is a node's interface beside eth0, which every node has (see [Uplink]).
type Interface struct {
	Type    InterfaceType `json:"type,omitempty"`
	Network string        `json:"network,omitempty"`
	Address netip.Prefix  `json:"address"`
	// MTU in bytes; the network's where the file is silent.
	MTU int `json:"mtu,omitempty"`
}

// Route is a static route. Several next hops share the traffic at equal cost.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via NextHops     `json:"via"`
}

// NextHops is one address or a list of them in the file.
type NextHops []netip.Addr

// Resources are what a VM gets; a namespace takes no notice of them.
type Resources struct {
	CPUs      int `json:"cpus,omitempty"`
	MemoryMiB int `json:"memoryMiB,omitempty"`
	// SSHPort is the host's port that is forwarded to the guest's port 22.
	SSHPort int `json:"sshPort,omitempty"`
}

// RoutingMode is how pods of different nodes reach each other.
type RoutingMode string

// The routing modes; native where the file is silent.
const (
	// RoutingNative routes pod addresses on the underlay itself.
	RoutingNative RoutingMode = "native"
	// RoutingVXLAN carries packets between pods in packets between nodes (RFC 7348).
	RoutingVXLAN RoutingMode = "vxlan"
)

// What all tunnels of a lab have in common.
const (
	// TunnelVNI is the number of the only virtual network.
	TunnelVNI = 1
	// TunnelPort is the UDP port that Linux and Cilium use; IANA's is 4789.
	TunnelPort = 8472
	// TunnelOverhead is what a packet grows by, in bytes, on its way through a
	// tunnel: headers of IPv4 (20), UDP (8), VXLAN (8) and Ethernet (14).
	TunnelOverhead = 50
)

// Cluster is what the agents of all nodes have in common.
type Cluster struct {
	PodCIDR     netip.Prefix `json:"podCIDR,omitzero"`
	ServiceCIDR netip.Prefix `json:"serviceCIDR,omitzero"`
	RoutingMode RoutingMode  `json:"routingMode,omitempty"`
	// AutoDirectNodeRoutes makes each agent route other nodes' pod CIDRs by those nodes' addresses.
	AutoDirectNodeRoutes bool `json:"autoDirectNodeRoutes,omitempty"`
	// DirectRoutingSkipUnreachable passes over nodes behind a gateway in silence instead of refusing them.
	DirectRoutingSkipUnreachable bool         `json:"directRoutingSkipUnreachable,omitempty"`
	NativeRoutingCIDR            netip.Prefix `json:"nativeRoutingCIDR,omitzero"`
	Masquerade                   bool         `json:"masquerade,omitempty"`
	KubeProxyReplacement         bool         `json:"kubeProxyReplacement,omitempty"`
	LoadBalancer                 LoadBalancer `json:"loadBalancer,omitzero"`
	MapSizes                     MapSizes     `json:"mapSizes,omitzero"`
}

// Algorithm is how a backend is chosen for a new connection.
type Algorithm string

// The algorithms.
const (
	Random Algorithm = "random"
	Maglev Algorithm = "maglev"
)

// LoadBalancer is how services are balanced.
type LoadBalancer struct {
	// Algorithm is random where the file is silent. A service may choose another
	// by the annotation service.cilium.io/lb-algorithm.
	Algorithm Algorithm `json:"algorithm,omitempty"`
}

// MapSizes are the most entries that each node's eBPF maps hold; the agent's
// own default where the file is silent.
type MapSizes struct {
	Services int `json:"services,omitempty"`
	Backends int `json:"backends,omitempty"`
	Flows    int `json:"flows,omitempty"`
	NAT      int `json:"nat,omitempty"`
	IPCache  int `json:"ipcache,omitempty"`
	Affinity int `json:"affinity,omitempty"`
}

// Providers holds what only one provider needs.
type Providers struct {
	Vagrant *Vagrant `json:"vagrant,omitempty"`
	SSH     *SSH     `json:"ssh,omitempty"`
}

// SSH is an inventory: which existing machine is which node.
type SSH struct {
	// User logs in where a machine names none of its own. He is root, or may use
	// sudo without a password.
	User string `json:"user,omitempty"`
	// Key is the file of the user's private key on the machine that labctl runs
	// on; the SSH agent is asked where the file is silent.
	Key string `json:"key,omitempty"`
	// Nodes has a machine for every node of the lab.
	Nodes Map[Machine] `json:"nodes"`
}

// Machine is one machine of an inventory.
type Machine struct {
	// Host is a name or an address.
	Host string `json:"host"`
	// Port of its SSH server; 22 where the file is silent.
	Port int    `json:"port,omitempty"`
	User string `json:"user,omitempty"`
	Key  string `json:"key,omitempty"`
	// Interfaces says which device of the machine becomes which interface of the
	// node. An interface that is not here has its name already.
	Interfaces Map[Device] `json:"interfaces,omitempty"`
}

// Device is an Ethernet address, or the name that a device has by itself.
type Device string

// Vagrant says from which box VMs are made.
type Vagrant struct {
	Box        string `json:"box"`
	BoxVersion string `json:"boxVersion,omitempty"`
	// Provider is virtualbox or libvirt.
	Provider string `json:"provider,omitempty"`
}

// Stage is a state of the lab that a student can enter: how it differs from the
// file's nodes and cluster, and which failures belong to its lesson.
type Stage struct {
	// Description says in a few words what the lab is in this stage.
	Description string `json:"description,omitempty"`
	// Teaches says in a sentence what a student learns from it.
	Teaches string         `json:"teaches,omitempty"`
	Cluster *StageCluster  `json:"cluster,omitempty"`
	Nodes   Map[StageNode] `json:"nodes,omitempty"`
	Expect  []Exception    `json:"expect,omitempty"`
}

// StageCluster is what a stage sets otherwise than the file's cluster does.
// What it does not name stays as it is.
type StageCluster struct {
	RoutingMode RoutingMode `json:"routingMode,omitempty"`
	Masquerade  *bool       `json:"masquerade,omitempty"`
}

// StageNode is how a stage changes one node: routes are added to the node's own,
// BGP stands in place of its own.
type StageNode struct {
	Routes []Route `json:"routes,omitempty"`
	BGP    *BGP    `json:"bgp,omitempty"`
}

// Result is the fate of packets that an [Exception] declares.
type Result string

// The fates: the packet vanishes on its way, or it arrives and the answer to it vanishes.
const (
	ResultLost      Result = "lost"
	ResultReplyLost Result = "reply-lost"
)

// Exception declares traffic that a stage's lesson expects to fail, and where.
type Exception struct {
	From Selector `json:"from"`
	To   Selector `json:"to"`
	// Both declares the other direction too.
	Both    bool   `json:"both,omitempty"`
	Result  Result `json:"result"`
	At      string `json:"at"`
	Leaving string `json:"leaving"`
}

// Selector picks ends of traffic: the pods of nodes, and nodes themselves.
type Selector struct {
	PodsOn []string `json:"podsOn,omitempty"`
	Nodes  []string `json:"nodes,omitempty"`
}
