//go:build linux

package peer

import (
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// State is how a pod stands, as far as its node has told.
type State string

// The states of a pod.
const (
	Ready       State = "ready"
	NotReady    State = "notReady"
	Terminating State = "terminating"
	// Gone is a pod that has left the state, and its node says that nothing is
	// left of it.
	Gone State = "gone"
	// Unknown is a pod of which its node has not told yet: it was not heard since
	// this agent began, or not since the pod was planned. What was made of the pod
	// before may stay as it is for a moment.
	Unknown State = "unknown"
)

// forget is how long after its grace a pod that has left the state is spoken of.
const forget = time.Minute

// planned is a pod of the state.
type planned struct {
	id    id
	node  string
	grace time.Duration
}

// leaver is a pod that has left the state.
type leaver struct {
	planned
	until time.Time
}

// list is what one node last said of its pods.
type list struct {
	start, version uint64
	digest         uint64
	pods           map[id]State
}

func (l *list) has(pod id) bool {
	if l == nil {
		return false
	}
	_, ok := l.pods[pod]
	return ok
}

// localState is the state of a pod of the own node.
func localState(p api.PodStatus) State {
	switch {
	case p.Phase == api.PodTerminating:
		return Terminating
	case p.Ready:
		return Ready
	default:
		return NotReady
	}
}

// compute is how all pods stand at now, and when to look again though nothing
// has happened.
func (x *Exchange) compute(now time.Time) (states map[string]State, again time.Time) {
	states = make(map[string]State, len(x.planned))
	for _, p := range x.planned {
		states[p.id.key] = x.plannedState(p, now)
	}
	for key, l := range x.leaving {
		if _, back := states[key]; back || !now.Before(l.until) {
			delete(x.leaving, key)
			continue
		}
		states[key] = x.leaverState(l)
		again = earliest(again, l.until)
	}
	x.addUnplanned(states, x.local)
	for _, p := range x.peers {
		x.addUnplanned(states, p.list)
		if p.list == nil && now.Before(p.since.Add(patience)) {
			again = earliest(again, p.since.Add(patience))
		}
	}
	return states, again
}

// addUnplanned adds pods that the state does not have any more, or not yet.
func (x *Exchange) addUnplanned(states map[string]State, l *list) {
	if l == nil {
		return
	}
	for pod, state := range l.pods {
		if _, known := states[pod.key]; !known {
			states[pod.key] = state
		}
	}
}

func (x *Exchange) plannedState(p planned, now time.Time) State {
	l, digest := x.local, x.digests[p.node]
	if p.node != x.node {
		other := x.peers[p.node]
		if other == nil {
			return Unknown
		}
		if l = other.list; l == nil && !now.Before(other.since.Add(patience)) {
			return Ready // a broken underlay shows backends that cannot be reached, not none
		}
	}
	switch {
	case l == nil:
		return Unknown
	case l.has(p.id):
		return l.pods[p.id]
	case l.digest == digest:
		return NotReady // its node knows of it
	default:
		return Unknown
	}
}

func (x *Exchange) leaverState(l leaver) State {
	said := x.local
	if l.node != x.node {
		other := x.peers[l.node]
		if other == nil {
			return Gone // with its node
		}
		said = other.list
	}
	switch {
	case said == nil:
		return Unknown
	case said.has(l.id):
		return Terminating
	default:
		return Gone
	}
}

// earliest takes the zero time for never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
