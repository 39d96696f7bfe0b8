package workload

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/topologies/topo"
)

// scheduler finds nodes and addresses for the pods of a set.
type scheduler struct {
	t     *topo.Topology
	nodes []string
	free  pool
	// running are the pods that have an address, by node.
	running map[string][]*corev1.Pod
}

// place gives each pod that has none a node and an address, in the order in
// which they came to be.
func (s *Set) place(t *topo.Topology, now time.Time) {
	c := &scheduler{t: t, nodes: t.PodNodes(), free: s.pool(now), running: map[string][]*corev1.Pod{}}
	for i := range s.Pods {
		if p := &s.Pods[i]; p.Status.PodIP != "" {
			p.Status.HostIP, p.Status.HostIPs = hostIP(t, p.Spec.NodeName)
			c.running[p.Spec.NodeName] = append(c.running[p.Spec.NodeName], p)
		}
	}
	for i := range s.Pods {
		p := &s.Pods[i]
		if p.Status.PodIP != "" {
			continue
		}
		name, address, why := c.spot(p)
		if why != "" {
			pend(p, now, why)
			continue
		}
		if p.Spec.NodeName == "" {
			p.Spec.NodeName = name
			s.Placed[keyOf(p)] = name
		}
		p.Status = corev1.PodStatus{
			Phase: corev1.PodPending, PodIP: address.String(), PodIPs: []corev1.PodIP{{IP: address.String()}},
			QOSClass:   corev1.PodQOSBestEffort,
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: timestamp(now)}},
		}
		p.Status.HostIP, p.Status.HostIPs = hostIP(t, name)
		c.free.taken[address] = true
		c.running[name] = append(c.running[name], p)
	}
}

// spot is the node and the address for a pod, or why there is none.
func (c *scheduler) spot(p *corev1.Pod) (name string, address netip.Addr, why string) {
	name = p.Spec.NodeName
	switch {
	case name == "":
		name, why = c.choose(p)
	case !slices.Contains(c.nodes, name):
		why = fmt.Sprintf("the lab has no node %s that carries pods", name)
	}
	if why != "" {
		return "", netip.Addr{}, why
	}
	node, _ := c.t.Nodes.Get(name)
	address, ok := c.free.lowest(node.PodCIDR)
	if !ok {
		why = fmt.Sprintf("node %s has no free address in %s", name, node.PodCIDR)
	}
	return name, address, why
}

// hostIP is a node's address as a pod's status has it.
func hostIP(t *topo.Topology, node string) (string, []corev1.HostIP) {
	n, _ := t.Nodes.Get(node)
	_, primary, _ := n.Primary()
	ip := primary.Address.Addr().String()
	return ip, []corev1.HostIP{{IP: ip}}
}

// pend leaves a pod waiting; the time stays the one from which it waits.
func pend(p *corev1.Pod, now time.Time, why string) {
	condition := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		Message: why, LastTransitionTime: timestamp(now),
	}
	for _, c := range p.Status.Conditions {
		if c.Type == condition.Type && c.Status == condition.Status {
			condition.LastTransitionTime = c.LastTransitionTime
		}
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort, Conditions: []corev1.PodCondition{condition}}
}

// The scheduler's words for why a node will not do.
const (
	noMatch       = "node(s) didn't match Pod's node affinity/selector"
	ownAffinity   = "node(s) didn't match pod anti-affinity rules"
	otherAffinity = "node(s) didn't satisfy existing pods anti-affinity rules"
	noAddress     = "node(s) had no free pod address"
)

// choose finds the node with the fewest pods of the same owner (of all, for a
// bare pod) among those that will do, the topology's first of several: so no
// Deployment has two pods on a node while another has none. Else it says why
// not, as the scheduler does.
func (c *scheduler) choose(p *corev1.Pod) (name, why string) {
	refused := map[string]int{}
	best, fewest := "", 0
	for _, node := range c.nodes {
		if reason := c.unfit(node, p); reason != "" {
			refused[reason]++
			continue
		}
		if count := c.alike(node, p); best == "" || count < fewest {
			best, fewest = node, count
		}
	}
	if best != "" {
		return best, ""
	}
	var reasons []string
	for _, r := range []string{noMatch, ownAffinity, otherAffinity, noAddress} {
		if n := refused[r]; n > 0 {
			reasons = append(reasons, fmt.Sprintf("%d %s", n, r))
		}
	}
	if len(c.nodes) == 0 {
		return "", "no nodes available to schedule pods"
	}
	return "", fmt.Sprintf("0/%d nodes are available: %s.", len(c.nodes), strings.Join(reasons, ", "))
}

// alike counts the pods on a node from which a new pod is to keep away.
func (c *scheduler) alike(node string, p *corev1.Pod) int {
	if len(p.OwnerReferences) == 0 {
		return len(c.running[node])
	}
	count := 0
	for _, other := range c.running[node] {
		if other.Namespace == p.Namespace && ownedBy(other.OwnerReferences, "ReplicaSet", p.OwnerReferences[0].Name) {
			count++
		}
	}
	return count
}

// unfit says why a pod cannot be on a node; empty where it can.
func (c *scheduler) unfit(name string, p *corev1.Pod) string {
	node, _ := c.t.Nodes.Get(name)
	if !labels.SelectorFromSet(p.Spec.NodeSelector).Matches(labels.Set(NodeLabels(name, node))) {
		return noMatch
	}
	for _, other := range c.running[name] {
		if avoids(p, other) {
			return ownAffinity
		}
		if avoids(other, p) {
			return otherAffinity
		}
	}
	if _, ok := c.free.lowest(node.PodCIDR); !ok {
		return noAddress
	}
	return ""
}

// avoids says whether one pod's required anti-affinity keeps the other off its node.
func avoids(p, other *corev1.Pod) bool {
	if p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
		return false
	}
	for _, term := range p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		namespaces := term.Namespaces
		if len(namespaces) == 0 {
			namespaces = []string{p.Namespace}
		}
		// A selector that cannot be read selects nothing; manifests with one are refused.
		selector, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
		if err == nil && slices.Contains(namespaces, other.Namespace) && selector.Matches(labels.Set(other.Labels)) {
			return true
		}
	}
	return false
}

// NodeLabels are the labels of a lab's node.
func NodeLabels(name string, n topo.Node) map[string]string {
	set := map[string]string{manifest.LabelHostname: name, manifest.LabelOS: "linux"}
	if n.Role == topo.RoleControlPlane {
		set[manifest.LabelControlPlane] = ""
	}
	return set
}
