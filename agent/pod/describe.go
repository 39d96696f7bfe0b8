//go:build linux

package pod

import (
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// describe is the pod's status by what its sandbox says, nil where it does not
// yet. passed is asked about running containers that have a readiness check.
func (r record) describe(said *status, passed func(container) bool, ending bool) api.PodStatus {
	p := r.Pod
	pod, lxc := macs(r.Lab, p.UID)
	s := api.PodStatus{
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Address: p.Address, Phase: api.PodPending,
		Identity: p.Identity, Endpoint: r.Endpoint, Device: deviceName(p.UID), MAC: pod.String(), DeviceMAC: lxc.String(),
		Containers: []api.ContainerStatus{},
	}
	said = said.whole(p.Spec.Containers)
	s.Started = said.Started
	s.Ready = !ending
	for i, spec := range p.Spec.Containers {
		c := said.Containers[i]
		ready := c.State == running && (spec.Readiness == nil || passed != nil && passed(c))
		s.Ready = s.Ready && ready
		s.Containers = append(s.Containers, api.ContainerStatus{
			Name: c.Name, Image: spec.Image, Ready: ready, State: c.State, Reason: c.Reason, Message: c.Message,
			Restarts: c.Restarts, ExitCode: c.ExitCode, Started: c.Started,
			LastEnded: c.LastEnded, LastExitCode: c.LastExitCode,
		})
		if s.Reason == "" {
			s.Reason = c.Reason
		}
	}
	s.Phase = phase(p.Spec.Restart, said.Containers)
	if ending {
		s.Phase = api.PodTerminating
	}
	return s
}

// whole has each container of the spec, in its order.
func (s *status) whole(specs []api.Container) *status {
	w := &status{}
	if s != nil {
		w.PID, w.Started = s.PID, s.Started
	}
	for _, spec := range specs {
		c := container{Name: spec.Name, State: waiting, Reason: reasonCreating}
		if s != nil {
			for _, is := range s.Containers {
				if is.Name == spec.Name {
					c = is
				}
			}
		}
		w.Containers = append(w.Containers, c)
	}
	return w
}

// phase is Kubernetes' phase of a pod with these containers.
func phase(policy string, containers []container) api.Phase {
	failed, ended := false, 0
	for _, c := range containers {
		if c.State == waiting && c.Reason == reasonCreating && c.Restarts == 0 {
			return api.PodPending
		}
		if c.State == terminated && !restarts(policy, c.ExitCode) {
			ended++
			failed = failed || c.ExitCode != 0
		}
	}
	switch {
	case ended < len(containers) || len(containers) == 0:
		return api.PodRunning
	case failed:
		return api.PodFailed
	default:
		return api.PodSucceeded
	}
}

// troubles are the containers that do not run, for the reason of an object.
func troubles(s api.PodStatus) string {
	var list []string
	for _, c := range s.Containers {
		if c.State == running || c.Reason == reasonCompleted {
			continue
		}
		text := "container " + c.Name + ": " + c.Reason
		if c.Message != "" {
			text += ": " + c.Message
		}
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}
