package workload

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/topologies/topo"
)

// systemNamespaces are there in every cluster.
var systemNamespaces = []string{corev1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}

// Apply returns the set with the objects of manifests in it, and what became of
// each, in their order. What an object was given once (address, node, names) it
// keeps; applied twice, it is unchanged.
//
// It is all or nothing: an error that joins a [Refusal] for each object that
// cannot be, and then the set is the one before.
func (s Set) Apply(t *topo.Topology, now time.Time, objs manifest.Objects) (Set, []Change, error) {
	a := &applying{next: s.clone(), t: t, now: now, objs: objs}
	a.next.forget(now)
	a.reserve()
	var changes []Change
	var errs []error
	for _, step := range a.steps() {
		verb, err := step.apply()
		if err != nil {
			errs = append(errs, about(objs, step.ref, err))
			continue
		}
		changes = append(changes, Change{verb, step.ref})
	}
	if len(errs) > 0 {
		return s, nil, errors.Join(errs...)
	}
	if err := a.next.settle(t, now); err != nil {
		return s, nil, err
	}
	return a.next, changes, nil
}

// applying is one run of Apply.
type applying struct {
	next  Set
	t     *topo.Topology
	now   time.Time
	objs  manifest.Objects
	taken reserved
}

// step applies one object.
type step struct {
	ref   manifest.Ref
	apply func() (Verb, error)
}

// steps are what is to be applied: namespaces first, since others live in
// them, then the rest as the files have it.
func (a *applying) steps() []step {
	var namespaces, others []step
	for _, o := range a.objs.Namespaces {
		namespaces = append(namespaces, step{manifest.Ref{Kind: "Namespace", Name: o.Name}, func() (Verb, error) { return a.namespace(&o) }})
	}
	for _, o := range a.objs.Deployments {
		others = append(others, step{manifest.Ref{Kind: "Deployment", Namespace: o.Namespace, Name: o.Name}, func() (Verb, error) { return a.deployment(&o) }})
	}
	for _, o := range a.objs.Pods {
		others = append(others, step{manifest.Ref{Kind: "Pod", Namespace: o.Namespace, Name: o.Name}, func() (Verb, error) { return a.pod(&o) }})
	}
	for _, o := range a.objs.Services {
		others = append(others, step{manifest.Ref{Kind: "Service", Namespace: o.Namespace, Name: o.Name}, func() (Verb, error) { return a.service(&o) }})
	}
	order := make(map[manifest.Ref]int, len(a.objs.Refs))
	for i, ref := range a.objs.Refs {
		order[ref] = i
	}
	slices.SortStableFunc(others, func(x, y step) int { return order[x.ref] - order[y.ref] })
	return append(namespaces, others...)
}

// reserve keeps what manifests ask for by number from services that leave it to
// the lab: the order of the files must not matter.
func (a *applying) reserve() {
	a.taken = a.next.reservations()
	for i := range a.objs.Services {
		v := a.objs.Services[i].DeepCopy()
		defaultService(v)
		key := keyOf(v)
		if ip, err := netip.ParseAddr(v.Spec.ClusterIP); err == nil && a.taken.addresses[ip] == "" {
			a.taken.addresses[ip] = key
		}
		for _, p := range v.Spec.Ports {
			if k := portKey(p.Protocol, p.NodePort); p.NodePort != 0 && a.taken.ports[k] == "" {
				a.taken.ports[k] = key
			}
		}
	}
}

func (a *applying) namespace(o *corev1.Namespace) (Verb, error) {
	if slices.Contains(systemNamespaces, o.Name) {
		return Unchanged, nil
	}
	want := o.DeepCopy()
	clean(&want.ObjectMeta)
	want.TypeMeta, want.Spec, want.Status = metav1.TypeMeta{}, corev1.NamespaceSpec{}, corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	i := find(a.next.Namespaces, "", want.Name)
	if i < 0 {
		a.born(&want.ObjectMeta, "Namespace", want.Name)
		a.next.Namespaces = append(a.next.Namespaces, *want)
		return Created, nil
	}
	return keep(&a.next.Namespaces[i], want, &want.ObjectMeta, a.next.Namespaces[i].ObjectMeta), nil
}

// inNamespace: objects live in a namespace that there is.
func (a *applying) inNamespace(namespace string) error {
	if slices.Contains(systemNamespaces, namespace) || find(a.next.Namespaces, "", namespace) >= 0 {
		return nil
	}
	return fieldError("metadata.namespace", "there is no namespace %s; apply one before: kind: Namespace, metadata: {name: %s}", namespace, namespace)
}

// onNode: a pod's manifest may name only a node that carries pods.
func (a *applying) onNode(field, node string) error {
	nodes := a.t.PodNodes()
	if node == "" || slices.Contains(nodes, node) {
		return nil
	}
	return fieldError(field, "the lab has no node %s that carries pods; write one of %s", node, strings.Join(nodes, ", "))
}

// born fills in what an API server gives a new object.
func (a *applying) born(m *metav1.ObjectMeta, kind, key string) {
	m.UID = uid(a.t.Metadata.Name, kind, key, "", a.now)
	m.CreationTimestamp = timestamp(a.now)
	m.Generation = 1
}

