package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/native-routing/labctl/agent/api"
)

// backend is one address that serves a port of a service.
type backend struct {
	address netip.AddrPort
	node    string
	pod     *api.Pod // nil for one that is not a pod
	// doubtful is one of which it is not known whether it is ready: its node
	// cannot be asked.
	doubtful bool
}

func (b backend) String() string {
	if b.pod == nil {
		return fmt.Sprintf("%s (%s)", b.address, b.node)
	}
	return fmt.Sprintf("%s (%s, %s)", b.address, shortKey(b.pod.Key()), b.node)
}

// hostname is what the backend says that it is called.
func (b backend) hostname() string {
	switch {
	case b.pod == nil:
		return ""
	case b.pod.Spec != nil && b.pod.Spec.Hostname != "":
		return b.pod.Spec.Hostname
	}
	return b.pod.Name
}

// backends are those that take new connections to a port of a service: of pods
// that are ready, or may be. With here they are those of one node alone.
func (s *services) backends(service api.Service, port int, here *string) []backend {
	var found []backend
	for _, b := range service.Backends {
		if port >= len(b.Ports) || b.Ports[port] == 0 || here != nil && b.Node != *here {
			continue
		}
		one := backend{address: netip.AddrPortFrom(b.Address, b.Ports[port]), node: b.Node}
		if b.Pod != "" {
			pod, ok := s.pod(b.Pod)
			if !ok || pod.BackendState != "" && pod.BackendState != "active" {
				continue
			}
			state := s.readiness(pod)
			if state == notReady {
				continue
			}
			one.pod, one.doubtful = &pod, state == unheard
		} else if here == nil && service.InternalLocal {
			continue // an address of each node's own, which only that node asks
		}
		found = append(found, one)
	}
	return found
}

func (s *services) pod(key string) (api.Pod, bool) {
	i := slices.IndexFunc(s.cluster.Pods, func(p api.Pod) bool { return p.Key() == key })
	if i < 0 {
		return api.Pod{}, false
	}
	return s.cluster.Pods[i], true
}

// speaks is how a port is asked: http where the built-in server answers, dns on
// its port, tcp where a connection is all that can be had; empty where nothing is.
func speaks(port api.ServicePort, b backend) string {
	switch {
	case port.Protocol == "UDP" && port.Port == 53:
		return "dns"
	case port.Protocol != "TCP":
		return ""
	case b.pod != nil && b.pod.Spec != nil && slices.ContainsFunc(b.pod.Spec.Containers, func(c api.Container) bool { return servesWhoami(c, b.address.Port()) }):
		return "http"
	}
	return "tcp"
}

// servesWhoami says whether a container is the built-in server on that port.
func servesWhoami(c api.Container, port uint16) bool {
	if c.Program != api.ProgramWhoami {
		return false
	}
	listens := "80" // whoami's own default
	for i, arg := range c.Argv {
		if (arg == "--port" || arg == "-port") && i+1 < len(c.Argv) {
			listens = c.Argv[i+1]
		}
	}
	if env, ok := c.Env["WHOAMI_PORT_NUMBER"]; ok && len(c.Argv) == 0 {
		listens = env
	}
	return listens == strconv.Itoa(int(port))
}

// speaksAll is how a service is asked: what all its backends speak.
func speaksAll(port api.ServicePort, backends []backend) string {
	if len(backends) == 0 {
		return speaks(port, backend{})
	}
	protocol := speaks(port, backends[0])
	for _, b := range backends {
		if speaks(port, b) != protocol {
			return "tcp"
		}
	}
	return protocol
}
