// Package kubectl shows a lab as kubectl shows a cluster: the same objects, with
// their status filled in, in the same columns. There is no API server to ask:
// what the lab keeps and what its agents say is joined in pure functions.
package kubectl

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies/topo"
)

// Lab is all that a view of a lab is made of.
type Lab struct {
	Set      workload.Set
	Topology *topo.Topology
	// Pods is what the agents say, by node; Silent is why an agent says nothing.
	Pods   map[string][]api.PodStatus
	Silent map[string]error
	// Since is when the lab came to be: the age of what nobody applied.
	Since time.Time
	// Version is the agents'.
	Version string
	// Now is when the agents were asked.
	Now time.Time
}

// Objects are a lab's Kubernetes objects, complete with their status, each kind
// by namespace and name.
type Objects struct {
	Namespaces      []*corev1.Namespace
	Nodes           []*corev1.Node
	Deployments     []*appsv1.Deployment
	ReplicaSets     []*appsv1.ReplicaSet
	Pods            []*corev1.Pod
	Services        []*corev1.Service
	Endpoints       []*Endpoints
	EndpointSlices  []*discoveryv1.EndpointSlice
	CiliumEndpoints []*CiliumEndpoint
}

// View joins what a lab keeps and what its agents say.
func View(l Lab) Objects {
	var o Objects
	o.Namespaces = l.namespaces()
	o.Nodes = l.nodes()
	o.Pods = l.pods()
	o.ReplicaSets = l.replicaSets(o.Pods)
	o.Deployments = l.deployments(o.ReplicaSets)
	o.Services = l.services()
	for _, v := range o.Services {
		members, managed := l.members(v, o.Pods)
		if !managed {
			continue
		}
		o.Endpoints = append(o.Endpoints, endpointsOf(v, members))
		o.EndpointSlices = append(o.EndpointSlices, slicesOf(v, members)...)
	}
	o.CiliumEndpoints = l.ciliumEndpoints(o.Pods)
	byName(o.Namespaces)
	byName(o.Nodes)
	byName(o.Deployments)
	byName(o.ReplicaSets)
	byName(o.Pods)
	byName(o.Services)
	byName(o.Endpoints)
	byName(o.EndpointSlices)
	byName(o.CiliumEndpoints)
	return o
}

// byName sorts as an API server lists. Of two with one name, of which one is
// leaving, the older comes first.
func byName[T metav1.Object](list []T) {
	slices.SortStableFunc(list, func(a, b T) int {
		return cmp.Or(
			cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()),
			a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time), cmp.Compare(a.GetUID(), b.GetUID()))
	})
}

func asList[T metav1.Object](list []T) []metav1.Object {
	objects := make([]metav1.Object, len(list))
	for i, o := range list {
		objects[i] = o
	}
	return objects
}

// services are the lab's own and that of its name server.
func (l Lab) services() []*corev1.Service {
	var list []*corev1.Service
	for i := range l.Set.Services {
		list = append(list, l.Set.Services[i].DeepCopy())
	}
	if dns, ok := workload.DNSService(l.Topology); ok {
		dns.CreationTimestamp, dns.UID = l.born(), uid("Service", dns.Namespace, dns.Name)
		list = append(list, &dns)
	}
	for _, v := range list {
		v.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
	}
	return list
}

// born is when what nobody applied came to be.
func (l Lab) born() metav1.Time { return timestamp(l.Since) }

// timestamp has the precision that Kubernetes keeps.
func timestamp(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.NewTime(t.UTC().Truncate(time.Second))
}

// uid is a UUID for an object that the lab does not keep: always the same one.
func uid(texts ...string) types.UID {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	sum[6] = sum[6]&0x0f | 0x80 // version 8: whatever its maker likes (RFC 9562)
	sum[8] = sum[8]&0x3f | 0x80
	x := hex.EncodeToString(sum[:16])
	return types.UID(x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:])
}
