package kubectl

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func podRow(o metav1.Object, since age) []string {
	p := o.(*corev1.Pod)
	status, ready := podStatus(p)
	return []string{
		p.Name, fmt.Sprintf("%d/%d", ready, len(p.Spec.Containers)), status, restartsText(p, since), since(p.CreationTimestamp),
		or(p.Status.PodIP, none), or(p.Spec.NodeName, none), none, none,
	}
}

// podStatus is the word of the STATUS column by kubectl's rules (printPod of
// Kubernetes 1.33): the first container that does not run says it, over the
// pod's own; and the number of containers that are ready.
func podStatus(p *corev1.Pod) (status string, ready int) {
	status = or(p.Status.Reason, string(p.Status.Phase))
	running := false
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := p.Status.ContainerStatuses[i]
		switch w, t := c.State.Waiting, c.State.Terminated; {
		case w != nil && w.Reason != "":
			status = w.Reason
		case t != nil && t.Reason != "":
			status = t.Reason
		case t != nil:
			status = fmt.Sprintf("ExitCode:%d", t.ExitCode)
		case c.Ready && c.State.Running != nil:
			running = true
			ready++
		}
	}
	if status == "Completed" && running {
		status = "NotReady"
		if isReady(p) {
			status = "Running"
		}
	}
	ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	if p.DeletionTimestamp != nil && !ended {
		status = "Terminating"
	}
	return status, ready
}

// restartsText counts restarts, and says when the last one was. kubectl counts
// that from the end of the run before, which agents do not tell; a container that
// runs was started again shortly after.
func restartsText(p *corev1.Pod, since age) string {
	restarts := 0
	var last metav1.Time
	known := true
	for _, c := range p.Status.ContainerStatuses {
		if c.RestartCount == 0 {
			continue
		}
		restarts += int(c.RestartCount)
		if c.State.Running == nil {
			known = false
		} else if last.Before(&c.State.Running.StartedAt) {
			last = c.State.Running.StartedAt
		}
	}
	if !known || last.IsZero() {
		return strconv.Itoa(restarts)
	}
	return fmt.Sprintf("%d (%s ago)", restarts, since(last))
}
