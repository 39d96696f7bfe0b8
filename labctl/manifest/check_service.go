package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The range of node ports, Kubernetes' default.
const (
	FirstNodePort = 30000
	LastNodePort  = 32767
)

func (d *decoder) service(o *corev1.Service) {
	d.metadata("metadata", o.ObjectMeta, validation.IsDNS1035Label)
	if algorithm, ok := o.Annotations[AnnotationAlgorithm]; ok {
		d.oneOf(key("metadata.annotations", AnnotationAlgorithm), algorithm, "random", "maglev")
	}
	if _, ok := d.marks["spec"]; !ok {
		d.missing("", "spec", "add it, with selector and ports")
		return
	}
	s := o.Spec
	d.serviceType(s)
	d.labels("spec.selector", s.Selector)
	if len(s.Selector) == 0 && !d.holdsNoted["spec.selector"] && !d.misspelt["spec"] {
		d.notice("spec", "without a selector it has no backends: the lab honours no Endpoints")
	}
	d.clusterIP(s)
	d.externalIPs(s)
	d.policies(s)
	d.servicePorts(s)
}

func (d *decoder) serviceType(s corev1.ServiceSpec) {
	switch s.Type {
	case corev1.ServiceTypeLoadBalancer:
		d.wrong("spec.type", "the lab has no load balancers to give it an address", "write NodePort, or ClusterIP with externalIPs")
	case corev1.ServiceTypeExternalName:
		d.wrong("spec.type", "the lab resolves no names outside of it", "write ClusterIP or NodePort")
	default:
		d.oneOf("spec.type", string(s.Type), "ClusterIP", "NodePort")
	}
	for i, family := range s.IPFamilies {
		if family != corev1.IPv4Protocol {
			d.wrong(index("spec.ipFamilies", i), show(string(family))+" is not honoured: labs are IPv4 only", "write IPv4")
		}
	}
	if s.IPFamilyPolicy != nil {
		p := "spec.ipFamilyPolicy"
		d.oneOf(p, string(*s.IPFamilyPolicy), "SingleStack", "PreferDualStack", "RequireDualStack")
		if *s.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
			d.wrong(p, "labs are IPv4 only", "write SingleStack")
		}
	}
}

func (d *decoder) clusterIP(s corev1.ServiceSpec) {
	p, address := "spec.clusterIP", s.ClusterIP
	if len(s.ClusterIPs) > 0 {
		switch {
		case len(s.ClusterIPs) > 1:
			d.wrong("spec.clusterIPs", "labs are IPv4 only, and one address is enough", "keep one")
		case address == "":
			p, address = "spec.clusterIPs[0]", s.ClusterIPs[0]
		case address != s.ClusterIPs[0]:
			d.wrong("spec.clusterIPs[0]", show(s.ClusterIPs[0])+" is not the clusterIP "+show(address), "keep one of the two")
		}
	}
	switch {
	case address == "":
	case address != corev1.ClusterIPNone:
		d.ipv4(p, address)
	case s.Type == corev1.ServiceTypeNodePort:
		d.wrong(p, "a headless service has no node ports", "take it out, or write type: ClusterIP")
	}
}

func (d *decoder) ipv4(p, text string) netip.Addr {
	address, err := netip.ParseAddr(text)
	switch {
	case d.holdsNoted[p]:
	case err != nil:
		d.wrong(p, show(text)+" is no address", "write it like 10.96.0.80")
	case !address.Is4():
		d.wrong(p, show(text)+" is not honoured: labs are IPv4 only", "write it like 10.96.0.80")
	}
	return address
}

func (d *decoder) externalIPs(s corev1.ServiceSpec) {
	seen := map[string]string{}
	for i, text := range s.ExternalIPs {
		p := index("spec.externalIPs", i)
		a := d.ipv4(p, text)
		if a.IsValid() && (a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast()) {
			d.wrong(p, show(text)+" cannot be a service's", "write an address that clients route to a node")
		}
		d.twice(p, text, seen)
	}
}

