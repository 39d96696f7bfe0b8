package machine

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// routeProtocol is that of the agent's routes, and its name (rt_protos).
const routeProtocol = "108\tlabctl\n"

// planNames gives the machine its node's name, lets every name of the lab resolve,
// names the agent's routes, and lets the nodes log in to each other by SSH.
func planNames(w want, s seen) (todo, error) {
	var t todo
	if s.Hostname != w.name {
		t.do("sysctl", "kernel/hostname", w.name)
		t.changed(provision.Changed, w.name, "hostname", "was "+s.Hostname)
	}
	t.put(s, hostnameFile, w.name+"\n", s.mode(hostnameFile), rootOwner)
	hosts := withBlock(s.Files[hostsFile].Content, w.lab, hostLines(w.topology), w.topology.Nodes.Names())
	if t.put(s, hostsFile, hosts, s.mode(hostsFile), rootOwner) {
		t.changed(provision.Changed, w.name, hostsFile, "")
	}
	t.keep(s, w.name, protocolsFile, header(w.lab)+routeProtocol)
	t.keep(s, w.name, sshConfigFile, w.sshConfig())
	t.login(w, s)
	return t, nil
}

// hostLines has every node of the lab at its address on its first network.
func hostLines(t *topo.Topology) string {
	var b strings.Builder
	for name, node := range t.Nodes.All() {
		if a, ok := nodeAddress(node); ok {
			fmt.Fprintf(&b, "%s %s\n", a, name)
		}
	}
	return b.String()
}

func nodeAddress(node topo.Node) (netip.Addr, bool) {
	if _, iface, ok := node.Primary(); ok {
		return iface.Address.Addr(), true
	}
	for _, iface := range node.Interfaces.All() {
		return iface.Address.Addr(), true
	}
	return netip.Addr{}, false
}

const (
	blockBegin = "# labctl: begin"
	blockEnd   = "# labctl: end\n"
)

// off is before a line of somebody else's that would be in the way. Clean takes it away.
const off = "# labctl: off "

// withBlock is a hosts file with our lines first. A distribution gives the
// machine's own name to 127.0.1.1, which the resolver prefers wherever it stands:
// such a line is put out of use.
func withBlock(text, lab, lines string, names []string) string {
	rest := strings.SplitAfter(withoutBlock(text), "\n")
	for i, line := range rest {
		fields := strings.Fields(line)
		named := slices.ContainsFunc(fields, func(f string) bool { return slices.Contains(names, f) })
		if named && strings.HasPrefix(fields[0], "127.") && !slices.Contains(fields, "localhost") {
			rest[i] = off + line
		}
	}
	return blockBegin + " of lab " + lab + "\n" + lines + blockEnd + strings.Join(rest, "")
}

// withoutBlock is a hosts file as it was without us. A block that has lost its end is only
// its first line.
func withoutBlock(text string) string {
	var kept, block strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, blockBegin):
			inside = true
		case inside && line == blockEnd:
			inside = false
			block.Reset()
		case inside:
			block.WriteString(line)
		default:
			kept.WriteString(strings.TrimPrefix(line, off))
		}
	}
	return kept.String() + block.String()
}

// mode is that of a file that is there; of a new one the usual.
func (s seen) mode(path string) int64 {
	if f, there := s.Files[path]; there {
		return f.Mode
	}
	return plainMode
}

// Below a home.
const (
	keyName  = ".ssh/labctl_ed25519"
	keysFile = ".ssh/authorized_keys"
)

// sshConfig is for the ssh(1) of every user of the machine.
func (w want) sshConfig() string {
	return header(w.lab) + "Host " + strings.Join(w.topology.Nodes.Names(), " ") + `
	IdentityFile ~/` + keyName + `
	GlobalKnownHostsFile ` + knownFile + ` /etc/ssh/ssh_known_hosts
`
}

// login gives the lab's private key to the user and to root, and lets whoever has
// it in from the lab's own networks.
func (t *todo) login(w want, s seen) {
	t.secret(s, s.Account, w.key.private)
	if s.Account.UID != "0" {
		t.secret(s, account{"root", "0", "0", "/root"}, w.key.private)
	}
	from := make([]string, 0, len(w.topology.Networks))
	for _, network := range w.topology.Networks.All() {
		from = append(from, network.CIDR.String())
	}
	path := s.Account.Home + "/" + keysFile
	f, there := s.Files[path]
	mode := f.Mode
	if !there {
		mode = secretMode
	}
	line := fmt.Sprintf("from=%q %s %s\n", strings.Join(from, ","), w.key.public, w.alias())
	if t.put(s, path, withoutKeys(f.Content)+line, mode, s.Account.owner()) {
		t.changed(provision.Changed, w.name, path, "")
	}
}

func (a account) owner() string { return a.UID + ":" + a.GID }

func (t *todo) secret(s seen, a account, private string) {
	path := a.Home + "/" + keyName
	if s.has(path, private, secretMode) {
		return
	}
	t.do("run", "install", "-d", "-m", "700", "-o", a.UID, "-g", a.GID, a.Home+"/.ssh")
	t.put(s, path, private, secretMode, a.owner())
}

// withoutKeys is an authorized_keys file without the lines of any lab.
func withoutKeys(text string) string {
	lines := slices.Collect(strings.Lines(text))
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, " "+aliasPrefix) })
	text = strings.Join(lines, "")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}

// planKnown writes down the host keys of all nodes, which are known when all have
// been looked at.
func planKnown(w want, s seen) (todo, error) {
	var t todo
	var b strings.Builder
	b.WriteString(header(w.lab))
	for name, node := range w.topology.Nodes.All() {
		names := name
		for _, iface := range node.Interfaces.All() {
			names += "," + iface.Address.Addr().String()
		}
		for _, key := range w.hostKeys[name] {
			fmt.Fprintf(&b, "%s %s\n", names, key)
		}
	}
	t.keep(s, w.name, knownFile, b.String())
	return t, nil
}

// hostKeys are the machine's own, without comments, in a fixed order.
func (s seen) hostKeys() []string {
	var keys []string
	for path, f := range s.Files {
		fields := strings.Fields(f.Content)
		if strings.HasPrefix(path, "/etc/ssh/ssh_host_") && len(fields) >= 2 {
			keys = append(keys, fields[0]+" "+fields[1])
		}
	}
	slices.Sort(keys)
	return keys
}
