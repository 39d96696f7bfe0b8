package kubectl

import (
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/native-routing/labctl/agent/api"
)

// phaseUnknown is the phase of a pod of which its node says nothing.
const phaseUnknown corev1.PodPhase = "Unknown"

// pods are those that the lab keeps, with what their agents say of them, and
// those that are still ending on their nodes.
func (l Lab) pods() []*corev1.Pod {
	type place struct {
		node string
		uid  types.UID
	}
	said := map[place]api.PodStatus{}
	for node, list := range l.Pods {
		for _, s := range list {
			said[place{node, types.UID(s.UID)}] = s
		}
	}
	var list []*corev1.Pod
	for i := range l.Set.Pods {
		p := l.Set.Pods[i].DeepCopy()
		p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
		at := place{p.Spec.NodeName, p.UID}
		if err := l.Silent[at.node]; err != nil && p.Status.PodIP != "" {
			unheard(p, err, l.Now)
		} else if s, ok := said[at]; ok {
			l.fill(p, s)
		}
		delete(said, at)
		list = append(list, p)
	}
	for at, s := range said {
		list = append(list, l.leaving(at.node, s))
	}
	return list
}

// unheard is a pod of which nothing is known: as of a node that is lost.
func unheard(p *corev1.Pod, why error, now time.Time) {
	p.Status.Phase = phaseUnknown
	p.Status.Message = why.Error()
	p.Status.Conditions = append([]corev1.PodCondition{{
		Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "NodeNotReady", LastTransitionTime: timestamp(now),
	}}, p.Status.Conditions...)
}

// fill completes a pod with what its agent says.
func (l Lab) fill(p *corev1.Pod, s api.PodStatus) {
	p.Status.Phase = corev1.PodPhase(s.Phase)
	if s.Phase == api.PodTerminating {
		p.Status.Phase = corev1.PodRunning
		if p.DeletionTimestamp == nil {
			p.DeletionTimestamp = l.deletion(s)
		}
	}
	if started := timestamp(s.Started); !started.IsZero() {
		p.Status.StartTime = &started
	}
	p.Status.ContainerStatuses = nil
	for _, c := range s.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, containerStatus(c))
	}
	if len(s.Containers) == 0 {
		p.Status.Reason = s.Reason
	}
	p.Status.Conditions = append(conditions(p, s), p.Status.Conditions...)
}

// containerStatus is one container in Kubernetes' words. When its last run ended
// no agent tells, so that is left out.
func containerStatus(c api.ContainerStatus) corev1.ContainerStatus {
	runs := c.State == "running"
	status := corev1.ContainerStatus{
		Name: c.Name, Image: c.Image, Ready: c.Ready, RestartCount: int32(c.Restarts), Started: &runs,
	}
	ended := &corev1.ContainerStateTerminated{
		ExitCode: int32(c.ExitCode), Reason: c.Reason, Message: c.Message, StartedAt: timestamp(c.Started),
	}
	switch c.State {
	case "running":
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: timestamp(c.Started)}
	case "terminated":
		status.State.Terminated = ended
	default:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: c.Reason, Message: c.Message}
		if !c.Started.IsZero() {
			ended.Reason, ended.Message = "Error", ""
			if c.ExitCode == 0 {
				ended.Reason = "Completed"
			}
			status.LastTerminationState.Terminated = ended
		}
	}
	return status
}

