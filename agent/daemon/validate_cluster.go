//go:build linux

package daemon

import (
	"fmt"
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// keySize is what agents sign their messages with, in bytes.
const keySize = 32

// maxPage bounds the page of a node, in bytes.
const maxPage = 64 << 10

// The most bytes of an object's name (a DNS subdomain, RFC 1123) and of a UID.
const (
	maxObjectName = 253
	maxUID        = 63
)

// plain says whether a text has only lower case letters, digits, and the bytes
// of also in its middle: names go into paths and links' aliases. It is asked for
// each of ten thousand services, so it is no regular expression.
func plain(text, also string, most int) bool {
	if len(text) == 0 || len(text) > most {
		return false
	}
	for i := range len(text) {
		c := text[i]
		alone := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alone && (i == 0 || i == len(text)-1 || strings.IndexByte(also, c) < 0) {
			return false
		}
	}
	return true
}

func (v *validator) name(field, name string) {
	if !plain(name, "-.", maxObjectName) {
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
		if !plain(p.UID, "-", maxUID) {
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
		if problem := serviceProblem(s); problem != "" {
			v.say("cluster.services[%d] %.60q: %s", i, s.Key(), problem)
		}
	}
}

// serviceProblem is what makes no sense in a service; nothing where all does.
func serviceProblem(s api.Service) string {
	if !plain(s.Namespace, "-.", maxObjectName) || !plain(s.Name, "-.", maxObjectName) {
		return "want a namespace and a name such as default and webpod"
	}
	if s.ClusterIP.IsValid() && !isHost(s.ClusterIP) {
		return fmt.Sprintf("clusterIP %s: want the IPv4 address of a host", s.ClusterIP)
	}
	for _, p := range s.Ports {
		if p.Port == 0 || p.Protocol != "TCP" && p.Protocol != "UDP" {
			return fmt.Sprintf("port %d/%.10s: want a port and TCP or UDP", p.Port, p.Protocol)
		}
	}
	for _, b := range s.Backends {
		if !isHost(b.Address) {
			return fmt.Sprintf("backend %s: want the IPv4 address of a host", b.Address)
		}
		if len(b.Ports) != len(s.Ports) {
			return fmt.Sprintf("backend %s has %d ports: want one for each of the service's %d", b.Address, len(b.Ports), len(s.Ports))
		}
	}
	return ""
}