// timestamp has the precision that Kubernetes keeps.
func timestamp(now time.Time) metav1.Time { return metav1.NewTime(now.UTC().Truncate(time.Second)) }

// keep puts an object in the place of its former self, which leaves it what it
// was given.
func keep[T any](place, want *T, m *metav1.ObjectMeta, former metav1.ObjectMeta) Verb {
	m.UID, m.CreationTimestamp, m.Generation = former.UID, former.CreationTimestamp, former.Generation
	m.OwnerReferences = former.OwnerReferences
	if same(place, want) {
		return Unchanged
	}
	m.Generation++
	*place = *want
	return Configured
}

func (a *applying) deployment(o *appsv1.Deployment) (Verb, error) {
	want := o.DeepCopy()
	defaultDeployment(want)
	if err := a.inNamespace(want.Namespace); err != nil {
		return "", err
	}
	if err := a.onNode("spec.template.spec.nodeName", want.Spec.Template.Spec.NodeName); err != nil {
		return "", err
	}
	i := find(a.next.Deployments, want.Namespace, want.Name)
	if i < 0 {
		a.born(&want.ObjectMeta, "Deployment", keyOf(want))
		a.next.Deployments = append(a.next.Deployments, *want)
		return Created, nil
	}
	former := &a.next.Deployments[i]
	if !same(former.Spec.Selector, want.Spec.Selector) {
		return "", fieldError("spec.selector", "field is immutable; delete the Deployment first")
	}
	return keep(former, want, &want.ObjectMeta, former.ObjectMeta), nil
}

func (a *applying) pod(o *corev1.Pod) (Verb, error) {
	want := o.DeepCopy()
	defaultPod(want)
	if err := a.inNamespace(want.Namespace); err != nil {
		return "", err
	}
	if err := a.onNode("spec.nodeName", want.Spec.NodeName); err != nil {
		return "", err
	}
	i := find(a.next.Pods, want.Namespace, want.Name)
	if i < 0 {
		a.born(&want.ObjectMeta, "Pod", keyOf(want))
		a.next.Pods = append(a.next.Pods, *want)
		return Created, nil
	}
	former := &a.next.Pods[i]
	if len(former.OwnerReferences) > 0 {
		return "", fieldError("metadata.name", "this pod belongs to ReplicaSet %s; choose another name, or change the Deployment", former.OwnerReferences[0].Name)
	}
	asked := former.Spec.DeepCopy()
	if _, chosen := a.next.Placed[keyOf(former)]; chosen {
		asked.NodeName = ""
	}
	if !same(asked, &want.Spec) {
		return "", fieldError("spec", "a pod cannot be changed while it lives, but for its labels and annotations; delete it first")
	}
	want.Spec, want.Status = former.Spec, former.Status
	return keep(former, want, &want.ObjectMeta, former.ObjectMeta), nil
}

func (a *applying) service(o *corev1.Service) (Verb, error) {
	want := o.DeepCopy()
	defaultService(want)
	if err := a.inNamespace(want.Namespace); err != nil {
		return "", err
	}
	if want.Namespace == dnsNamespace && want.Name == dnsName {
		return "", fieldError("metadata.name", "this is the lab's own name server; choose another name")
	}
	i := find(a.next.Services, want.Namespace, want.Name)
	if i < 0 {
		if err := addressService(a.t, want, a.taken); err != nil {
			return "", err
		}
		a.born(&want.ObjectMeta, "Service", keyOf(want))
		a.next.Services = append(a.next.Services, *want)
		return Created, nil
	}
	former := &a.next.Services[i]
	if given := want.Spec.ClusterIP; given != "" && given != former.Spec.ClusterIP {
		return "", fieldError("spec.clusterIP", "field is immutable: it is %s; delete the Service first", former.Spec.ClusterIP)
	}
	want.Spec.ClusterIP = former.Spec.ClusterIP
	if want.Spec.Type == corev1.ServiceTypeNodePort {
		if want.Spec.ClusterIP == corev1.ClusterIPNone {
			return "", fieldError("spec.type", "a headless service has no node ports; delete the Service first")
		}
		keepNodePorts(want, former)
	}
	if err := addressService(a.t, want, a.taken); err != nil {
		return "", err
	}
	return keep(former, want, &want.ObjectMeta, former.ObjectMeta), nil
}

// keepNodePorts gives ports that leave it to the lab what they had before.
func keepNodePorts(want, former *corev1.Service) {
	for i := range want.Spec.Ports {
		p := &want.Spec.Ports[i]
		for _, had := range former.Spec.Ports {
			if p.NodePort == 0 && had.Protocol == p.Protocol && had.Port == p.Port {
				p.NodePort = had.NodePort
			}
		}
	}
}

// forget drops what is no longer leaving.
func (s *Set) forget(now time.Time) {
	s.Leaving = slices.DeleteFunc(s.Leaving, func(l Leaving) bool { return !l.Until.After(now) })
}
