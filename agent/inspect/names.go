//go:build linux

package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/native-routing/labctl/agent/api"
)

// stateFile is what the agent keeps its desired state in.
const stateFile = "desired.json"

// Identities with a meaning of their own. From the first local one on they
// stand for sets of labels.
const (
	identityHost       = 1
	identityRemoteNode = 6
	identityAPIServer  = 7
	identityMinLocal   = 256
)

// reserved are Cilium's names of identities below 256.
var reserved = [...]string{
	"unknown", "host", "world", "unmanaged", "health", "init", "remote-node", "kube-apiserver", "ingress",
}

// Names are what the maps have only numbers for. The zero value knows none but
// the reserved identities.
type Names struct {
	// State is what the agent was told last.
	State  api.State
	labels map[uint32][]string
	pods   map[netip.Addr]api.Pod
}

// ReadNames reads the agent's desired state in dataDir. Where there is none, the
// names are just not known.
func ReadNames(dataDir string) (*Names, error) {
	path := filepath.Join(dataDir, stateFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return NewNames(api.State{}), nil
	}
	if err != nil {
		return nil, err
	}
	var state api.State
	if err := json.Unmarshal(raw, &state); err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	return NewNames(state), nil
}

// NewNames are the names that a state has.
func NewNames(state api.State) *Names {
	n := &Names{State: state, labels: make(map[uint32][]string), pods: make(map[netip.Addr]api.Pod)}
	if state.Cluster == nil {
		return n
	}
	for _, pod := range state.Cluster.Pods {
		n.pods[pod.Address] = pod
		if n.labels[pod.Identity] == nil {
			n.labels[pod.Identity] = podLabels(pod, state.Cluster.Name)
		}
	}
	return n
}

// podLabels are a pod's labels and those that Cilium adds to every pod's. All
// pods of a lab run as the service account default.
func podLabels(pod api.Pod, cluster string) []string {
	all := map[string]string{
		"io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": pod.Namespace,
		"io.cilium.k8s.policy.cluster":                               cluster,
		"io.cilium.k8s.policy.serviceaccount":                        "default",
		"io.kubernetes.pod.namespace":                                pod.Namespace,
	}
	for key, value := range pod.Labels {
		all[key] = value
	}
	labels := make([]string, 0, len(all))
	for key, value := range all {
		label := "k8s:" + key
		if value != "" {
			label += "=" + value
		}
		labels = append(labels, label)
	}
	slices.Sort(labels)
	return labels
}

// Labels are what an identity stands for, sorted; nil where that is not known.
func (n *Names) Labels(identity uint32) []string {
	switch {
	case identity == identityAPIServer:
		return []string{"reserved:kube-apiserver", "reserved:remote-node"}
	case identity != 0 && int(identity) < len(reserved):
		return []string{"reserved:" + reserved[identity]}
	default:
		return n.labels[identity]
	}
}

// ReservedName is the name of an identity below 256, as in world; empty for others.
func ReservedName(identity uint32) string {
	if int(identity) < len(reserved) {
		return reserved[identity]
	}
	return ""
}

// Source is where the knowledge of an address comes from, in Cilium's words.
func (n *Names) Source(a Address) string {
	switch {
	case a.Identity == identityHost:
		return "local"
	case a.Identity == identityAPIServer:
		return "kube-apiserver"
	case a.Identity == identityRemoteNode, a.Identity >= identityMinLocal, !a.Node.IsUnspecified():
		return "custom-resource"
	default:
		return ""
	}
}

// Host is the address of the node that an address is on; invalid for none.
func (n *Names) Host(a Address) netip.Addr {
	if a.Node.IsValid() && !a.Node.IsUnspecified() {
		return a.Node
	}
	if a.Identity >= identityMinLocal {
		return n.Self().Address
	}
	return netip.Addr{}
}

// Self is the node that the agent holds; the zero node where that is not known.
func (n *Names) Self() api.Node {
	if n.State.Cluster == nil {
		return api.Node{}
	}
	for _, node := range n.State.Cluster.Nodes {
		if node.Name == n.State.Node {
			return node
		}
	}
	return api.Node{}
}

// Pod is the key of the pod with an address; empty for none.
func (n *Names) Pod(addr netip.Addr) string {
	if pod, ok := n.pods[addr]; ok {
		return pod.Key()
	}
	return ""
}

// Services are the keys of the services that frontends belong to, by the id of
// the frontend.
func (n *Names) Services(frontends []Frontend) map[uint16]string {
	names := make(map[uint16]string)
	if n.State.Cluster == nil {
		return names
	}
	type port struct {
		addr     netip.Addr
		port     uint16
		protocol string
	}
	byAddress := make(map[port]string)
	byNodePort := make(map[port]string)
	for _, service := range n.State.Cluster.Services {
		for _, p := range service.Ports {
			for _, addr := range append(slices.Clone(service.ExternalIPs), service.ClusterIP) {
				byAddress[port{addr, p.Port, p.Protocol}] = service.Key()
			}
			if p.NodePort != 0 {
				byNodePort[port{netip.Addr{}, p.NodePort, p.Protocol}] = service.Key()
			}
		}
	}
	for _, f := range frontends {
		at := port{f.Address.Addr(), f.Address.Port(), f.Protocol}
		if name, ok := byAddress[at]; ok {
			names[f.ID] = name
		} else if name, ok := byNodePort[port{netip.Addr{}, at.port, at.protocol}]; ok {
			names[f.ID] = name
		}
	}
	return names
}
