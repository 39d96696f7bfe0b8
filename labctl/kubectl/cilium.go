package kubectl

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/workload"
)

// Labels that Cilium counts beside a pod's own.
const (
	labelPodNamespace  = "io.kubernetes.pod.namespace"
	labelNamespaceName = "io.cilium.k8s.namespace.labels." + corev1.LabelMetadataName
	labelCluster       = "io.cilium.k8s.policy.cluster"
	labelAccount       = "io.cilium.k8s.policy.serviceaccount"
)

// CiliumEndpoint is what a Cilium agent tells the API server of one pod, as far
// as a lab knows it: Cilium 1.18's resource of that name.
type CiliumEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Status            CiliumEndpointStatus `json:"status"`
}

// CiliumEndpointStatus is the pod in the datapath.
type CiliumEndpointStatus struct {
	// ID is the number of the endpoint on its node.
	ID         int64             `json:"id,omitempty"`
	Identity   CiliumIdentity    `json:"identity"`
	Encryption struct{}          `json:"encryption"`
	External   CiliumExternal    `json:"external-identifiers"`
	NamedPorts []CiliumNamedPort `json:"named-ports,omitempty"`
	Networking CiliumNetworking  `json:"networking"`
	State      string            `json:"state,omitempty"`
}

// CiliumIdentity is the number of a set of labels.
type CiliumIdentity struct {
	ID     int64    `json:"id"`
	Labels []string `json:"labels,omitempty"`
}

// CiliumExternal names the pod.
type CiliumExternal struct {
	Namespace string `json:"k8s-namespace"`
	Pod       string `json:"k8s-pod-name"`
	Key       string `json:"pod-name"`
}

// CiliumNamedPort is a container's port that has a name.
type CiliumNamedPort struct {
	Name     string `json:"name"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"`
}

// CiliumNetworking is where the pod is.
type CiliumNetworking struct {
	Addressing []CiliumAddress `json:"addressing"`
	// Node is the node's address.
	Node string `json:"node"`
}

// CiliumAddress is the pod's address.
type CiliumAddress struct {
	IPv4 string `json:"ipv4"`
}

// ciliumEndpoints are the pods that are in a datapath. Of a node whose agent is
// silent they stay, as in a cluster, but nobody knows their state.
func (l Lab) ciliumEndpoints(pods []*corev1.Pod) []*CiliumEndpoint {
	said := map[types.UID]api.PodStatus{}
	for _, list := range l.Pods {
		for _, s := range list {
			said[types.UID(s.UID)] = s
		}
	}
	var list []*CiliumEndpoint
	for _, p := range pods {
		s, told := said[p.UID]
		if !told && p.Status.Phase != phaseUnknown {
			continue
		}
		list = append(list, l.ciliumEndpoint(p, s))
	}
	return list
}

func (l Lab) ciliumEndpoint(p *corev1.Pod, s api.PodStatus) *CiliumEndpoint {
	e := &CiliumEndpoint{
		TypeMeta: metav1.TypeMeta{APIVersion: "cilium.io/v2", Kind: "CiliumEndpoint"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: uid("CiliumEndpoint", string(p.UID)), Generation: 1,
			CreationTimestamp: p.CreationTimestamp, Labels: maps.Clone(p.Labels),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID}},
		},
	}
	e.Status = CiliumEndpointStatus{
		ID: int64(s.Endpoint), State: endpointState(s),
		Identity:   CiliumIdentity{ID: int64(s.Identity), Labels: securityLabels(p)},
		External:   CiliumExternal{Namespace: p.Namespace, Pod: p.Name, Key: p.Namespace + "/" + p.Name},
		Networking: CiliumNetworking{Addressing: []CiliumAddress{{IPv4: p.Status.PodIP}}, Node: l.addressOf(p.Spec.NodeName)},
	}
	if s.Identity == 0 {
		e.Status.Identity.ID = int64(l.identityOf(p))
	}
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name != "" {
				e.Status.NamedPorts = append(e.Status.NamedPorts, CiliumNamedPort{port.Name, port.ContainerPort, string(port.Protocol)})
			}
		}
	}
	return e
}

// endpointState is Cilium's word for an endpoint. It speaks of the datapath, not
// of what runs in the pod.
func endpointState(s api.PodStatus) string {
	switch {
	case s.UID == "":
		return ""
	case s.Phase == api.PodTerminating:
		return "disconnecting"
	case s.Endpoint == 0 || s.Index == 0:
		return "waiting-for-identity"
	}
	return "ready"
}

// identityOf is the number of the pod's labels by what the lab keeps.
func (l Lab) identityOf(p *corev1.Pod) uint32 {
	set := countedLabels(p)
	set[labelPodNamespace] = p.Namespace
	return l.Set.Identities[strings.Join(cilium(set), ";")+";"]
}

// cilium writes labels as Cilium does.
func cilium(set map[string]string) []string {
	var list []string
	for name, value := range set {
		list = append(list, "k8s:"+name+"="+value)
	}
	slices.Sort(list)
	return list
}

// countedLabels are the pod's labels, without those that controllers put there.
func countedLabels(p *corev1.Pod) map[string]string {
	set := maps.Clone(p.Labels)
	if set == nil {
		set = map[string]string{}
	}
	for _, name := range []string{"pod-template-hash", "pod-template-generation", "controller-revision-hash"} {
		delete(set, name)
	}
	return set
}

// securityLabels are the labels of a pod's identity, as Cilium lists them.
func securityLabels(p *corev1.Pod) []string {
	account := p.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	set := countedLabels(p)
	maps.Copy(set, map[string]string{
		labelPodNamespace: p.Namespace, labelNamespaceName: p.Namespace, labelCluster: workload.ClusterName, labelAccount: account,
	})
	return cilium(set)
}
