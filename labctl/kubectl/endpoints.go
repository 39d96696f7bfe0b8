package kubectl

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Endpoints is the older list of a service's endpoints. Kubernetes keeps it
// beside EndpointSlices, and so does what people type.
//
//lint:ignore SA1019 labctl get ep shows it, as kubectl does.
type Endpoints = corev1.Endpoints

// Slices hold as many endpoints as Kubernetes' controller puts into one.
const endpointsPerSlice = 100

// member is one address that serves a service.
type member struct {
	address netip.Addr
	node    string
	pod     *corev1.Pod // nil for the name server, which is no pod
	ports   []corev1.ServicePort
	serving bool
	ending  bool
}

// members are what serves a service, by address. False for a service without a
// selector, whose endpoints nobody looks after.
func (l Lab) members(v *corev1.Service, pods []*corev1.Pod) ([]member, bool) {
	if dns := l.nameServers(v); dns != nil {
		return dns, true
	}
	if len(v.Spec.Selector) == 0 {
		return nil, false
	}
	selector := labels.SelectorFromSet(v.Spec.Selector)
	var members []member
	for _, p := range pods {
		address, err := netip.ParseAddr(p.Status.PodIP)
		ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		if err != nil || ended || p.Namespace != v.Namespace || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		m := member{address: address, node: p.Spec.NodeName, pod: p, serving: isReady(p), ending: p.DeletionTimestamp != nil}
		for _, port := range v.Spec.Ports {
			if number, ok := targetPort(p, port); ok {
				port.Port = number
				m.ports = append(m.ports, port)
			}
		}
		if len(m.ports) > 0 || len(v.Spec.Ports) == 0 {
			members = append(members, m)
		}
	}
	slices.SortStableFunc(members, func(a, b member) int { return a.address.Compare(b.address) })
	return members, true
}

// nameServers are the agents, which answer on the gateways of their pods.
func (l Lab) nameServers(v *corev1.Service) []member {
	if v.UID != uid("Service", v.Namespace, v.Name) {
		return nil // somebody applied it
	}
	var members []member
	for name, n := range l.Topology.Nodes.All() {
		gateway, carries := n.PodGateway()
		if _, _, wired := n.Primary(); carries && wired {
			members = append(members, member{address: gateway, node: name, ports: v.Spec.Ports, serving: l.answers(name)})
		}
	}
	return members
}

// targetPort is the number of a service's port on a pod.
func targetPort(p *corev1.Pod, port corev1.ServicePort) (int32, bool) {
	if port.TargetPort.Type == intstr.Int {
		return port.TargetPort.IntVal, true
	}
	for _, c := range p.Spec.Containers {
		for _, own := range c.Ports {
			if own.Name == port.TargetPort.StrVal && own.Protocol == port.Protocol {
				return own.ContainerPort, true
			}
		}
	}
	return 0, false
}

// byPorts groups members that serve with the same ports, in the order of their keys.
func byPorts(members []member) [][]member {
	groups := map[string][]member{}
	for _, m := range members {
		key := portsKey(m.ports)
		groups[key] = append(groups[key], m)
	}
	var list [][]member
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		list = append(list, groups[key])
	}
	return list
}

func portsKey(ports []corev1.ServicePort) string {
	var b strings.Builder
	for _, p := range ports {
		b.WriteString(p.Name + ":" + portText(p) + ";")
	}
	return b.String()
}

// targetRef names the pod behind a member.
func (m member) targetRef() *corev1.ObjectReference {
	if m.pod == nil {
		return nil
	}
	return &corev1.ObjectReference{Kind: "Pod", Namespace: m.pod.Namespace, Name: m.pod.Name, UID: m.pod.UID}
}

// endpointsOf are the members that are not ending. Its addresses are in the order
// of their text, as Kubernetes puts them.
func endpointsOf(v *corev1.Service, members []member) *Endpoints {
	e := &Endpoints{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Endpoints"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v.Namespace, Name: v.Name, UID: uid("Endpoints", string(v.UID)), CreationTimestamp: v.CreationTimestamp,
			Labels: serviceLabels(v, map[string]string{"endpoints.kubernetes.io/managed-by": "endpoint-controller"}),
		},
	}
	members = slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.ending })
	slices.SortStableFunc(members, func(a, b member) int { return cmp.Compare(a.address.String(), b.address.String()) })
	for _, group := range byPorts(members) {
		//lint:ignore SA1019 a part of Endpoints.
		var subset corev1.EndpointSubset
		for _, p := range group[0].ports {
			subset.Ports = append(subset.Ports, corev1.EndpointPort{Name: p.Name, Port: p.Port, Protocol: p.Protocol, AppProtocol: p.AppProtocol})
		}
		for _, m := range group {
			address := corev1.EndpointAddress{IP: m.address.String(), NodeName: &m.node, TargetRef: m.targetRef()}
			if m.serving {
				subset.Addresses = append(subset.Addresses, address)
			} else {
				subset.NotReadyAddresses = append(subset.NotReadyAddresses, address)
			}
		}
		e.Subsets = append(e.Subsets, subset)
	}
	return e
}

// slicesOf are all members, a slice for each set of ports, and an empty one
// where there are no members.
func slicesOf(v *corev1.Service, members []member) []*discoveryv1.EndpointSlice {
	groups := byPorts(members)
	if len(groups) == 0 {
		return []*discoveryv1.EndpointSlice{sliceOf(v, nil, "0")}
	}
	var list []*discoveryv1.EndpointSlice
	for _, group := range groups {
		for start := 0; start < len(group); start += endpointsPerSlice {
			chunk := group[start:min(start+endpointsPerSlice, len(group))]
			list = append(list, sliceOf(v, chunk, strconv.Itoa(start)))
		}
	}
	return list
}

func sliceOf(v *corev1.Service, members []member, part string) *discoveryv1.EndpointSlice {
	var ports []corev1.ServicePort
	if len(members) > 0 {
		ports = members[0].ports
	}
	yes := true
	e := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v.Namespace, Name: v.Name + "-" + suffix(string(v.UID), portsKey(ports), part), GenerateName: v.Name + "-",
			UID: uid("EndpointSlice", string(v.UID), portsKey(ports), part), CreationTimestamp: v.CreationTimestamp,
			Labels: serviceLabels(v, map[string]string{
				discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io", discoveryv1.LabelServiceName: v.Name,
			}),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: v.Name, UID: v.UID, Controller: &yes, BlockOwnerDeletion: &yes}},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{},
	}
	for _, p := range ports {
		e.Ports = append(e.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
	}
	for _, m := range members {
		ready := m.serving && !m.ending
		e.Endpoints = append(e.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{m.address.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &m.serving, Terminating: &m.ending},
			NodeName:   &m.node, TargetRef: m.targetRef(),
		})
	}
	return e
}

// serviceLabels are the service's own and those that controllers add.
func serviceLabels(v *corev1.Service, added map[string]string) map[string]string {
	set := maps.Clone(v.Labels)
	if set == nil {
		set = map[string]string{}
	}
	maps.Copy(set, added)
	if v.Spec.ClusterIP == corev1.ClusterIPNone {
		set[corev1.IsHeadlessService] = ""
	}
	return set
}

// suffix is five letters of the alphabet in which Kubernetes makes names up.
func suffix(texts ...string) string {
	const safe = "bcdfghjklmnpqrstvwxz2456789"
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	var b strings.Builder
	for _, c := range sum[:5] {
		b.WriteByte(safe[int(c)%len(safe)])
	}
	return b.String()
}
