package vagrant

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"text/template"

	"github.com/native-routing/labctl/topologies/topo"
)

//go:embed Vagrantfile.tmpl
var vagrantfileText string

// What a VM gets where the topology is silent: enough for the agent and a few pods.
const (
	defaultCPUs      = 1
	defaultMemoryMiB = 1024
)

// vagrantfile is what the template writes.
type vagrantfile struct {
	Lab             string
	Box, BoxVersion string
	// Guest is Vagrant's name for the box's system, where it is known: Vagrant
	// then need not find out by logging in several times.
	Guest    string
	Provider string
	HostOnly bool
	// Emulated says that this machine has no KVM.
	Emulated bool
	// Management is libvirt's network by which the host reaches the machines.
	Management  netip.Prefix
	BootTimeout int // seconds
	Machines    []guest
	// Stale are machines that are there, and that the topology has no more.
	Stale []string
}

type guest struct {
	Name, Object, Description string
	CPUs, MemoryMiB, SSHPort  int
	NICs                      []nic
}

type nic struct {
	Adapter                        int // VirtualBox's: 1 is the NAT
	Address, Netmask, MAC, Network string
	MTU                            int // 0 where it is no more than Ethernet's own
}

// Mark begins the names of libvirt's domains.
func (v vagrantfile) Mark() string { return mark(v.Lab) }

// ManagementName is the name of libvirt's management network.
func (v vagrantfile) ManagementName() string { return managementName(v.Lab) }

// Group is where VirtualBox's window shows the lab's machines.
func (v vagrantfile) Group() string { return "/labctl/" + v.Lab }

// render writes the Vagrantfile. No value of the topology is anything but a
// quoted literal or a number in it.
func (v vagrantfile) render() ([]byte, error) {
	// Both what quote takes and what it is given are fixed by the template.
	text := func(value any) (string, error) { return quote(fmt.Sprint(value)) }
	t, err := template.New("Vagrantfile").Funcs(template.FuncMap{"quote": text}).Parse(vagrantfileText)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("write the Vagrantfile of lab %s: %w", v.Lab, err)
	}
	return b.Bytes(), nil
}

// describe turns a topology into what its Vagrantfile says.
func describe(t *topo.Topology, s settings, emulated bool) vagrantfile {
	box, version := boxOf(t)
	v := vagrantfile{
		Lab: t.Metadata.Name, Box: box, BoxVersion: version, Guest: guestOf(box),
		Provider: s.Provider, HostOnly: s.HostOnly, Emulated: emulated, Management: s.Management,
		BootTimeout: int(bootTimeout.Seconds()),
	}
	addresses := hardwareAddresses(t, s.Provider)
	for name, n := range t.Nodes.All() {
		m := guest{
			Name: name, Object: objectName(v.Lab, name), Description: "labctl lab=" + v.Lab + " node=" + name,
			CPUs: cmp.Or(n.Resources.CPUs, defaultCPUs), MemoryMiB: memoryOf(n), SSHPort: n.Resources.SSHPort,
		}
		for ifname, iface := range n.Interfaces.All() {
			if iface.Type == topo.Dummy {
				continue // made within the machine
			}
			network, _ := t.Networks.Get(iface.Network)
			m.NICs = append(m.NICs, nic{
				Adapter: len(m.NICs) + 2,
				Address: iface.Address.Addr().String(),
				Netmask: net.IP(net.CIDRMask(iface.Address.Bits(), 32)).String(),
				MAC:     strings.ToUpper(strings.ReplaceAll(addresses[name][ifname].String(), ":", "")),
				Network: objectName(v.Lab, iface.Network),
				MTU:     largerMTU(network.MTU),
			})
		}
		v.Machines = append(v.Machines, m)
	}
	return v
}

// largerMTU is 0 for what a link takes without being told. A smaller one is
// each machine's own matter.
func largerMTU(mtu int) int {
	if mtu <= topo.DefaultMTU {
		return 0
	}
	return mtu
}

func memoryOf(n topo.Node) int { return cmp.Or(n.Resources.MemoryMiB, defaultMemoryMiB) }

func boxOf(t *topo.Topology) (name, version string) {
	if v := t.Providers.Vagrant; v != nil {
		return v.Box, v.BoxVersion
	}
	return DefaultBox, DefaultBoxVersion
}

// guestOf knows the boxes of well-known makers by their names. Of any other
// the box's own Vagrantfile may tell, or Vagrant finds out.
func guestOf(box string) string {
	maker, name, _ := strings.Cut(strings.ToLower(box), "/")
	switch maker {
	case "bento", "generic", "ubuntu", "debian", "cloud-image":
	default:
		return ""
	}
	switch {
	case strings.HasPrefix(name, "ubuntu"), maker == "ubuntu":
		return "ubuntu"
	case strings.HasPrefix(name, "debian"), maker == "debian":
		return "debian"
	}
	return ""
}
