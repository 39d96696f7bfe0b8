package topo

import (
	"fmt"
	"slices"
)

// The bounds of what a VM may be given.
const (
	MaxCPUs      = 256
	MinMemoryMiB = 128
	MaxMemoryMiB = 1 << 20
)

const (
	// BoxPattern is the name of a Vagrant box.
	BoxPattern = `^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$`
	// BoxVersionPattern is the version of a Vagrant box.
	BoxVersionPattern = `^[0-9][0-9A-Za-z.+-]*$`
)

// VagrantProviders are those that labctl can write a Vagrantfile for.
func VagrantProviders() []string { return []string{"virtualbox", "libvirt"} }

func (c *checker) resources() {
	for name, n := range c.t.Nodes.All() {
		p, r := at("nodes", name, "resources"), n.Resources
		c.within(p.key("cpus"), r.CPUs, 1, MaxCPUs)
		c.within(p.key("memoryMiB"), r.MemoryMiB, MinMemoryMiB, MaxMemoryMiB)
		c.within(p.key("sshPort"), r.SSHPort, 1, 65535)
	}
}

// within: a number that the file has lies within bounds. What could not be
// decoded counts as absent.
func (c *checker) within(p fieldPath, value, least, most int) {
	if value >= least && value <= most || value == 0 && !c.has(p) || c.noted[p] {
		return
	}
	c.wrong(p, fmt.Sprintf("%d is out of range", value), fmt.Sprintf("write a number from %d to %d", least, most))
}

// sshPorts: no two nodes forward the same port of the host.
func (c *checker) sshPorts() {
	users := map[int]string{}
	for name, n := range c.t.Nodes.All() {
		port := n.Resources.SSHPort
		if port == 0 {
			continue
		}
		if other, taken := users[port]; taken {
			c.wrong(at("nodes", name, "resources", "sshPort"), fmt.Sprintf("port %d is forwarded to %s already", port, show(other)), "give each node a port of its own")
			continue
		}
		users[port] = name
	}
}

func (c *checker) vagrant() {
	v, p := c.t.Providers.Vagrant, at("providers", "vagrant")
	if v == nil {
		return
	}
	if v.Box != "" && !boxPattern.MatchString(v.Box) {
		c.wrong(p.key("box"), show(v.Box)+" is not the name of a box", "write it like bento/ubuntu-24.04")
	}
	if v.BoxVersion != "" && !boxVersion.MatchString(v.BoxVersion) {
		c.wrong(p.key("boxVersion"), show(v.BoxVersion)+" is not the version of a box", "write it like 202502.21.0")
	}
	if v.Provider != "" && !slices.Contains(VagrantProviders(), v.Provider) {
		c.wrong(p.key("provider"), show(v.Provider)+" is not known here", choiceCure(v.Provider, VagrantProviders()))
	}
}
