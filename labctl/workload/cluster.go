package workload

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/topologies/topo"
)

// The names of the lab's cluster, as in Cilium's and Kubernetes' defaults.
const (
	ClusterName = "default"
	Domain      = "cluster.local"

	dnsNamespace = metav1.NamespaceSystem
	dnsName      = "kube-dns"
	dnsPort      = 53
)

// Cluster compiles the set to what the agents of all nodes that carry pods hold:
// nodes in the topology's order, pods and services by namespace and name, the
// name server's service among them. Pods without an address are left out. A
// topology on which no node carries pods gives the zero Cluster.
func (s Set) Cluster(t *topo.Topology, uplinks topo.Uplinks) (api.Cluster, error) {
	nodes := nodesOf(t, uplinks)
	if len(nodes) == 0 {
		return api.Cluster{}, nil
	}
	c := api.Cluster{
		Name: ClusterName, ServiceCIDR: t.Cluster.ServiceCIDR, NativeCIDR: nativeCIDR(t),
		Masquerade: t.Cluster.Masquerade, KubeProxyReplacement: t.Cluster.KubeProxyReplacement,
		Algorithm: cmp.Or(string(t.Cluster.LoadBalancer.Algorithm), string(topo.Random)),
		MapSizes:  api.MapSizes(t.Cluster.MapSizes),
		DNS:       DNSAddress(t), Domain: Domain, Key: slices.Clone(s.Key), Nodes: nodes,
	}
	for i := range s.Pods {
		if p := &s.Pods[i]; p.Status.PodIP != "" {
			compiled, err := s.pod(p, c.DNS)
			if err != nil {
				return api.Cluster{}, fmt.Errorf("compile Pod %s: %w", keyOf(p), err)
			}
			c.Pods = append(c.Pods, compiled)
		}
	}
	services := slices.Clone(s.Services)
	if dns, ok := DNSService(t); ok {
		services = append(services, dns)
	}
	for i := range services {
		v, err := s.service(&services[i], nodes)
		if err != nil {
			return api.Cluster{}, fmt.Errorf("compile Service %s: %w", keyOf(&services[i]), err)
		}
		c.Services = append(c.Services, v)
	}
	slices.SortFunc(c.Pods, func(a, b api.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(c.Services, func(a, b api.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return c, nil
}

// ForNode is the cluster as one node's agent gets it: without what runs in the
// pods of other nodes.
func ForNode(c api.Cluster, node string) api.Cluster {
	c.Pods = slices.Clone(c.Pods)
	for i := range c.Pods {
		if c.Pods[i].Node != node {
			c.Pods[i].Spec = nil
		}
	}
	return c
}

func nodesOf(t *topo.Topology, uplinks topo.Uplinks) []api.Node {
	var nodes []api.Node
	for name, n := range t.Nodes.All() {
		gateway, carries := n.PodGateway()
		_, primary, wired := n.Primary()
		if !carries || !wired {
			continue
		}
		node := api.Node{
			Name: name, Address: primary.Address.Addr(), PodCIDR: n.PodCIDR, Gateway: gateway,
			ControlPlane: n.Role == topo.RoleControlPlane,
			Addresses:    []netip.Addr{uplinks.Of(name).Address.Addr()},
		}
		for _, iface := range n.Interfaces.All() {
			if iface.Type != topo.Dummy {
				node.Addresses = append(node.Addresses, iface.Address.Addr())
			}
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// DNSService is the service of the lab's name server, which every cluster has
// and nobody applies. False where the lab has no address for it.
func DNSService(t *topo.Topology) (corev1.Service, bool) {
	address := DNSAddress(t)
	if !address.IsValid() || len(t.PodNodes()) == 0 {
		return corev1.Service{}, false
	}
	local := corev1.ServiceInternalTrafficPolicyLocal
	v := corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: dnsNamespace, Name: dnsName, Labels: map[string]string{"k8s-app": dnsName, "kubernetes.io/name": "CoreDNS"}},
		Spec: corev1.ServiceSpec{
			Ports: []corev1.ServicePort{
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: dnsPort, TargetPort: intstr.FromInt32(dnsPort)},
				{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: dnsPort, TargetPort: intstr.FromInt32(dnsPort)},
			},
			ClusterIP: address.String(), InternalTrafficPolicy: &local,
		},
	}
	defaultService(&v)
	v.Spec.ClusterIPs = []string{v.Spec.ClusterIP}
	return v, true
}

func (s Set) service(v *corev1.Service, nodes []api.Node) (api.Service, error) {
	c := api.Service{
		Namespace: v.Namespace, Name: v.Name, Type: api.ServiceType(v.Spec.Type), Ports: []api.ServicePort{},
		InternalLocal: v.Spec.InternalTrafficPolicy != nil && *v.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		ExternalLocal: v.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		Algorithm:     v.Annotations[manifest.AnnotationAlgorithm],
	}
	var err error
	if v.Spec.ClusterIP != corev1.ClusterIPNone {
		if c.ClusterIP, err = netip.ParseAddr(v.Spec.ClusterIP); err != nil {
			return c, err
		}
	}
	for _, text := range v.Spec.ExternalIPs {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return c, err
		}
		c.ExternalIPs = append(c.ExternalIPs, a)
	}
	for _, p := range v.Spec.Ports {
		port := api.ServicePort{Name: p.Name, Protocol: string(p.Protocol), Port: uint16(p.Port)}
		if c.Type == api.NodePort {
			port.NodePort = uint16(p.NodePort)
		}
		c.Ports = append(c.Ports, port)
	}
	if v.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		c.Affinity = time.Duration(*v.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds) * time.Second
	}
	if v.Namespace == dnsNamespace && v.Name == dnsName {
		c.Backends = nameServers(nodes, len(c.Ports))
		return c, nil
	}
	c.Backends, err = s.backends(v, nodes)
	return c, err
}

// nameServers: every node's agent answers on the gateway of its pods.
func nameServers(nodes []api.Node, ports int) []api.Backend {
	var backends []api.Backend
	for _, n := range nodes {
		backends = append(backends, api.Backend{Address: n.Gateway, Node: n.Name, Ports: slices.Repeat([]uint16{dnsPort}, ports)})
	}
	return backends
}

// backends are the pods that the service selects and that have one of its ports,
// by the order of nodes, then by address.
func (s Set) backends(v *corev1.Service, nodes []api.Node) ([]api.Backend, error) {
	if len(v.Spec.Selector) == 0 {
		return nil, nil
	}
	selector := labels.SelectorFromSet(v.Spec.Selector)
	order := make(map[string]int, len(nodes))
	for i, n := range nodes {
		order[n.Name] = i
	}
	var backends []api.Backend
	for i := range s.Pods {
		p := &s.Pods[i]
		if p.Status.PodIP == "" || p.Namespace != v.Namespace || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		address, err := netip.ParseAddr(p.Status.PodIP)
		if err != nil {
			return nil, fmt.Errorf("address of Pod %s: %w", keyOf(p), err)
		}
		b := api.Backend{Address: address, Node: p.Spec.NodeName, Pod: keyOf(p), Ports: make([]uint16, len(v.Spec.Ports))}
		serves := len(v.Spec.Ports) == 0 // a headless service may have names only
		for j, port := range v.Spec.Ports {
			var ok bool
			b.Ports[j], ok = portOf(p.Spec.Containers, port.TargetPort, port.Protocol)
			serves = serves || ok
		}
		if serves {
			backends = append(backends, b)
		}
	}
	slices.SortFunc(backends, func(a, b api.Backend) int {
		return cmp.Or(cmp.Compare(order[a.Node], order[b.Node]), a.Address.Compare(b.Address))
	})
	return backends, nil
}

// nativeCIDR is where pods keep their address. What the file need not say, with
// a tunnel between pods, is that this is where the pods are.
func nativeCIDR(t *topo.Topology) netip.Prefix {
	if t.Cluster.NativeRoutingCIDR.IsValid() {
		return t.Cluster.NativeRoutingCIDR
	}
	return t.Cluster.PodCIDR
}
