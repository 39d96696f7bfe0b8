package topo

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// What names may look like, and how long they may be in bytes. The limits of
// labs and nodes keep the paths of Unix sockets below 107 bytes.
const (
	// NamePattern is an RFC 1123 label.
	NamePattern = `^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	// InterfacePattern is what both the kernel and a shell take unharmed.
	InterfacePattern = `^[A-Za-z0-9][A-Za-z0-9._-]*$`

	MaxLabName       = 32
	MaxNodeName      = 45
	MaxName          = 63 // of networks and stages
	MaxInterfaceName = 15 // IFNAMSIZ less the final NUL
)

var (
	namePattern      = regexp.MustCompile(NamePattern)
	interfacePattern = regexp.MustCompile(InterfacePattern)
	boxPattern       = regexp.MustCompile(BoxPattern)
	boxVersion       = regexp.MustCompile(BoxVersionPattern)
	hostPattern      = regexp.MustCompile(HostPattern)
	userPattern      = regexp.MustCompile(UserPattern)
	keyPattern       = regexp.MustCompile(KeyPattern)
)

// CheckName says whether name can be a lab's; the error matches [ErrInvalid].
func CheckName(name string) error {
	if what, cure := labelMistake(name, MaxLabName); what != "" {
		return invalid(what + "; " + cure)
	}
	return nil
}

// labelMistake says what keeps name from being an RFC 1123 label; empty where nothing does.
func labelMistake(name string, longest int) (what, cure string) {
	switch {
	case !namePattern.MatchString(name):
		return show(name) + " is not a name as RFC 1123 has it", "use small letters, digits and - only, with a letter or a digit at both ends"
	case len(name) > longest:
		return fmt.Sprintf("%s has %d characters", show(name), len(name)), fmt.Sprintf("use %d at most", longest)
	}
	return "", ""
}

func (c *checker) labName() {
	if name := c.t.Metadata.Name; name != "" {
		if what, cure := labelMistake(name, MaxLabName); what != "" {
			c.wrong(at("metadata", "name"), what, cure)
		}
	}
}

func (c *checker) nodeNames() {
	c.labels(at("nodes"), c.t.Nodes.Names(), MaxNodeName)
	if _, ok := c.nodes["localhost"]; ok {
		c.wrongKey(at("nodes", "localhost"), "localhost is every node's own name for itself", "use another name")
	}
}

func (c *checker) networkNames() { c.labels(at("networks"), c.t.Networks.Names(), MaxName) }

func (c *checker) stageNames() { c.labels(at("stages"), c.t.Stages.Names(), MaxName) }

// labels: every key below p is an RFC 1123 label.
func (c *checker) labels(p fieldPath, names []string, longest int) {
	for _, name := range names {
		if what, cure := labelMistake(name, longest); what != "" {
			c.wrongKey(p.key(name), what, cure)
		}
	}
}

func (c *checker) interfaceNames() {
	for node, n := range c.t.Nodes.All() {
		for _, name := range n.Interfaces.Names() {
			if what, cure := c.interfaceMistake(name); what != "" {
				c.wrongKey(at("nodes", node, "interfaces", name), what, cure)
			}
		}
	}
}

func (c *checker) interfaceMistake(name string) (what, cure string) {
	switch {
	case name == c.uplink.Interface:
		return name + " is the uplink, which every node has already", "call it eth1 or the like"
	case slices.Contains(reservedInterfaces(), name), strings.HasPrefix(name, "lxc"):
		return name + " is reserved", "call it eth1 or the like"
	case !interfacePattern.MatchString(name):
		return show(name) + " is not a name for an interface", "use letters, digits, . _ and - only, and begin with a letter or a digit"
	case len(name) > MaxInterfaceName:
		return fmt.Sprintf("%s has %d characters", show(name), len(name)), fmt.Sprintf("the kernel takes %d at most", MaxInterfaceName)
	}
	return "", ""
}

// reservedInterfaces are the kernel's own (all and default are folders beside
// the interfaces in /proc/sys/net/ipv4/conf) and the agent's.
func reservedInterfaces() []string {
	return []string{"lo", "all", "default", "labctl_host", "labctl_net", "labctl_vxlan"}
}

// workloads: each is a path below the folder of the topology.
func (c *checker) workloads() {
	seen := map[string]bool{}
	for i, path := range c.t.Workloads {
		p := at("workloads").index(i)
		switch {
		case path == "":
		case !fs.ValidPath(path) || path == "." || strings.ContainsAny(path, "\\:\x00"):
			c.wrong(p, show(path)+" is not a path below the folder of this file", "write it like webpod.yaml or manifests/webpod.yaml")
		case seen[path]:
			c.wrong(p, show(path)+" stands here already", "keep one of the two")
		}
		seen[path] = true
	}
}
