package kubectl

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"
)

// What kubectl writes for what is not there.
const (
	none    = "<none>"
	unset   = "<unset>"
	unknown = "<unknown>"
)

// maxListed is how many endpoints a cell names before it counts the rest.
const maxListed = 3

// AgeAt is the AGE column at a time.
func AgeAt(now time.Time) func(metav1.Time) string {
	return func(t metav1.Time) string {
		if t.IsZero() {
			return unknown
		}
		return duration.HumanDuration(now.Sub(t.Time))
	}
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func deploymentRow(o metav1.Object, since age) []string {
	d := o.(*appsv1.Deployment)
	containers, images := containerCells(d.Spec.Template.Spec.Containers)
	selector := ""
	if s, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil { // apply takes no other
		selector = s.String()
	}
	return []string{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, replicasOf(d.Spec.Replicas)),
		fmt.Sprint(d.Status.UpdatedReplicas), fmt.Sprint(d.Status.AvailableReplicas), since(d.CreationTimestamp),
		containers, images, selector,
	}
}

func replicaSetRow(o metav1.Object, since age) []string {
	r := o.(*appsv1.ReplicaSet)
	containers, images := containerCells(r.Spec.Template.Spec.Containers)
	return []string{
		r.Name, fmt.Sprint(replicasOf(r.Spec.Replicas)), fmt.Sprint(r.Status.Replicas), fmt.Sprint(r.Status.ReadyReplicas),
		since(r.CreationTimestamp), containers, images, metav1.FormatLabelSelector(r.Spec.Selector),
	}
}

func containerCells(containers []corev1.Container) (names, images string) {
	var n, i []string
	for _, c := range containers {
		n, i = append(n, c.Name), append(i, c.Image)
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

func serviceRow(o metav1.Object, since age) []string {
	v := o.(*corev1.Service)
	ip := none
	if len(v.Spec.ClusterIPs) > 0 {
		ip = v.Spec.ClusterIPs[0]
	}
	var ports []string
	for _, p := range v.Spec.Ports {
		ports = append(ports, portText(p))
	}
	return []string{
		v.Name, string(v.Spec.Type), ip, or(strings.Join(v.Spec.ExternalIPs, ","), none), or(strings.Join(ports, ","), none),
		since(v.CreationTimestamp), labels.FormatLabels(v.Spec.Selector),
	}
}

func portText(p corev1.ServicePort) string {
	if p.NodePort > 0 {
		return fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
	}
	return fmt.Sprintf("%d/%s", p.Port, p.Protocol)
}

// endpointsRow shows only what is ready: nothing at all where nothing is.
func endpointsRow(o metav1.Object, since age) []string {
	e := o.(*Endpoints)
	var list []string
	for _, s := range e.Subsets {
		for _, a := range s.Addresses {
			if len(s.Ports) == 0 {
				list = append(list, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				list = append(list, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	text := shorten(list)
	if len(e.Subsets) == 0 {
		text = none
	}
	return []string{e.Name, text, since(e.CreationTimestamp)}
}

func shorten(list []string) string {
	if len(list) <= maxListed {
		return strings.Join(list, ",")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(list[:maxListed], ","), len(list)-maxListed)
}

func sliceRow(o metav1.Object, since age) []string {
	e := o.(*discoveryv1.EndpointSlice)
	var ports, addresses []string
	for _, p := range e.Ports {
		ports = append(ports, strconv.Itoa(int(*p.Port)))
	}
	for _, p := range e.Endpoints {
		addresses = append(addresses, p.Addresses...)
	}
	return []string{e.Name, string(e.AddressType), or(shorten(ports), unset), or(shorten(addresses), unset), since(e.CreationTimestamp)}
}

func nodeRow(o metav1.Object, since age) []string {
	n := o.(*corev1.Node)
	status := "NotReady"
	if slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}) {
		status = "Ready"
	}
	address := none
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			address = a.Address
			break
		}
	}
	info := n.Status.NodeInfo
	return []string{
		n.Name, status, rolesOf(n), since(n.CreationTimestamp), info.KubeletVersion,
		address, none, or(info.OSImage, unknown), or(info.KernelVersion, unknown), or(info.ContainerRuntimeVersion, unknown),
	}
}

func rolesOf(n *corev1.Node) string {
	var roles []string
	for name := range n.Labels {
		if role, ok := strings.CutPrefix(name, "node-role.kubernetes.io/"); ok && role != "" {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return or(strings.Join(roles, ","), none)
}

func namespaceRow(o metav1.Object, since age) []string {
	n := o.(*corev1.Namespace)
	return []string{n.Name, string(n.Status.Phase), since(n.CreationTimestamp)}
}

// policyDisabled is what Cilium says of policies while its agents do not report them.
const policyDisabled = "<status disabled>"

func ciliumEndpointRow(o metav1.Object, _ age) []string {
	e := o.(*CiliumEndpoint)
	return []string{
		e.Name, strconv.FormatInt(e.Status.Identity.ID, 10), policyDisabled, policyDisabled, e.Status.State,
		e.Status.Networking.Addressing[0].IPv4, "",
	}
}
