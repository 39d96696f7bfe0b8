package api

import (
	"net/netip"
	"time"
)

// Cluster is what the agents of all nodes that carry pods have in common. Every
// such agent gets the same one, but for the containers of other nodes' pods.
type Cluster struct {
	// Name is the cluster's, as it stands before the names of nodes: default/k8s-ctr.
	Name        string       `json:"name"`
	ServiceCIDR netip.Prefix `json:"serviceCIDR"`
	// NativeCIDR is where pods keep their address; beyond it they are masqueraded,
	// if Masquerade is set.
	NativeCIDR netip.Prefix `json:"nativeCIDR"`
	Masquerade bool         `json:"masquerade"`
	// KubeProxyReplacement balances services in eBPF; without it nothing does.
	KubeProxyReplacement bool `json:"kubeProxyReplacement"`
	// Algorithm is random or maglev, for services that do not say.
	Algorithm string   `json:"algorithm"`
	MapSizes  MapSizes `json:"mapSizes,omitzero"`
	// DNS is the address of the cluster's name server; the zero address for none.
	DNS netip.Addr `json:"dns,omitzero"`
	// Domain is cluster.local.
	Domain string `json:"domain,omitempty"`
	// Key signs what agents tell each other, 32 bytes.
	Key      []byte    `json:"key,omitempty"`
	Nodes    []Node    `json:"nodes"`
	Pods     []Pod     `json:"pods,omitempty"`
	Services []Service `json:"services,omitempty"`
}

// MapSizes are the most entries of the datapath's maps; 0 is the default.
type MapSizes struct {
	Services int `json:"services,omitempty"`
	Backends int `json:"backends,omitempty"`
	Flows    int `json:"flows,omitempty"`
	NAT      int `json:"nat,omitempty"`
	IPCache  int `json:"ipcache,omitempty"`
	Affinity int `json:"affinity,omitempty"`
}

// Node is a node that carries pods, the agent's own among them.
type Node struct {
	Name string `json:"name"`
	// Address is the one by which other nodes reach it.
	Address      netip.Addr   `json:"address"`
	PodCIDR      netip.Prefix `json:"podCIDR"`
	Gateway      netip.Addr   `json:"gateway"`
	ControlPlane bool         `json:"controlPlane,omitempty"`
	// Addresses are all of its network interfaces, eth0's included.
	Addresses []netip.Addr `json:"addresses"`
}

// Pod is one pod of the cluster.
type Pod struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	UID       string            `json:"uid"`
	Node      string            `json:"node"`
	Address   netip.Addr        `json:"address"`
	Labels    map[string]string `json:"labels,omitempty"`
	// Identity is the number of its set of labels, the same on all nodes: 256 to 65535.
	Identity uint32 `json:"identity"`
	// Grace is how long it may take to end, and how long it stays a terminating
	// backend at most.
	Grace time.Duration `json:"grace"`
	// BackendState overrides what readiness says: active, quarantined,
	// maintenance, or empty.
	BackendState string `json:"backendState,omitempty"`
	// Spec is absent on nodes other than the pod's own.
	Spec *PodSpec `json:"spec,omitempty"`
}

// Key names a pod in its cluster: namespace/name.
func (p Pod) Key() string { return p.Namespace + "/" + p.Name }

// PodSpec is what runs in a pod.
type PodSpec struct {
	Hostname   string      `json:"hostname"`
	Containers []Container `json:"containers"`
	// Restart is Always, OnFailure or Never, as in Kubernetes.
	Restart string `json:"restart"`
	// Nameserver and Search make resolv.conf; no file of its own without the first.
	Nameserver netip.Addr `json:"nameserver,omitzero"`
	Search     []string   `json:"search,omitempty"`
}

// Container is one program of a pod.
type Container struct {
	Name string `json:"name"`
	// Image is as the manifest has it; Program is what stands in for it.
	Image   string  `json:"image"`
	Program Program `json:"program"`
	// Argv is the command with its arguments; with [ProgramWhoami] the arguments
	// of whoami alone (--port 8080). Empty: the image's own.
	Argv      []string          `json:"argv,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Dir       string            `json:"dir,omitempty"`
	Readiness *Check            `json:"readiness,omitempty"`
	Liveness  *Check            `json:"liveness,omitempty"`
}

// Program is what stands in for an image.
type Program string

// The programs.
const (
	ProgramWhoami Program = "whoami" // the built-in server that answers as traefik/whoami does
	ProgramTools  Program = "tools"  // the machine's own executables, for nicolaka/netshoot
)

// Check is a probe of a container, with Kubernetes' meaning. Exactly one of
// HTTP, TCP and Exec is set.
type Check struct {
	HTTP *HTTPCheck `json:"http,omitempty"`
	// TCP is a port.
	TCP          int           `json:"tcp,omitempty"`
	Exec         []string      `json:"exec,omitempty"`
	InitialDelay time.Duration `json:"initialDelay"`
	Period       time.Duration `json:"period"`
	Timeout      time.Duration `json:"timeout"`
	Failures     int           `json:"failures"`
	Successes    int           `json:"successes"`
}

// HTTPCheck is a GET that is answered with a status from 200 to 399.
type HTTPCheck struct {
	Port int    `json:"port"`
	Path string `json:"path"`
}

// Service is one service, with its endpoints found.
type Service struct {
	Namespace string      `json:"namespace"`
	Name      string      `json:"name"`
	Type      ServiceType `json:"type"`
	// ClusterIP is the zero address of a headless service, which only names serve.
	ClusterIP   netip.Addr    `json:"clusterIP,omitzero"`
	ExternalIPs []netip.Addr  `json:"externalIPs,omitempty"`
	Ports       []ServicePort `json:"ports"`
	// InternalLocal and ExternalLocal are the traffic policies Local; Cluster otherwise.
	InternalLocal bool `json:"internalLocal,omitempty"`
	ExternalLocal bool `json:"externalLocal,omitempty"`
	// Affinity is how long a client keeps its backend; 0 for none.
	Affinity time.Duration `json:"affinity,omitempty"`
	// Algorithm is random or maglev; empty for the cluster's.
	Algorithm string    `json:"algorithm,omitempty"`
	Backends  []Backend `json:"backends,omitempty"`
}

// Key names a service in its cluster: namespace/name.
func (s Service) Key() string { return s.Namespace + "/" + s.Name }

// ServiceType is how far a service can be reached.
type ServiceType string

// The types of service.
const (
	ClusterIP ServiceType = "ClusterIP"
	NodePort  ServiceType = "NodePort"
)

// ServicePort is one port of a service.
type ServicePort struct {
	Name string `json:"name,omitempty"`
	// Protocol is TCP or UDP.
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	NodePort uint16 `json:"nodePort,omitempty"`
}

// Backend is an IPv4 address that serves a service, with a port for each
// port of the service.
type Backend struct {
	Address netip.Addr `json:"address"`
	Node    string     `json:"node"`
	// Pod is the key of the pod behind it; empty for one that is not a pod.
	Pod string `json:"pod,omitempty"`
	// Ports are in the order of the service's; 0 where this endpoint lacks it.
	Ports []uint16 `json:"ports"`
}
