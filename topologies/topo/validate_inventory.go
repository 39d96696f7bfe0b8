package topo

import (
	"cmp"
	"fmt"
	"net"
	"strings"
)

const (
	// HostPattern is a host's name or address; none begins like an option.
	HostPattern = `^[A-Za-z0-9:]([A-Za-z0-9._:%-]*[A-Za-z0-9.])?$`
	// UserPattern is the name of an account (useradd(8)).
	UserPattern = `^[A-Za-z_][A-Za-z0-9_.-]*$`
	// KeyPattern is a path that says the same from every directory.
	KeyPattern = `^(~?/|[A-Za-z]:[/\\]).`
)

// inventory: every node has one machine, and no machine is two.
func (c *checker) inventory() {
	inventory, p := c.t.Providers.SSH, at("providers", "ssh")
	if inventory == nil {
		return
	}
	c.account(p, inventory.User, inventory.Key)
	hosts := map[string]string{}
	for name, m := range inventory.Nodes.All() {
		here := p.key("nodes").key(name)
		if _, ok := c.nodes[name]; !ok && !c.noted["nodes"] && c.has("nodes") {
			c.wrongKey(here, "there is no node "+show(name), c.oneOf(name, "nodes", c.t.Nodes.Names))
			continue
		}
		c.machine(here, m, inventory.User)
		address := fmt.Sprintf("%s port %d", show(m.Host), cmp.Or(m.Port, DefaultSSHPort))
		if other, taken := hosts[address]; taken && m.Host != "" {
			c.wrong(here.key("host"), address+" is the machine of "+show(other)+" already", "give each node a machine of its own")
		}
		hosts[address] = name
		c.devices(here.key("interfaces"), name, m)
	}
	if c.noted[p.key("nodes")] || !c.has(p.key("nodes")) {
		return
	}
	for _, name := range c.t.Nodes.Names() {
		if _, ok := inventory.Nodes.Get(name); !ok {
			c.wrongKey(p.key("nodes"), "there is no machine for "+show(name), "add one: an inventory has every node of the lab")
		}
	}
}

func (c *checker) machine(p fieldPath, m Machine, user string) {
	if m.Host != "" && !hostPattern.MatchString(m.Host) {
		c.wrong(p.key("host"), show(m.Host)+" is not the name or the address of a host", "write it like 203.0.113.5 or lab1.example.org")
	}
	c.within(p.key("port"), m.Port, 1, 65535)
	c.account(p, m.User, m.Key)
	if m.User == "" && user == "" && !c.has(p.key("user")) && !c.has(at("providers", "ssh", "user")) {
		c.wrongKey(p, "nobody is named who logs in", "add user: here, or for all machines at providers.ssh.user")
	}
}

func (c *checker) account(p fieldPath, user, key string) {
	if user != "" && !userPattern.MatchString(user) {
		c.wrong(p.key("user"), show(user)+" is not the name of a user", "write it like ubuntu")
	}
	if key != "" && !keyPattern.MatchString(key) {
		c.wrong(p.key("key"), show(key)+" depends on the directory that labctl is started in", "write it from / or from ~/, like ~/.ssh/id_ed25519")
	}
}

// devices: each becomes one interface of the node that is on a network.
func (c *checker) devices(p fieldPath, node string, m Machine) {
	users := map[string]string{}
	for name, device := range m.Interfaces.All() {
		iface, ok := c.nodes[node].Interfaces.Get(name)
		switch {
		case name == c.uplink.Interface:
			c.wrongKey(p.key(name), name+" is the uplink, which stays as the machine has it", "take it out")
			continue
		case !ok && !c.noted[at("nodes", node, "interfaces")]:
			c.wrongKey(p.key(name), show(node)+" has no interface "+show(name), c.oneOf(name, "interfaces", c.nodes[node].Interfaces.Names))
			continue
		case ok && iface.Type == Dummy:
			c.wrongKey(p.key(name), show(name)+" is a dummy, which labctl makes", "take it out")
			continue
		}
		if device == "" {
			continue
		}
		mac, err := net.ParseMAC(string(device))
		if isMAC := err == nil && len(mac) == 6; !isMAC && (!interfacePattern.MatchString(string(device)) || len(device) > MaxInterfaceName) {
			c.wrong(p.key(name), show(string(device))+" is neither an Ethernet address nor a device's name", "write it like 52:54:00:12:34:56 or ens5")
			continue
		}
		key := strings.ToLower(string(device))
		if other, taken := users[key]; taken {
			c.wrong(p.key(name), show(string(device))+" becomes "+show(other)+" already", "give each interface a device of its own")
		}
		users[key] = name
	}
}
