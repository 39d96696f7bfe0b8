// Package machine makes a Linux machine that SSH reaches into a node of a lab.
//
// What it looks at and what it does are two scripts, look.sh and act.sh, which
// are the same for every machine: all that differs travels as arguments and
// input. Between them stand pure functions, the phases, that compare what was
// seen with what the topology asks for. So a phase costs one round trip, and a
// machine that is as it should be one for all phases together.
//
// A machine is one node of one lab. What bears labctl's mark on it:
//
//	/var/lib/labctl-node/                 the node's own directory
//	    mark                              which lab and which node it is
//	    found.json                        what it was before, for Clean
//	    made.json                         what was made of it since, for Clean
//	    network.batch, uplink.nft         the network as ip(8) and nft(8) take it, for the next boot
//	/run/labctl-node/                     sockets and locks
//	/sys/fs/bpf/labctl-node/              pins
//	/etc/systemd/system/labctl-*.service  the agent, and what the network needs at boot
//	/etc/systemd/network/05-labctl-*      interfaces, where systemd-networkd holds them
//	/etc/systemd/networkd.conf.d/90-labctl.conf, /etc/NetworkManager/conf.d/90-labctl.conf
//	/etc/sysctl.d/90-labctl.conf
//	/etc/iproute2/rt_protos.d/labctl.conf the name of the agent's routes
//	/etc/hosts                            the lines between our marks
//	/etc/ssh/ssh_config.d/labctl.conf, /etc/ssh/labctl_known_hosts, ~/.ssh/labctl_ed25519
//	~/.ssh/authorized_keys                the line that ends with "labctl lab=…"
//	nft table netdev labctl               the silence of the uplink
//	links with the alias "labctl lab=…"   dummies; routes of protocol 108 are the agent's
//
// The paths have neither the lab nor the node in them, and are not those of the
// namespace provider: a machine can be a node of one lab and carry others.
package machine

import (
	"path"
	"path/filepath"
)

// Options are what a [Machines] is made from.
type Options struct {
	// DataDir holds a directory for each lab. What Machines keeps of lab L, a key
	// pair and the machines' pinned host keys, lies in DataDir/L/ssh.
	DataDir string
	// Tell is told what is under way on a node, and what the machine lacks; nil
	// where nobody listens.
	Tell func(node, what string)
}

// Access is how a machine is reached, and which of its devices are the node's.
type Access struct {
	Host    string
	Port    int    // 22 where it is 0
	User    string // root, or one who may use sudo without a password
	KeyFile string // empty: the SSH agent is asked
	// Devices maps an interface of the node to the Ethernet address or to the
	// present name of the device that is to become it. One that is not here has
	// its name already.
	Devices map[string]string
}

// Where things are on a machine.
const (
	dir     = "/var/lib/labctl-node"
	runDir  = "/run/labctl-node"
	pinsDir = "labctl-node" // in a BPF file system

	markFile  = dir + "/mark"
	foundFile = dir + "/found.json"
	// triedFile names the packages that could not be had since the machine booted.
	triedFile = runDir + "/tried"
	// PackagesLog is what the package manager said.
	PackagesLog = runDir + "/packages.log"

	hostsFile     = "/etc/hosts"
	hostnameFile  = "/etc/hostname"
	protocolsFile = "/etc/iproute2/rt_protos.d/labctl.conf"
	sysctlFile    = "/etc/sysctl.d/90-labctl.conf"
	sshConfigFile = "/etc/ssh/ssh_config.d/labctl.conf"
	knownFile     = "/etc/ssh/labctl_known_hosts"

	networkdDir    = "/etc/systemd/network"
	networkdPrefix = networkdDir + "/05-labctl-"
	networkdConf   = "/etc/systemd/networkd.conf.d/90-labctl.conf"
	managerConf    = "/etc/NetworkManager/conf.d/90-labctl.conf"
	unitDir        = "/etc/systemd/system"
	unitPrefix     = "labctl-"
	bootUnit       = unitPrefix + "network.service"
	batchFile      = dir + "/network.batch"
	silenceFile    = dir + "/uplink.nft"
)

// lookedAt are the files that a whole look brings along, as patterns. The mark
// comes with every look.
func lookedAt() []string {
	return append(resolverFiles(),
		foundFile, madeFile, triedFile, batchFile, silenceFile, hostsFile, hostnameFile, protocolsFile, sysctlFile,
		sshConfigFile, knownFile, networkdPrefix+"*", networkdConf, managerConf, path.Join(unitDir, unitPrefix)+"*",
		path.Join(wantsDir, unitPrefix)+"*",
		"/etc/ssh/ssh_host_*_key.pub", "/root/.ssh/labctl_ed25519")
}

// resolverFiles name the machine's name server: the first where systemd-resolved
// stands before it.
func resolverFiles() []string {
	return []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"}
}

// labDir is where what is kept of a lab lies on the machine that labctl runs on.
func (o Options) labDir(lab string) string { return filepath.Join(o.DataDir, lab, "ssh") }

// knownHosts is the file with the pinned host keys of a lab's machines, each
// under its node's name.
func (o Options) knownHosts(lab string) string { return filepath.Join(o.labDir(lab), "known_hosts") }

func header(lab string) string { return "# Made by labctl for lab " + lab + ".\n" }
