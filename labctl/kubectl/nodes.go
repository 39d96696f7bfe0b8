package kubectl

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies/topo"
)

// nodes are those that carry pods: a router is no node of the cluster.
func (l Lab) nodes() []*corev1.Node {
	var list []*corev1.Node
	for name, n := range l.Topology.Nodes.All() {
		if n.PodCIDR.IsValid() {
			list = append(list, l.node(name, n))
		}
	}
	return list
}

func (l Lab) node(name string, n topo.Node) *corev1.Node {
	node := &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: uid("Node", name), CreationTimestamp: l.born(), Labels: workload.NodeLabels(name, n),
		},
		Spec: corev1.NodeSpec{PodCIDR: n.PodCIDR.String(), PodCIDRs: []string{n.PodCIDR.String()}},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{l.readiness(name)},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion: l.Version, ContainerRuntimeVersion: "labctl://" + l.Version, OperatingSystem: "linux",
			},
		},
	}
	if address := l.addressOf(name); address != "" {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
	}
	node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: name})
	return node
}

// addressOf is the address by which other nodes reach this one.
func (l Lab) addressOf(name string) string {
	n, _ := l.Topology.Nodes.Get(name)
	_, primary, wired := n.Primary()
	if !wired {
		return ""
	}
	return primary.Address.Addr().String()
}

// readiness is what the control plane knows of a node: whether its agent answers.
func (l Lab) readiness(name string) corev1.NodeCondition {
	c := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown",
		Message: "the agent was not asked", LastTransitionTime: l.born(),
	}
	if err := l.Silent[name]; err != nil {
		c.Message, c.LastTransitionTime = err.Error(), timestamp(l.Now)
	} else if l.answers(name) {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "AgentReady", "the agent answers"
		c.LastHeartbeatTime = timestamp(l.Now)
	}
	return c
}

func (l Lab) answers(node string) bool {
	_, told := l.Pods[node]
	return told && l.Silent[node] == nil
}

// namespaces are those of every cluster, and the lab's own.
func (l Lab) namespaces() []*corev1.Namespace {
	var list []*corev1.Namespace
	for _, name := range []string{
		corev1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease,
	} {
		list = append(list, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: uid("Namespace", name), CreationTimestamp: l.born(),
		}})
	}
	for i := range l.Set.Namespaces {
		list = append(list, l.Set.Namespaces[i].DeepCopy())
	}
	for _, n := range list {
		n.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}
		n.Labels = maps.Clone(n.Labels)
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels[corev1.LabelMetadataName] = n.Name
		n.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
		n.Status.Phase = corev1.NamespaceActive
	}
	return list
}
