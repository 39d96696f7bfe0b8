//go:build linux

package lb

import (
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"github.com/native-routing/labctl/agent/api"
)

// catalog is the state as the planner works on it.
type catalog struct {
	planner
	node     string
	cluster  *api.Cluster
	services []*service // in the state's order
	// byPod finds the services of a pod; nil until readiness first changes.
	byPod   map[string][]*service
	leaving map[*service]struct{} // those that have departed backends
}

// take brings in a new state, and says whether anything in it is new.
func (c *catalog) take(node string, cluster *api.Cluster, now time.Time) (changed bool) {
	if cluster == nil {
		cluster = &api.Cluster{}
	}
	old := c.cluster
	if old == nil {
		old = &api.Cluster{}
	}
	v := newView(node, cluster)
	if v.overrides = c.view.overrides; !identical(old.Pods, cluster.Pods) {
		v.overrides = overrides(cluster.Pods)
	}
	v.readiness, v.before = c.view.readiness, c.view.before
	all := c.cluster == nil || c.view.affects(v)
	flipped := differing(c.view.overrides, v.overrides)
	c.view, c.node, c.cluster = v, node, cluster
	c.match(old, cluster, now)
	c.welcome()
	if all {
		for _, s := range c.services {
			c.soil(s)
		}
	}
	c.soilPods(flipped)
	return len(c.dirty) > 0
}

// match pairs the services of two states, and soils those that differ.
func (c *catalog) match(old, cluster *api.Cluster, now time.Time) {
	was := c.services
	c.services = make([]*service, 0, len(cluster.Services))
	find := finder{services: was}
	left := leavers{old: old, new: cluster, now: now}
	for i := range cluster.Services {
		spec := &cluster.Services[i]
		s := find.next(spec)
		if s == nil {
			s = &service{name: serviceName{spec.Namespace, spec.Name}}
		}
		before := s.spec
		s.spec = spec
		c.services = append(c.services, s)
		if before != nil && sameService(before, spec) {
			continue
		}
		c.reindex(s, before)
		if before != nil {
			left.add(s, before)
		}
		c.soil(s)
	}
	for _, s := range find.rest() {
		before := s.spec
		s.spec, s.departed = nil, nil
		c.reindex(s, before)
		c.soil(s)
	}
	for _, s := range left.depart(c.node) {
		c.leaving[s] = struct{}{}
	}
}

// welcome forgets that backends departed whose address a pod has again.
func (c *catalog) welcome() {
	if len(c.leaving) == 0 {
		return
	}
	again := make(map[netip.Addr]bool)
	for s := range c.leaving {
		for _, d := range s.departed {
			again[d.address.AddrPort().Addr()] = false
		}
	}
	for i := range c.cluster.Pods {
		if _, departed := again[c.cluster.Pods[i].Address]; departed {
			again[c.cluster.Pods[i].Address] = true
		}
	}
	for s := range c.leaving {
		count := len(s.departed)
		s.departed = slices.DeleteFunc(s.departed, func(d departed) bool { return again[d.address.AddrPort().Addr()] })
		if len(s.departed) != count {
			c.soil(s)
		}
	}
}

// A finder looks for services by name, mostly where they were before.
type finder struct {
	services []*service
	at       int
	taken    []bool
	byName   map[serviceName]int
}

func (f *finder) next(spec *api.Service) *service {
	if f.taken == nil {
		f.taken = make([]bool, len(f.services))
	}
	for i := f.at; i < min(f.at+2, len(f.services)); i++ {
		if f.is(i, spec) {
			return f.take(i)
		}
	}
	if f.byName == nil {
		f.byName = make(map[serviceName]int, len(f.services))
		for i, s := range f.services {
			f.byName[s.name] = i
		}
	}
	if i, ok := f.byName[serviceName{spec.Namespace, spec.Name}]; ok && !f.taken[i] {
		return f.take(i)
	}
	return nil
}

func (f *finder) is(i int, spec *api.Service) bool {
	return f.services[i].name.name == spec.Name && f.services[i].name.namespace == spec.Namespace && !f.taken[i]
}

func (f *finder) take(i int) *service {
	f.taken[i], f.at = true, i+1
	return f.services[i]
}

// rest are the services that nobody asked for.
func (f *finder) rest() []*service {
	var left []*service
	for i, s := range f.services {
		if f.taken == nil || !f.taken[i] {
			left = append(left, s)
		}
	}
	return left
}

