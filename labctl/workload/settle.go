package workload

import (
	"net/netip"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/topologies/topo"
)

// labelTemplateHash tells the pods of one version of a Deployment from others'.
const labelTemplateHash = appsv1.DefaultDeploymentUniqueLabelKey

// Reconcile returns the set as it is on a topology that changed. What still fits
// stays as it is; a pod whose node went away, or has another pod CIDR, is placed
// anew; a service outside of a new service CIDR gets another address.
func (s Set) Reconcile(t *topo.Topology, now time.Time) (Set, error) {
	next := s.clone()
	next.forget(now)
	if err := next.settle(t, now); err != nil {
		return s, err
	}
	return next, nil
}

// readdress gives services another address where theirs is outside of the
// service CIDR, or kept for something else now.
func (s *Set) readdress(t *topo.Topology) error {
	cidr := t.Cluster.ServiceCIDR
	for i := range s.Services {
		v := &s.Services[i]
		a, err := netip.ParseAddr(v.Spec.ClusterIP)
		if err != nil || cidr.IsValid() && serviceAddress(cidr, a) == "" {
			continue
		}
		v.Spec.ClusterIP = ""
		if err := addressService(t, v, s.reservations()); err != nil {
			return about(manifest.Objects{}, manifest.Ref{Kind: "Service", Namespace: v.Namespace, Name: v.Name}, err)
		}
	}
	return nil
}

// evict takes pods off nodes that no longer have their address.
func (s *Set) evict(t *topo.Topology, now time.Time) {
	for i := range s.Pods {
		p := &s.Pods[i]
		n, _ := t.Nodes.Get(p.Spec.NodeName)
		a, err := netip.ParseAddr(p.Status.PodIP)
		if err != nil || n.PodCIDR.IsValid() && forPods(n.PodCIDR, a) {
			continue
		}
		key := keyOf(p)
		s.release(p, now)
		if _, chosen := s.Placed[key]; chosen {
			p.Spec.NodeName = ""
			delete(s.Placed, key)
		}
		p.Status = corev1.PodStatus{}
		p.UID = uid(t.Metadata.Name, "Pod", key, string(p.UID), now)
		p.CreationTimestamp = timestamp(now)
	}
}

// settle does what controllers and the scheduler do until nothing is left to do.
func (s *Set) settle(t *topo.Topology, now time.Time) error {
	if err := s.readdress(t); err != nil {
		return err
	}
	s.dropOrphans(now)
	s.evict(t, now)
	for i := range s.Deployments {
		s.roll(t, now, &s.Deployments[i])
	}
	s.place(t, now)
	return s.identify()
}

// dropOrphans removes what belonged to objects that are gone.
func (s *Set) dropOrphans(now time.Time) {
	s.ReplicaSets = slices.DeleteFunc(s.ReplicaSets, func(r appsv1.ReplicaSet) bool {
		return find(s.Deployments, r.Namespace, r.OwnerReferences[0].Name) < 0
	})
	s.removePods(now, func(p *corev1.Pod) bool {
		return len(p.OwnerReferences) > 0 && find(s.ReplicaSets, p.Namespace, p.OwnerReferences[0].Name) < 0
	})
	for key := range s.Made {
		if !slices.ContainsFunc(s.Deployments, func(d appsv1.Deployment) bool { return keyOf(&d) == key }) {
			delete(s.Made, key)
		}
	}
}

// roll brings a Deployment's pods to its template and its number. Another
// template is another ReplicaSet: all pods are replaced at once.
func (s *Set) roll(t *topo.Topology, now time.Time, d *appsv1.Deployment) {
	s.ReplicaSets = slices.DeleteFunc(s.ReplicaSets, func(r appsv1.ReplicaSet) bool {
		return r.Namespace == d.Namespace && ownedBy(r.OwnerReferences, "Deployment", d.Name) && !same(unhashed(r.Spec.Template), d.Spec.Template)
	})
	s.removePods(now, func(p *corev1.Pod) bool {
		return len(p.OwnerReferences) > 0 && find(s.ReplicaSets, p.Namespace, p.OwnerReferences[0].Name) < 0
	})
	i := slices.IndexFunc(s.ReplicaSets, func(r appsv1.ReplicaSet) bool {
		return r.Namespace == d.Namespace && ownedBy(r.OwnerReferences, "Deployment", d.Name)
	})
	if i < 0 {
		i = len(s.ReplicaSets)
		s.ReplicaSets = append(s.ReplicaSets, newReplicaSet(t, now, d))
	}
	r := &s.ReplicaSets[i]
	r.Spec.Replicas = d.Spec.Replicas
	s.scale(t, now, d, r)
}

