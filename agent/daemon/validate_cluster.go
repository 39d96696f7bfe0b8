//go:build linux

package daemon

import (
	"fmt"
	"regexp"

	"github.com/native-routing/labctl/agent/api"
)

// keySize is what agents sign their messages with, in bytes.
const keySize = 32

// maxPage bounds the page of a node, in bytes.
const maxPage = 64 << 10

// objectName is a DNS subdomain (RFC 1123): names go into paths and links' aliases.
var objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)

// uid is Kubernetes' own shape of one, or any other that is safe in a path.
var uid = regexp.MustCompile(`^[a-z0-9][-a-z0-9]{0,62}$`)

func (v *validator) name(field, name string) {
	if !objectName.MatchString(name) {
		v.say("%s %.60q: want a name such as k8s-w1", field, name)
	}
}

func (v *validator) cluster(node string, c api.Cluster) {
	v.podCIDR("cluster.serviceCIDR", c.ServiceCIDR)
	v.podCIDR("cluster.nativeCIDR", c.NativeCIDR)
	if c.Algorithm != "random" && c.Algorithm != "maglev" {
		v.say("cluster.algorithm %.20q: want random or maglev", c.Algorithm)
	}
	if len(c.Key) != keySize {
		v.say("cluster.key has %d bytes: want %d", len(c.Key), keySize)
	}
	if c.DNS.IsValid() {
		v.address("cluster.dns", c.DNS)
		v.name("cluster.domain", c.Domain)
	}
	own := false
	for i, n := range c.Nodes {
		field := fmt.Sprintf("cluster.nodes[%d]", i)
		own = own || n.Name == node
		v.name(field+".name", n.Name)
		v.address(field+".address", n.Address)
		v.podCIDR(field+".podCIDR", n.PodCIDR)
		v.address(field+".gateway", n.Gateway)
	}
	if !own {
		v.say("cluster.nodes lacks this node, %.60q", node)
	}
	v.clusterPods(node, c.Pods)
	v.services(c.Services)
}

func (v *validator) clusterPods(node string, pods []api.Pod) {
	seen := make(map[string]bool, len(pods))
	for i, p := range pods {
		field := fmt.Sprintf("cluster.pods[%d]", i)
		v.name(field+".namespace", p.Namespace)
		v.name(field+".name", p.Name)
		v.address(field+".address", p.Address)
		if !uid.MatchString(p.UID) {
			v.say("%s.uid %.60q: want letters, digits and dashes", field, p.UID)
		}
		if seen[p.Key()] {
			v.say("%s: %s is given twice", field, p.Key())
		}
		seen[p.Key()] = true
		if p.Node == node && p.Spec == nil {
			v.say("%s: %s is on this node and has no spec", field, p.Key())
		}
		if p.Spec != nil {
			v.podSpec(field+".spec", *p.Spec)
		}
	}
}

func (v *validator) podSpec(field string, s api.PodSpec) {
	v.name(field+".hostname", s.Hostname)
	if len(s.Containers) == 0 {
		v.say("%s has no container", field)
	}
	for i, c := range s.Containers {
		at := fmt.Sprintf("%s.containers[%d]", field, i)
		v.name(at+".name", c.Name)
		if c.Program != api.ProgramWhoami && c.Program != api.ProgramTools {
			v.say("%s.program %.20q: want %s or %s", at, c.Program, api.ProgramWhoami, api.ProgramTools)
		}
	}
}

func (v *validator) services(services []api.Service) {
	for i, s := range services {
		field := fmt.Sprintf("cluster.services[%d]", i)
		v.name(field+".namespace", s.Namespace)
		v.name(field+".name", s.Name)
		if s.ClusterIP.IsValid() {
			v.address(field+".clusterIP", s.ClusterIP)
		}
		for j, p := range s.Ports {
			if p.Port == 0 || p.Protocol != "TCP" && p.Protocol != "UDP" {
				v.say("%s.ports[%d] %d/%.10s: want a port and TCP or UDP", field, j, p.Port, p.Protocol)
			}
		}
		for j, b := range s.Backends {
			at := fmt.Sprintf("%s.backends[%d]", field, j)
			v.address(at+".address", b.Address)
			if len(b.Ports) != len(s.Ports) {
				v.say("%s has %d ports: want one for each of the service's %d", at, len(b.Ports), len(s.Ports))
			}
		}
	}
}
