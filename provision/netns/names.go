package netns

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

const (
	// fabricFile is the fabric's name among the namespaces' files; no node can have it.
	fabricFile = "@fabric"
	// cgroupsFile is beside the labs; no lab can have it.
	cgroupsFile = "@cgroup2"
	netSuffix   = ".net"
	utsSuffix   = ".uts"
	namePrefix  = "labctl."

	// Where ip netns looks for names, and for files to bind over /etc.
	netnsDir    = "/run/netns"
	etcNetnsDir = "/etc/netns"

	// Files of the lab beside those in its etc.
	protocolsFile = "rt_protos"
	shellFile     = "bashrc"

	// maxInterface is IFNAMSIZ without the final NUL.
	maxInterface = 15
	// maxSocketPath is sun_path without the final NUL (unix(7)).
	maxSocketPath = 107
)

// paths knows where everything of one lab is.
type paths struct {
	run, data string // with the lab's name
	lab       string
	// cgroup is the lab's, where it was looked for and there can be one.
	cgroup string
}

func (o Options) paths(lab string) paths {
	data := cmp.Or(o.DataDir, "/var/lib/labctl")
	return paths{run: filepath.Join(o.run(), lab), data: filepath.Join(data, lab), lab: lab}
}

func (o Options) run() string { return cmp.Or(o.RunDir, "/run/labctl") }

// ownCgroups is where the provider mounts cgroup2 on a machine that has not.
func (o Options) ownCgroups() string { return filepath.Join(o.run(), cgroupsFile) }

func (p paths) nsDir() string     { return filepath.Join(p.run, "ns") }
func (p paths) runNodes() string  { return filepath.Join(p.run, "nodes") }
func (p paths) dataNodes() string { return filepath.Join(p.data, "nodes") }
func (p paths) bin() string       { return filepath.Join(p.data, "bin") }

// net is the file of a node's network namespace; of the fabric's with no node named.
func (p paths) net(node string) string { return filepath.Join(p.nsDir(), fileName(node)+netSuffix) }
func (p paths) uts(node string) string { return filepath.Join(p.nsDir(), fileName(node)+utsSuffix) }

func fileName(node string) string {
	if node == "" {
		return fabricFile
	}
	return node
}

func (p paths) runNode(node string) string  { return filepath.Join(p.runNodes(), node) }
func (p paths) dataNode(node string) string { return filepath.Join(p.dataNodes(), node) }

// bpf is where the lab's BPF file system is mounted, pins a node's part of it.
func (p paths) bpf() string             { return filepath.Join(p.run, "bpf") }
func (p paths) pins(node string) string { return filepath.Join(p.bpf(), node) }

// etc holds what goes over the machine's /etc on a node, etcPods on one with
// pods; ip netns exec binds all that is in the one that etcLink points to.
func (p paths) etc() string     { return filepath.Join(p.data, "etc") }
func (p paths) etcPods() string { return filepath.Join(p.data, "etc-pods") }

// stored is everything of the lab in its data directory that is the provider's.
func (p paths) stored() []string {
	return []string{p.dataNodes(), p.bin(), p.etc(), p.etcPods(), filepath.Join(p.data, protocolsFile), filepath.Join(p.data, shellFile)}
}

// name is the namespace's name on the machine.
func (p paths) name(node string) string {
	if node == "" {
		return namePrefix + p.lab
	}
	return namePrefix + p.lab + "." + node
}

// nodeOf is the reverse of name; false for what is not of the lab. Neither labs
// nor nodes have a dot in their names.
func (p paths) nodeOf(name string) (node string, ok bool) {
	rest, ok := strings.CutPrefix(name, namePrefix+p.lab)
	if !ok || rest == "" {
		return "", ok
	}
	return strings.CutPrefix(rest, ".")
}

func (p paths) netnsLink(node string) string { return filepath.Join(netnsDir, p.name(node)) }
func (p paths) etcLink(node string) string   { return filepath.Join(etcNetnsDir, p.name(node)) }

// checkLengths refuses names that leave no room for the path of a service's socket.
func (p paths) checkLengths(node string) error {
	socket := filepath.Join(p.runNode(node), "agent.sock")
	if len(socket) > maxSocketPath {
		return fmt.Errorf("socket %s: %d bytes, and a unix socket's path holds %d (shorten the name of the lab or of the node)",
			socket, len(socket), maxSocketPath)
	}
	return nil
}

// markPrefix begins the alias of every link of the lab.
func markPrefix(lab string) string { return "labctl lab=" + lab + " " }

func linkAlias(lab, node, iface string) string {
	return fmt.Sprintf("%snode=%s interface=%s", markPrefix(lab), node, iface)
}

func bridgeAlias(lab, network string) string {
	return fmt.Sprintf("%snetwork=%s", markPrefix(lab), network)
}

// aliasNode is the node that a link's alias names.
func aliasNode(alias string) string {
	for _, field := range strings.Fields(alias) {
		if node, ok := strings.CutPrefix(field, "node="); ok {
			return node
		}
	}
	return ""
}

// portName is the other end of a node's interface. The readable form has a dot,
// which neither the form with a hash nor a bridge's name has.
func portName(node, iface string) string {
	if name := node + "." + iface; len(name) <= maxInterface {
		return name
	}
	return "port" + hash(11, node, iface)
}

func bridgeName(network string) string {
	if name := "br-" + network; len(name) <= maxInterface && !strings.Contains(name, ".") {
		return name
	}
	return "br-" + hash(12, network)
}

func hash(digits int, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])[:digits]
}

// linkAddress is the same each time a link is made again, so that its
// neighbours' ARP tables stay right. It is a locally administered address.
func linkAddress(lab, node, iface string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(strings.Join([]string{lab, node, iface}, "\x00")))
	return net.HardwareAddr(append([]byte{0x02}, sum[:5]...))
}