// unhashed is a ReplicaSet's template as its Deployment has it.
func unhashed(t corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	c := *t.DeepCopy()
	delete(c.Labels, labelTemplateHash)
	if len(c.Labels) == 0 {
		c.Labels = nil
	}
	return c
}

func newReplicaSet(t *topo.Topology, now time.Time, d *appsv1.Deployment) appsv1.ReplicaSet {
	hash := templateHash(keyOf(d), d.Spec.Template)
	r := appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: d.Name + "-" + hash, Generation: 1,
			CreationTimestamp: timestamp(now), OwnerReferences: owner("apps/v1", "Deployment", d.ObjectMeta),
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector.DeepCopy(), Template: *d.Spec.Template.DeepCopy()},
	}
	if r.Spec.Selector.MatchLabels == nil {
		r.Spec.Selector.MatchLabels = map[string]string{}
	}
	r.Spec.Selector.MatchLabels[labelTemplateHash] = hash
	if r.Spec.Template.Labels == nil {
		r.Spec.Template.Labels = map[string]string{}
	}
	r.Spec.Template.Labels[labelTemplateHash] = hash
	r.Labels = r.Spec.Template.DeepCopy().Labels
	r.UID = uid(t.Metadata.Name, "ReplicaSet", keyOf(&r), "", now)
	return r
}

func owner(version, kind string, m metav1.ObjectMeta) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: m.Name, UID: m.UID, Controller: &yes, BlockOwnerDeletion: &yes}}
}

// scale makes pods, or removes those that run nowhere and then the last ones.
func (s *Set) scale(t *topo.Topology, now time.Time, d *appsv1.Deployment, r *appsv1.ReplicaSet) {
	var own []*corev1.Pod
	for i := range s.Pods {
		if p := &s.Pods[i]; p.Namespace == r.Namespace && ownedBy(p.OwnerReferences, "ReplicaSet", r.Name) {
			own = append(own, p)
		}
	}
	want := int(*r.Spec.Replicas)
	if len(own) > want {
		slices.SortStableFunc(own, func(a, b *corev1.Pod) int {
			switch {
			case a.Status.PodIP != "" && b.Status.PodIP == "":
				return -1
			case a.Status.PodIP == "" && b.Status.PodIP != "":
				return 1
			}
			return 0
		})
		surplus := map[string]bool{}
		for _, p := range own[want:] {
			surplus[keyOf(p)] = true
		}
		s.removePods(now, func(p *corev1.Pod) bool { return surplus[keyOf(p)] })
		return
	}
	for n := len(own); n < want; n++ {
		s.Pods = append(s.Pods, s.newPod(t, now, d, r))
	}
}

func (s *Set) newPod(t *topo.Topology, now time.Time, d *appsv1.Deployment, r *appsv1.ReplicaSet) corev1.Pod {
	name := ""
	for name == "" || find(s.Pods, r.Namespace, name) >= 0 {
		name = podName(r.Namespace, r.Name, s.Made[keyOf(d)])
		s.Made[keyOf(d)]++
	}
	template := r.Spec.Template.DeepCopy()
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.Namespace, Name: name, GenerateName: r.Name + "-", Generation: 1,
			Labels: template.Labels, Annotations: template.Annotations,
			CreationTimestamp: timestamp(now), OwnerReferences: owner("apps/v1", "ReplicaSet", r.ObjectMeta),
		},
		Spec: template.Spec,
	}
	p.UID = uid(t.Metadata.Name, "Pod", keyOf(&p), "", now)
	return p
}