// conditions are what a kubelet would say of the pod, beside PodScheduled.
func conditions(p *corev1.Pod, s api.PodStatus) []corev1.PodCondition {
	changed := p.CreationTimestamp
	var unready []string
	for _, c := range s.Containers {
		if at := timestamp(c.Started); changed.Before(&at) {
			changed = at
		}
		if !c.Ready {
			unready = append(unready, c.Name)
		}
	}
	condition := func(kind corev1.PodConditionType, holds bool) corev1.PodCondition {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: changed}
		if holds {
			return c
		}
		c.Status = corev1.ConditionFalse
		switch {
		case kind == corev1.PodReadyToStartContainers:
		case s.Phase == api.PodSucceeded:
			c.Reason = "PodCompleted"
		case len(unready) > 0:
			c.Reason, c.Message = "ContainersNotReady", "containers with unready status: ["+strings.Join(unready, " ")+"]"
		}
		return c
	}
	contained := len(unready) == 0 && len(s.Containers) > 0
	// An agent calls no ending pod ready; whether it still serves its containers tell.
	ready := s.Ready || s.Phase == api.PodTerminating && contained
	return []corev1.PodCondition{
		condition(corev1.PodReadyToStartContainers, s.PID != 0), condition(corev1.PodInitialized, true),
		condition(corev1.PodReady, ready), condition(corev1.ContainersReady, contained),
	}
}

// leaving is a pod that the lab keeps no more while its node still ends it. What
// it was is told by its agent, its identity and, if that is there, its ReplicaSet.
func (l Lab) leaving(node string, s api.PodStatus) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: s.Name, UID: types.UID(s.UID), Labels: l.labelsOf(s.Identity),
			CreationTimestamp: timestamp(s.Started), DeletionTimestamp: l.deletion(s),
		},
		Spec: corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{
			QOSClass:   corev1.PodQOSBestEffort,
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: timestamp(s.Started)}},
		},
	}
	if s.Address.IsValid() {
		p.Status.PodIP, p.Status.PodIPs = s.Address.String(), []corev1.PodIP{{IP: s.Address.String()}}
	}
	if address := l.addressOf(node); address != "" {
		p.Status.HostIP, p.Status.HostIPs = address, []corev1.HostIP{{IP: address}}
	}
	for _, c := range s.Containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c.Name, Image: c.Image})
	}
	if r := l.replicaSetOf(s); r != nil {
		template := r.Spec.Template.DeepCopy()
		p.Labels, p.Annotations, p.GenerateName = template.Labels, template.Annotations, r.Name+"-"
		p.Spec = template.Spec
		p.Spec.NodeName = node
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Name: r.Name, UID: r.UID, Controller: &yes, BlockOwnerDeletion: &yes,
		}}
	}
	l.fill(p, s)
	return p
}

// deletion is the latest time at which the pod is gone, where the lab knows it.
func (l Lab) deletion(s api.PodStatus) *metav1.Time {
	until := timestamp(l.Now)
	for _, leaving := range l.Set.Leaving {
		if leaving.Address == s.Address {
			until = timestamp(leaving.Until)
		}
	}
	return &until
}

// labelsOf are the labels by which a pod got its identity.
func (l Lab) labelsOf(identity uint32) map[string]string {
	for key, n := range l.Set.Identities {
		if n != identity {
			continue
		}
		set := map[string]string{}
		for label := range strings.SplitSeq(key, ";") {
			name, value, ok := strings.Cut(strings.TrimPrefix(label, "k8s:"), "=")
			if ok && name != labelPodNamespace {
				set[name] = value
			}
		}
		return set
	}
	return nil
}

// replicaSetOf is the ReplicaSet of whose name the pod's was made, nil if none is.
func (l Lab) replicaSetOf(s api.PodStatus) *appsv1.ReplicaSet {
	i := slices.IndexFunc(l.Set.ReplicaSets, func(r appsv1.ReplicaSet) bool {
		suffix, ok := strings.CutPrefix(s.Name, r.Name+"-")
		if !ok || r.Namespace != s.Namespace || len(suffix) != 5 {
			return false
		}
		counted := maps.Clone(r.Spec.Template.Labels)
		delete(counted, appsv1.DefaultDeploymentUniqueLabelKey)
		return maps.Equal(counted, l.labelsOf(s.Identity))
	})
	if i < 0 {
		return nil
	}
	return &l.Set.ReplicaSets[i]
}

// isReady is the pod's condition Ready.
func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
