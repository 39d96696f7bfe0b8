package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// The kinds of [api.Object] that packets pass and that no table shows.
const (
	kindPod     = "pod"
	kindProgram = "program"
	kindMap     = "map"
)

// troubled says whether an object is not as it should be and its agent says so.
func troubled(o api.Object) bool { return o.Condition == api.Drifted || o.Condition == api.Failed }

func objectCause(node string, o api.Object) Cause {
	name, reason := o.Name, o.Reason
	if o.Kind == kindPod {
		name = shortKey(name)
		reason, _, _ = strings.Cut(reason, "; ") // the rest went with the first
	}
	if reason == "" {
		reason = string(o.Condition)
	}
	return Cause{Node: node, Reason: fmt.Sprintf("%s %s: %s", o.Kind, name, reason), Cure: "labctl up"}
}

// podObject is what is wrong with a pod in its agent's own words.
func (s *services) podObject(key string) []Cause {
	p, ok := s.pod(key)
	if !ok {
		return nil
	}
	for _, o := range s.statuses[p.Node].Objects {
		if o.Kind == kindPod && o.Name == key && troubled(o) {
			return []Cause{objectCause(p.Node, o)}
		}
	}
	return nil
}

// datapathObjects are what is wrong with a node's programs and maps, but for the
// programs of pods that are not concerned.
func (s *services) datapathObjects(node string, pods ...string) []Cause {
	var causes []Cause
	for _, o := range s.statuses[node].Objects {
		if troubled(o) && (o.Kind == kindMap || o.Kind == kindProgram && !s.othersProgram(node, o.Name, pods)) {
			causes = append(causes, objectCause(node, o))
		}
	}
	return causes
}

// othersProgram says whether a program is on the device of a pod of the node that
// is none of these.
func (s *services) othersProgram(node, name string, pods []string) bool {
	_, device, _ := strings.Cut(name, "@")
	return slices.ContainsFunc(s.lists[node].Pods, func(p api.PodStatus) bool {
		return p.Device != "" && p.Device == device && !slices.Contains(pods, p.Key())
	})
}

// endCauses are what the agents of a flow's two ends know to be wrong with what
// its packets pass there.
func (s *services) endCauses(f flow) []Cause {
	for _, key := range []string{f.to.pod, f.from.pod} {
		if causes := s.podObject(key); len(causes) > 0 {
			return causes
		}
	}
	for _, node := range []string{f.to.node, f.from.node} {
		if causes := s.datapathObjects(node, f.to.pod, f.from.pod); len(causes) > 0 {
			return causes
		}
	}
	return nil
}

// unpinned says of a node whose datapath runs, and whose maps cannot be read,
// what that means.
func (s *services) unpinned(node string, err error) error {
	if d := s.statuses[node].Datapath; d == nil || !strings.Contains(err.Error(), "no datapath is loaded") {
		return err
	}
	at := ""
	if _, in, ok := strings.Cut(err.Error(), "(no map "); ok {
		at = " (no map " + in
	}
	return fmt.Errorf("its datapath runs, but a map of its services is not pinned any more%s: somebody removed the file (labctl up pins it again)", at)
}
