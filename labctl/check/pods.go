package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/native-routing/labctl/agent/api"
)

// readiness is whether a pod takes its part in services.
type readiness int

const (
	notReady readiness = iota
	ready
	unheard // its node cannot be asked
)

// status is a pod as its node has it; false in known where the node cannot be
// asked, and nil where it can and has none.
func (s *services) status(p api.Pod) (status *api.PodStatus, known bool) {
	list, known := s.lists[p.Node]
	for i, have := range list.Pods {
		if have.Key() == p.Key() {
			return &list.Pods[i], true
		}
	}
	return nil, known
}

func (s *services) readiness(p api.Pod) readiness {
	status, known := s.status(p)
	switch {
	case !known:
		return unheard
	case status != nil && status.Phase == api.PodRunning && status.Ready:
		return ready
	}
	return notReady
}

// alive says whether a pod can be sent to and from: it runs, or nobody knows.
func (s *services) alive(p api.Pod) bool {
	status, known := s.status(p)
	return !known || status != nil && status.Phase == api.PodRunning
}

// finished says whether a pod has done what it was for, and is not to run again.
func finished(p api.Pod, status *api.PodStatus) bool {
	return status.Phase == api.PodSucceeded && p.Spec != nil && p.Spec.Restart != "Always"
}

// podCauses say why a pod is not ready; none where it is, or nobody knows.
func (s *services) podCauses(p api.Pod) []Cause {
	status, known := s.status(p)
	name := shortKey(p.Key())
	switch {
	case !known:
		return nil
	case status == nil:
		return []Cause{{Node: p.Node, Reason: s.say.Sprintf("pod %s is not there", name), Cure: "labctl up"}}
	case finished(p, status) || status.Phase == api.PodRunning && status.Ready:
		return nil
	}
	return []Cause{{Node: p.Node, Reason: s.say.Sprintf("pod %s is %s", name, phaseText(status)), Cure: "labctl get pods -o wide"}}
}

func phaseText(p *api.PodStatus) string {
	text := string(p.Phase)
	if p.Phase == api.PodRunning && !p.Ready {
		text = "not ready"
	}
	reason := p.Reason
	for _, c := range p.Containers {
		if !c.Ready {
			reason = cmp.Or(reason, c.Reason)
		}
	}
	if reason != "" {
		text += ": " + reason
	}
	return text
}

// judgePods checks that every pod runs and is ready on its node, and that there
// are no others.
func (s *services) judgePods() []Result {
	var results []Result
	for _, node := range s.cluster.Nodes {
		for _, p := range s.cluster.Pods {
			if p.Node == node.Name {
				results = append(results, s.judgePod(p))
			}
		}
		for _, have := range s.lists[node.Name].Pods {
			if _, wanted := s.pod(have.Key()); wanted || have.Phase == api.PodTerminating {
				continue
			}
			results = append(results, Result{Group: Pods, Node: node.Name, Name: shortKey(have.Key()) + " on " + node.Name, Outcome: Failed,
				Expected: s.say.Sprintf("no such pod"), Seen: podText(&have),
				Causes: []Cause{{Node: node.Name, Reason: s.say.Sprintf("pod %s is in no manifest of the lab", shortKey(have.Key())), Cure: "labctl up"}}})
		}
	}
	return results
}

func (s *services) judgePod(p api.Pod) Result {
	r := Result{Group: Pods, Node: p.Node, Name: fmt.Sprintf("%s on %s", shortKey(p.Key()), p.Node), Expected: fmt.Sprintf("%s Running, ready", p.Address)}
	status, known := s.status(p)
	if !known {
		return s.unseen(r, p.Node)
	}
	r.Seen, r.Outcome = s.say.Sprintf("missing"), OK
	if status != nil {
		r.Seen = podText(status)
		if status.Address != p.Address {
			r.Causes = []Cause{{Node: p.Node, Reason: s.say.Sprintf("pod %s has the address %s, not %s", shortKey(p.Key()), status.Address, p.Address), Cure: "labctl up"}}
		}
	}
	if r.Causes = slices.Concat(r.Causes, s.podCauses(p), s.podObject(p.Key())); len(r.Causes) > 0 {
		r.Outcome = Failed
		for _, o := range s.statuses[p.Node].Objects {
			if o.Kind == kindPod && o.Name == p.Key() && troubled(o) {
				r.Seen += "; " + o.Reason
			}
		}
	}
	return r
}

func podText(p *api.PodStatus) string {
	if p.Phase == api.PodRunning && p.Ready {
		return fmt.Sprintf("%s Running, ready", p.Address)
	}
	return fmt.Sprintf("%s %s", p.Address, phaseText(p))
}
