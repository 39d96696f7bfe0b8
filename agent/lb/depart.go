//go:build linux

package lb

import (
	"net/netip"
	"slices"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// leavers finds, between two states, backends whose pods left the cluster.
type leavers struct {
	old, new *api.Cluster
	now      time.Time
	found    []leaver
}

// leaver is a backend that a service has no more.
type leaver struct {
	service *service
	before  *api.Service
	backend *api.Backend
}

// add collects the backends that a service had before and has no more. Those
// that left earlier follow its ports.
func (l *leavers) add(s *service, before *api.Service) {
	s.departed = slices.DeleteFunc(s.departed, func(d departed) bool {
		return movePort(before, s.spec, d.port) < 0
	})
	for i := range s.departed {
		s.departed[i].port = movePort(before, s.spec, s.departed[i].port)
	}
	for i := range before.Backends {
		b := &before.Backends[i]
		stays := func(o api.Backend) bool { return o.Pod == b.Pod && o.Address == b.Address }
		if b.Pod != "" && !slices.ContainsFunc(s.spec.Backends, stays) {
			l.found = append(l.found, leaver{s, before, b})
		}
	}
}

// depart makes departed backends of those whose pod is not in the new state,
// and returns their services. A pod that only does not belong to the service any
// more is no backend at once.
func (l *leavers) depart(node string) []*service {
	if len(l.found) == 0 || identical(l.old.Pods, l.new.Pods) {
		return nil
	}
	graces := make(map[string]time.Duration, len(l.found))
	for _, f := range l.found {
		graces[f.backend.Pod] = -1
	}
	eachPod(l.old.Pods, graces, func(key string, pod *api.Pod) { graces[key] = pod.Grace })
	now := make(map[string]netip.Addr)
	eachPod(l.new.Pods, graces, func(key string, pod *api.Pod) { now[key] = pod.Address })
	var services []*service
	for _, f := range l.found {
		b := f.backend
		address, again := now[b.Pod]
		if again && address == b.Address || graces[b.Pod] < 0 {
			continue
		}
		key := b.Pod
		if again {
			key = "" // readiness speaks of the new pod of that name
		}
		for i, number := range b.Ports {
			port := movePort(f.before, f.service.spec, i)
			if number == 0 || port < 0 || !b.Address.Is4() {
				continue
			}
			proto := protocolNumber(f.before.Ports[i].Protocol)
			f.service.depart(departed{
				port: port, address: pack(b.Address, number, proto), local: b.Node == node,
				pod: key, until: l.now.Add(graces[b.Pod]),
			})
		}
		services = append(services, f.service)
	}
	return services
}

// eachPod calls found for the pods whose key is in wanted.
func eachPod(pods []api.Pod, wanted map[string]time.Duration, found func(key string, pod *api.Pod)) {
	var buffer []byte
	for i := range pods {
		buffer = append(append(append(buffer[:0], pods[i].Namespace...), '/'), pods[i].Name...)
		if _, ok := wanted[string(buffer)]; ok {
			found(string(buffer), &pods[i])
		}
	}
}

// movePort is where the port of a service is in the next state's, or -1.
func movePort(from, to *api.Service, port int) int {
	if port >= len(from.Ports) {
		return -1
	}
	p := from.Ports[port]
	return slices.IndexFunc(to.Ports, func(o api.ServicePort) bool { return o.Port == p.Port && o.Protocol == p.Protocol })
}
