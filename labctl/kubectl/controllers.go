package kubectl

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// replicaSets are the lab's, with their pods counted.
func (l Lab) replicaSets(pods []*corev1.Pod) []*appsv1.ReplicaSet {
	var list []*appsv1.ReplicaSet
	for i := range l.Set.ReplicaSets {
		r := l.Set.ReplicaSets[i].DeepCopy()
		r.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"}
		r.Status = appsv1.ReplicaSetStatus{ObservedGeneration: r.Generation}
		for _, p := range pods {
			if p.DeletionTimestamp != nil || p.Namespace != r.Namespace || !owned(p.OwnerReferences, "ReplicaSet", r.Name) {
				continue
			}
			r.Status.Replicas++
			r.Status.FullyLabeledReplicas++
			if isReady(p) {
				r.Status.ReadyReplicas++
				r.Status.AvailableReplicas++
			}
		}
		list = append(list, r)
	}
	return list
}

// deployments are the lab's. A changed template replaces all pods at once, so
// every pod is up to date.
func (l Lab) deployments(replicaSets []*appsv1.ReplicaSet) []*appsv1.Deployment {
	var list []*appsv1.Deployment
	for i := range l.Set.Deployments {
		d := l.Set.Deployments[i].DeepCopy()
		d.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation}
		for _, r := range replicaSets {
			if r.Namespace == d.Namespace && owned(r.OwnerReferences, "Deployment", d.Name) {
				d.Status.Replicas += r.Status.Replicas
				d.Status.UpdatedReplicas += r.Status.Replicas
				d.Status.ReadyReplicas += r.Status.ReadyReplicas
				d.Status.AvailableReplicas += r.Status.AvailableReplicas
			}
		}
		d.Status.UnavailableReplicas = max(replicasOf(d.Spec.Replicas)-d.Status.AvailableReplicas, 0)
		available := appsv1.DeploymentCondition{
			Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Reason: "MinimumReplicasAvailable",
			Message:        "Deployment has minimum availability.",
			LastUpdateTime: d.CreationTimestamp, LastTransitionTime: d.CreationTimestamp,
		}
		if d.Status.UnavailableReplicas > 0 {
			available.Status, available.Reason = corev1.ConditionFalse, "MinimumReplicasUnavailable"
			available.Message = "Deployment does not have minimum availability."
		}
		d.Status.Conditions = []appsv1.DeploymentCondition{available}
		list = append(list, d)
	}
	return list
}

func replicasOf(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

func owned(refs []metav1.OwnerReference, kind, name string) bool {
	return slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.Kind == kind && r.Name == name })
}
