//go:build linux

package lb

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

const kind = "service"

// Objects are the services of the state set last, and how each stands. settled
// is whether all were looked at and none is pending or failed.
func (m *Manager) Objects() (objects []api.Object, settled bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if waiting := m.waiting(); waiting != nil {
		for i := range waiting.Services {
			objects = append(objects, object(waiting.Services[i].Key(), api.Pending, "waits for the datapath's maps"))
		}
		return objects, false
	}
	settled = m.catalog.cluster != nil
	for _, s := range m.catalog.services {
		condition, reason := m.judge(s)
		objects = append(objects, object(s.name.String(), condition, reason))
		settled = settled && condition != api.Pending && condition != api.Failed
	}
	return objects, settled
}

// waiting is the cluster of a state that nobody has looked at yet.
func (m *Manager) waiting() *api.Cluster {
	m.inbox.Lock()
	defer m.inbox.Unlock()
	if m.inbox.state == nil {
		return nil
	}
	if m.inbox.state.Cluster == nil {
		return &api.Cluster{}
	}
	return m.inbox.state.Cluster
}

func object(name string, condition api.Condition, reason string) api.Object {
	return api.Object{Kind: kind, Name: name, Owner: api.OwnerAgent, Condition: condition, Reason: reason}
}

func (m *Manager) judge(s *service) (api.Condition, string) {
	switch {
	case !m.catalog.view.balance:
		return api.Skipped, "kubeProxyReplacement is off: nothing balances it"
	case !s.spec.ClusterIP.IsValid():
		return api.InPlace, "headless: it has names and no address"
	case !m.opened:
		return api.Pending, "waits for the datapath's maps"
	case s.dirty:
		return api.Pending, "is being written"
	case s.conflict != nil:
		return api.Refused, s.conflict.Error()
	}
	err, waiting := s.err, false
	for _, f := range s.frontends {
		if f.err != nil && (err == nil || refused(err)) {
			err = f.err // a failure before a refusal
		}
		waiting = waiting || f.want != nil
	}
	switch {
	case err != nil && refused(err):
		return api.Refused, err.Error()
	case err != nil:
		return api.Failed, err.Error()
	case waiting:
		return api.Pending, "waits until what others left can be used again"
	}
	return api.InPlace, m.tell(s)
}

// tell counts the backends of a service: 2 backends active, 1 terminating.
func (m *Manager) tell(s *service) string {
	counts := make([]int, states)
	for i, h := range s.held {
		if !m.counted(s.held[:i], h) {
			counts[h.state]++
		}
	}
	var parts []string
	for state, count := range counts {
		if count > 0 {
			parts = append(parts, fmt.Sprintf("%d %v", count, State(state)))
		}
	}
	if len(parts) == 0 {
		return "no backends: connections are refused"
	}
	number, rest, _ := strings.Cut(parts[0], " ")
	parts[0] = number + " backends " + rest
	if number == "1" {
		parts[0] = number + " backend " + rest
	}
	said := strings.Join(parts, ", ")
	if counts[Active]+counts[Ending] == 0 {
		said += ": connections are refused"
	}
	return said
}

// counted is whether another port of the same pod was seen.
func (m *Manager) counted(before []held, h held) bool {
	for _, b := range before {
		if b.state == h.state && m.address(b)>>32 == m.address(h)>>32 {
			return true
		}
	}
	return false
}

func (m *Manager) address(h held) Address { return m.catalog.backends[h.id].address }

// Names are the services that frontends belong to, by the frontends' ids.
func (m *Manager) Names() map[uint16]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make(map[uint16]string)
	for _, s := range m.catalog.services {
		for _, f := range s.frontends {
			if f.current != nil && f.owner == s {
				names[f.id] = s.name.String()
			}
		}
	}
	return names
}

// Metrics counts what is in the maps, and what was done to them.
type Metrics struct {
	Services  int
	Frontends int
	// Backends are counted by state, those in no slot as the datapath has them.
	Backends map[State]int
	// Capacity is of the maps by name, Frontends and Backends.
	Capacity   map[string]int
	Operations map[Operation]uint64 // entries
	// Last is how long the last pass took.
	Last time.Duration
}

// Metrics is a snapshot.
func (m *Manager) Metrics() Metrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := Metrics{
		Services: len(m.catalog.services), Backends: make(map[State]int),
		Capacity: make(map[string]int), Operations: maps.Clone(m.ops), Last: m.duration,
	}
	if !m.opened {
		return all
	}
	e := m.catalog.engine
	all.Frontends = e.entries
	for i := range e.backends {
		if b := &e.backends[i]; b.address != 0 && b.live {
			all.Backends[State(b.state)]++
		}
	}
	all.Capacity[e.maps.Frontends.Name()] = e.maps.Frontends.Capacity()
	all.Capacity[e.maps.Backends.Name()] = e.maps.Backends.Capacity() - 1
	return all
}