func (d *decoder) policies(s corev1.ServiceSpec) {
	d.oneOf("spec.sessionAffinity", string(s.SessionAffinity), "None", "ClientIP")
	if c := s.SessionAffinityConfig; c != nil && c.ClientIP != nil {
		p := "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
		switch t := c.ClientIP.TimeoutSeconds; {
		case s.SessionAffinity != corev1.ServiceAffinityClientIP:
			d.wrong("spec.sessionAffinityConfig", "it means nothing without sessionAffinity: ClientIP", "add that, or take it out")
		case t != nil && (*t < 1 || *t > 86400) && !d.holdsNoted[p]:
			d.wrong(p, fmt.Sprintf("%d is not allowed", *t), "write a number of seconds from 1 to 86400")
		}
	}
	if s.InternalTrafficPolicy != nil {
		d.oneOf("spec.internalTrafficPolicy", string(*s.InternalTrafficPolicy), "Cluster", "Local")
	}
	p := "spec.externalTrafficPolicy"
	d.oneOf(p, string(s.ExternalTrafficPolicy), "Cluster", "Local")
	if s.ExternalTrafficPolicy != "" && !d.holdsNoted[p] && len(s.ExternalIPs) == 0 && (s.Type == "" || s.Type == corev1.ServiceTypeClusterIP) {
		d.wrong(p, "nothing outside the cluster reaches a ClusterIP", "write type: NodePort, or add externalIPs, or take it out")
	}
}

func (d *decoder) servicePorts(s corev1.ServiceSpec) {
	headless := s.ClusterIP == corev1.ClusterIPNone || slices.Contains(s.ClusterIPs, corev1.ClusterIPNone)
	if len(s.Ports) == 0 && !headless {
		d.missing("spec", "ports", "add a list with a port")
	}
	names, numbers, nodePorts := map[string]string{}, map[string]string{}, map[string]string{}
	for i, port := range s.Ports {
		if d.full() {
			return
		}
		p := index("spec.ports", i)
		protocol := port.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		d.protocol(key(p, "protocol"), port.Protocol)
		switch {
		case port.Name != "":
			d.flawed(key(p, "name"), port.Name, validation.IsDNS1123Label(port.Name))
			d.twice(key(p, "name"), port.Name, names)
		case len(s.Ports) > 1:
			d.missing(p, "name", "name each port where there are several")
		}
		if _, ok := d.marks[key(p, "port")]; !ok {
			d.missing(p, "port", "add it")
		} else {
			d.portNumber(key(p, "port"), int(port.Port))
			d.twice(key(p, "port"), fmt.Sprintf("%d/%s", port.Port, protocol), numbers)
		}
		d.targetPort(key(p, "targetPort"), port.TargetPort)
		d.nodePort(key(p, "nodePort"), port.NodePort, s.Type)
		if port.NodePort != 0 {
			d.twice(key(p, "nodePort"), fmt.Sprintf("%d/%s", port.NodePort, protocol), nodePorts)
		}
	}
}

func (d *decoder) targetPort(p string, port intstr.IntOrString) {
	_, written := d.marks[p]
	switch {
	case !written || d.holdsNoted[p] || port == (intstr.IntOrString{}):
	case port.Type == intstr.String:
		d.flawed(p, port.StrVal, validation.IsValidPortName(port.StrVal))
	default:
		d.portNumber(p, port.IntValue())
	}
}

func (d *decoder) nodePort(p string, port int32, t corev1.ServiceType) {
	switch {
	case port == 0 || d.holdsNoted[p]:
	case t == "" || t == corev1.ServiceTypeClusterIP:
		d.wrong(p, "a service of type ClusterIP has no node ports", "take it out, or write type: NodePort")
	case port < FirstNodePort || port > LastNodePort:
		d.wrong(p, strconv.Itoa(int(port))+" is outside the range of node ports", fmt.Sprintf("write a number from %d to %d, or leave it to the lab", FirstNodePort, LastNodePort))
	}
}