// sameService is whether two are equal. Slices that are one and the same are
// not looked into.
func sameService(a, b *api.Service) bool {
	return a.Type == b.Type && a.ClusterIP == b.ClusterIP && a.InternalLocal == b.InternalLocal &&
		a.ExternalLocal == b.ExternalLocal && a.Affinity == b.Affinity && a.Algorithm == b.Algorithm &&
		equal(a.ExternalIPs, b.ExternalIPs) && equal(a.Ports, b.Ports) &&
		(identical(a.Backends, b.Backends) || slices.EqualFunc(a.Backends, b.Backends, sameBackend))
}

func sameBackend(a, b api.Backend) bool {
	return a.Address == b.Address && a.Node == b.Node && a.Pod == b.Pod && equal(a.Ports, b.Ports)
}

func identical[T any](a, b []T) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}

func equal[T comparable](a, b []T) bool { return identical(a, b) || slices.Equal(a, b) }

// differing are the keys whose values are not the same in both.
func differing[V comparable](a, b map[string]V) []string {
	var keys []string
	same := 0
	for key, value := range b {
		if before, ok := a[key]; ok && before == value {
			same++
		} else {
			keys = append(keys, key)
		}
	}
	if same == len(a) {
		return keys
	}
	for key := range a {
		if _, ok := b[key]; !ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// backendsOf is how many ports of backends a cluster has.
func backendsOf(cluster *api.Cluster) int {
	count := 0
	for i := range cluster.Services {
		count += len(cluster.Services[i].Backends) * len(cluster.Services[i].Ports)
	}
	return count
}

// podAddresses are those of all pods of a state.
func podAddresses(pods []api.Pod) map[netip.Addr]struct{} {
	found := make(map[netip.Addr]struct{}, len(pods))
	for i := range pods {
		found[pods[i].Address] = struct{}{}
	}
	return found
}

// reindex notes whose pods a service has now.
func (c *catalog) reindex(s *service, before *api.Service) {
	if c.byPod == nil {
		return
	}
	if before != nil {
		for i := range before.Backends {
			pod := before.Backends[i].Pod
			of := slices.DeleteFunc(c.byPod[pod], func(o *service) bool { return o == s })
			if c.byPod[pod] = of; len(of) == 0 {
				delete(c.byPod, pod)
			}
		}
	}
	if s.spec != nil {
		for i := range s.spec.Backends {
			if pod := s.spec.Backends[i].Pod; pod != "" {
				c.byPod[pod] = append(c.byPod[pod], s)
			}
		}
	}
}

// soilPods soils the services of pods.
func (c *catalog) soilPods(pods []string) {
	if len(pods) == 0 {
		return
	}
	if c.byPod == nil {
		c.byPod = make(map[string][]*service, len(c.cluster.Pods))
		for _, s := range c.services {
			c.reindex(s, nil)
		}
	}
	for _, pod := range pods {
		for _, s := range c.byPod[pod] {
			c.soil(s)
		}
	}
}

// hear brings in what is known of pods.
func (c *catalog) hear(readiness map[string]Readiness) {
	changed := differing(c.view.readiness, readiness)
	c.view.readiness = readiness
	if c.cluster != nil {
		c.soilPods(changed)
	}
}

// hearSome is hear for some pods.
func (c *catalog) hearSome(changes map[string]Readiness) {
	if c.view.readiness == nil {
		c.view.readiness = make(map[string]Readiness, len(changes))
	}
	var changed []string
	for pod, readiness := range changes {
		if before, known := c.view.readiness[pod]; !known || before != readiness {
			c.view.readiness[pod] = readiness
			changed = append(changed, pod)
		}
	}
	if c.cluster != nil {
		c.soilPods(changed)
	}
}

// forget ends the time in which backends are what they were before the agent
// began: now their nodes should have been heard.
func (c *catalog) forget(now time.Time) {
	if c.view.before == nil || now.Before(c.until) {
		return
	}
	c.view.before = nil
	for _, s := range c.services {
		c.soil(s)
	}
}

// expire ends backends that departed: whose time is over, or whose node has
// them no more.
func (c *catalog) expire(now time.Time) {
	for s := range c.leaving {
		count := len(s.departed)
		s.departed = slices.DeleteFunc(s.departed, func(d departed) bool {
			return !now.Before(d.until) || d.pod != "" && c.view.readiness[d.pod] == Gone
		})
		if len(s.departed) != count {
			c.soil(s)
		}
		if len(s.departed) == 0 {
			delete(c.leaving, s)
		}
	}
}
