// Package vagrant is the provider whose nodes are VMs that Vagrant makes, on
// VirtualBox or on libvirt: it writes a Vagrantfile from the topology, drives
// vagrant, and hands each machine over, as soon as it is up, to whoever makes
// a node of a machine that SSH reaches.
package vagrant

import (
	"cmp"
	"context"
	"time"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/machine"
	"github.com/native-routing/labctl/topologies/topo"
)

// Name is the provider's.
const Name = "vagrant"

// What Vagrant itself calls its providers.
const (
	VirtualBox = "virtualbox"
	Libvirt    = "libvirt"
)

// The study's own box, where a topology names none.
const (
	DefaultBox        = "bento/ubuntu-24.04"
	DefaultBoxVersion = "202502.21.0"
)

const (
	// bootTimeout is how long Vagrant waits for one machine's SSH: emulated
	// machines on a busy host need minutes.
	bootTimeout = 10 * time.Minute
	// lookTime is how long a vagrant that only looks may take. It takes seconds,
	// unless what it asks does not answer.
	lookTime = 2 * time.Minute
	// interruptGrace is what an interrupted vagrant gets for its own cleaning up.
	interruptGrace = time.Minute
)

// Options say where the provider keeps its files, and whom it tells.
type Options struct {
	// DataDir holds a directory for each lab; this provider's files of lab L are in L/vagrant.
	DataDir string
	// Provider is virtualbox or libvirt; the topology's where it is empty.
	Provider string
	// HostOnly puts VirtualBox's networks of a new lab where the host has an
	// address in each, as the study does. Two labs with the same addresses then
	// disturb each other, and VirtualBox may refuse the addresses
	// (/etc/vbox/networks.conf). Without it they are internal networks that bear
	// the lab's name.
	HostOnly bool
	// Machines makes nodes of machines.
	Machines Machines
	// Tell is told what becomes of a node; node is empty where it concerns all. May be nil.
	Tell func(node, what string)
	// Command is vagrant's executable; vagrant on the PATH where it is empty.
	Command string
	// GatherTime is how long the first machine that is wanted waits for others,
	// to be booted with them; 50 ms where it is 0.
	GatherTime time.Duration
	// LookTime is how long vagrant may take to say how machines stand and how
	// they are reached; two minutes where it is 0.
	LookTime time.Duration
	// LockPatience is how long to wait for another vagrant that holds a machine;
	// as long as one boot may take where it is 0.
	LockPatience time.Duration
}

// Machines makes a node of a Linux machine that SSH reaches. All its methods
// may be repeated, and called at once for different nodes. [machine.Machines] is one.
type Machines interface {
	// Ensure gives the machine all that a node of t has.
	Ensure(ctx context.Context, t *topo.Topology, node string, at machine.Access) ([]provision.Change, error)
	// EnsureLinks brings the network of all nodes in line.
	EnsureLinks(ctx context.Context, t *topo.Topology, at map[string]machine.Access) ([]provision.Change, error)
	// Open connects to a machine that is a node already.
	Open(ctx context.Context, lab, node string, at machine.Access) (provision.Node, error)
	// Forget drops what is kept of machines that are no more, such as their
	// pinned host keys; with none named, all that is kept of the lab.
	Forget(ctx context.Context, lab string, nodes ...string) error
	// KnownHosts is the file of the lab's pinned host keys.
	KnownHosts(lab string) string
}

func (o Options) command() string             { return cmp.Or(o.Command, "vagrant") }
func (o Options) gatherTime() time.Duration   { return cmp.Or(o.GatherTime, gatherTime) }
func (o Options) lookTime() time.Duration     { return cmp.Or(o.LookTime, lookTime) }
func (o Options) lockPatience() time.Duration { return cmp.Or(o.LockPatience, bootTimeout) }

func (o Options) tell(node, what string) {
	if o.Tell != nil {
		o.Tell(node, what)
	}
}

// provider is that of a new lab.
func (o Options) provider(t *topo.Topology) string {
	if o.Provider != "" {
		return o.Provider
	}
	if v := t.Providers.Vagrant; v != nil && v.Provider != "" {
		return v.Provider
	}
	return topo.DefaultVagrantProvider
}
