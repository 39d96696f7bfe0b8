// Package workload keeps the Kubernetes objects of a lab and compiles them to
// what agents hold. It does what an API server, a scheduler and the controllers
// of a cluster would, as far as a lab needs it, in pure functions: no clock, no
// chance, nothing outside of the arguments. So every machine that applies the
// same manifests to the same lab gets the same names and addresses; and what an
// object was given once, it keeps.
package workload

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/native-routing/labctl/labctl/manifest"
)

// Set is what a lab's API server would hold. Its zero value is that of a new
// lab, but for the key. No function changes a Set: each returns a new one.
type Set struct {
	// Namespaces are those beside the ones that every cluster has.
	Namespaces  []corev1.Namespace  `json:"namespaces,omitempty"`
	Deployments []appsv1.Deployment `json:"deployments,omitempty"`
	ReplicaSets []appsv1.ReplicaSet `json:"replicaSets,omitempty"`
	// Pods are in the order in which they came to be. One without status.podIP
	// is on no node: its condition PodScheduled says why. What its containers
	// do, only its agent knows.
	Pods []corev1.Pod `json:"pods,omitempty"`
	// Services have their addresses and node ports filled in.
	Services []corev1.Service `json:"services,omitempty"`
	// Identities are the numbers of sets of labels, by the labels as Cilium
	// writes them, each with a semicolon behind it.
	Identities map[string]uint32 `json:"identities,omitempty"`
	// Key signs what agents tell each other: 32 random bytes from the caller.
	Key []byte `json:"key,omitempty"`

	// Placed are the pods, by key, whose node the lab chose; others' manifests did.
	Placed map[string]string `json:"placed,omitempty"`
	// Made counts, by Deployment, the pods that it ever had: names are not used again.
	Made map[string]int `json:"made,omitempty"`
	// Leaving are addresses of pods that may still be ending on their nodes.
	Leaving []Leaving `json:"leaving,omitempty"`
}

// Leaving is an address that is not given to another pod for a while.
type Leaving struct {
	Address netip.Addr `json:"address"`
	Until   time.Time  `json:"until"`
}

// Verb is what became of an object, in kubectl's words.
type Verb string

// The verbs.
const (
	Created    Verb = "created"
	Configured Verb = "configured"
	Unchanged  Verb = "unchanged"
	Deleted    Verb = "deleted"
)

// Change is what became of one object that was applied or deleted.
type Change struct {
	Verb Verb `json:"verb"`
	manifest.Ref
}

// String is the line that kubectl prints: service/webpod created.
func (c Change) String() string {
	if c.Verb == Deleted {
		return resourceOf(c.Kind).singular() + ` "` + c.Name + `" deleted`
	}
	return resourceOf(c.Kind).singular() + "/" + c.Name + " " + string(c.Verb)
}

// resource is a kind as kubectl names it.
type resource struct{ kind, plural, group string }

var resources = []resource{
	{"Deployment", "deployments", "apps"},
	{"ReplicaSet", "replicasets", "apps"},
	{"Pod", "pods", ""},
	{"Service", "services", ""},
	{"Namespace", "namespaces", ""},
}

func resourceOf(kind string) resource {
	for _, r := range resources {
		if r.kind == kind {
			return r
		}
	}
	return resource{kind: kind, plural: kind}
}

func (r resource) singular() string { return r.grouped(r.plural[:len(r.plural)-1]) }

func (r resource) grouped(name string) string {
	if r.group == "" {
		return name
	}
	return name + "." + r.group
}

// clone is a copy that shares nothing that is ever changed.
func (s Set) clone() Set {
	c := s
	c.Namespaces = copyAll(s.Namespaces, (*corev1.Namespace).DeepCopy)
	c.Deployments = copyAll(s.Deployments, (*appsv1.Deployment).DeepCopy)
	c.ReplicaSets = copyAll(s.ReplicaSets, (*appsv1.ReplicaSet).DeepCopy)
	c.Pods = copyAll(s.Pods, (*corev1.Pod).DeepCopy)
	c.Services = copyAll(s.Services, (*corev1.Service).DeepCopy)
	c.Identities, c.Placed, c.Made = copyMap(s.Identities), copyMap(s.Placed), copyMap(s.Made)
	c.Leaving = slices.Clone(s.Leaving)
	return c
}

func copyAll[T any](list []T, deep func(*T) *T) []T {
	c := make([]T, len(list))
	for i := range list {
		c[i] = *deep(&list[i])
	}
	return c
}

// copyMap never returns nil, so that the copy can be written to.
func copyMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

// object is what all kinds have in common.
type object interface {
	GetNamespace() string
	GetName() string
}

func keyOf(o object) string { return o.GetNamespace() + "/" + o.GetName() }

// find returns the index of an object by namespace and name; -1 where there is none.
func find[T any, P interface {
	*T
	object
}](list []T, namespace, name string) int {
	for i := range list {
		if o := P(&list[i]); o.GetNamespace() == namespace && o.GetName() == name {
			return i
		}
	}
	return -1
}

// same compares as the state on disk would: what was read from there, and lost
// what JSON does not keep, is still the same.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// ownedBy says whether an object belongs to the owner.
func ownedBy(refs []metav1.OwnerReference, kind, name string) bool {
	return slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.Kind == kind && r.Name == name })
}

// release keeps a pod's address from others until the pod must have ended.
func (s *Set) release(p *corev1.Pod, now time.Time) {
	address, err := netip.ParseAddr(p.Status.PodIP)
	if err != nil {
		return
	}
	s.Leaving = slices.DeleteFunc(s.Leaving, func(l Leaving) bool { return l.Address == address })
	s.Leaving = append(s.Leaving, Leaving{Address: address, Until: now.Add(graceOf(p) + releaseMargin)})
}

// releaseMargin is what an agent may take to learn that a pod is to end, and to
// clear up after it.
const releaseMargin = 5 * time.Second

func graceOf(p *corev1.Pod) time.Duration {
	if g := p.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	return defaultGrace * time.Second
}

// removePods takes out the pods that the function picks.
func (s *Set) removePods(now time.Time, pick func(*corev1.Pod) bool) {
	kept := s.Pods[:0]
	for i := range s.Pods {
		p := &s.Pods[i]
		if !pick(p) {
			kept = append(kept, *p)
			continue
		}
		s.release(p, now)
		delete(s.Placed, keyOf(p))
	}
	s.Pods = kept
}
