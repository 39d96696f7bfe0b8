package vagrant

import (
	"crypto/sha256"
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"

	"github.com/native-routing/labctl/topologies/topo"
)

// markPrefix begins the name of every object that is made for a lab. Labs,
// nodes and networks have no underscore in their names, so the first one ends
// the lab's.
const markPrefix = "labctl-"

// mark is what the names of all objects of the lab begin with: domains,
// volumes and networks of libvirt; machines and networks of VirtualBox.
func mark(lab string) string { return markPrefix + lab + "_" }

// objectName is that of the lab's machine or network.
func objectName(lab, name string) string { return mark(lab) + name }

// managementName is libvirt's network by which the host reaches the lab's machines.
func managementName(lab string) string { return markPrefix + lab }

// labOf is the lab whose mark a name bears.
func labOf(name string) (lab string, ok bool) {
	rest, ok := strings.CutPrefix(name, markPrefix)
	lab, _, marked := strings.Cut(rest, "_")
	return lab, ok && marked && topo.CheckName(lab) == nil
}

// paths knows where the files of one lab are.
type paths struct{ dir string }

func (o Options) paths(lab string) paths {
	return paths{filepath.Join(o.DataDir, lab, "vagrant")}
}

func (p paths) vagrantfile() string { return filepath.Join(p.dir, "Vagrantfile") }
func (p paths) log() string         { return filepath.Join(p.dir, "vagrant.log") }
func (p paths) settings() string    { return filepath.Join(p.dir, "lab.json") }
func (p paths) ssh() string         { return filepath.Join(p.dir, "ssh.json") }

// machines is where Vagrant keeps what it knows of them, by name and provider.
func (p paths) machines() string { return filepath.Join(p.dir, ".vagrant", "machines") }

// id is the file by which Vagrant knows a machine that it made.
func (p paths) id(node, provider string) string {
	return filepath.Join(p.machines(), node, provider, "id")
}

// key is the SSH key that Vagrant gives to a machine of its own.
func (p paths) key(node, provider string) string {
	return filepath.Join(p.machines(), node, provider, "private_key")
}

// The first three bytes of the addresses that VirtualBox and QEMU give to NICs.
var (
	ouiVirtualBox = [3]byte{0x08, 0x00, 0x27}
	ouiQEMU       = [3]byte{0x52, 0x54, 0x00}
)

// hardwareAddresses gives every NIC of the lab a MAC address of its own, by
// node and interface, and the same one each time: by it the machine's devices
// are told apart, whatever its kernel calls them.
func hardwareAddresses(t *topo.Topology, provider string) map[string]map[string]net.HardwareAddr {
	oui := ouiVirtualBox
	if provider == Libvirt {
		oui = ouiQEMU
	}
	taken := map[uint32]bool{}
	all := map[string]map[string]net.HardwareAddr{}
	for node, n := range t.Nodes.All() {
		all[node] = map[string]net.HardwareAddr{}
		for name, iface := range n.Interfaces.All() {
			if iface.Type == topo.Dummy {
				continue
			}
			sum := sha256.Sum256([]byte(t.Metadata.Name + "\x00" + node + "\x00" + name))
			low := binary.BigEndian.Uint32(sum[:]) >> 8
			for taken[low] {
				low = (low + 1) & 0xffffff
			}
			taken[low] = true
			all[node][name] = net.HardwareAddr{oui[0], oui[1], oui[2], byte(low >> 16), byte(low >> 8), byte(low)}
		}
	}
	return all
}

// devices are a node's, as [Access] has them.
func devices(t *topo.Topology, provider, node string) map[string]string {
	d := map[string]string{}
	for name, address := range hardwareAddresses(t, provider)[node] {
		d[name] = address.String()
	}
	return d
}
