//go:build linux

package bpf

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Names of the programs in the object, for CollectionSpec.Programs and a loaded
// Collection.Programs. The package's doc comment says where each is attached.
const (
	FromPod      = "from_pod"
	ToPod        = "to_pod"
	FromHost     = "from_host"
	FromNetdev   = "from_netdev"
	ToNetdev     = "to_netdev"
	Connect4     = "connect4"
	Sendmsg4     = "sendmsg4"
	Recvmsg4     = "recvmsg4"
	Getpeername4 = "getpeername4"
)

// Names of the maps. Their contents are defined in include/maps.h.
const (
	Frontends     = "frontends"
	Slots         = "slots"
	Backends      = "backends"
	Maglev        = "maglev"
	Affinities    = "affinities"
	AffinityMatch = "affinity_match"
	Endpoints     = "endpoints"
	Addresses     = "addresses"
	IPCache       = "ipcache"
	Nonmasquerade = "nonmasquerade"
	Devices       = "devices"
	Flows         = "flows"
	MoreFlows     = "more_flows"
	Recents       = "recents"
	Epochs        = "epochs"
	Handover      = "handover"
	NATs          = "nats"
	Fragments     = "fragments"
	Sockets       = "sockets"
	Metrics       = "metrics"
	Settings      = "settings"
	Events        = "events"
)

// Defaults of Options, as Cilium has them.
const (
	DefaultNodePortMin = 30000
	DefaultNodePortMax = 32767
	DefaultMaglevSize  = 16381
)

// DefaultLoopback is the source of a pod that reaches itself by a service.
var DefaultLoopback = netip.AddrFrom4([4]byte{169, 254, 42, 1})

// Options are what one node's datapath is built with. They hold as long as the
// programs do: to change one, load again and exchange the programs.
type Options struct {
	// PodCIDR is this node's pods, NativeCIDR where no masquerade is wanted.
	// An invalid prefix is empty: it holds no address.
	PodCIDR, NativeCIDR netip.Prefix
	// Masquerade gives pods that leave NativeCIDR the address of the device.
	Masquerade bool
	// HostNetns is the netns cookie of the node, by which a socket hook knows
	// that 127.0.0.1 may mean a NodePort. 0 if that is not wanted.
	HostNetns uint64
	// NodePortMin and NodePortMax bound the ports that all nodes serve, both
	// inclusive. Both 0: the default.
	NodePortMin, NodePortMax uint16
	// Loopback is DefaultLoopback unless set.
	Loopback netip.Addr
	// MaglevSize is the length of each Maglev table, a prime, the same on all
	// nodes; 0 is the default. MaglevSeed is of the hash, the same on all too.
	MaglevSize, MaglevSeed uint32
	// Features are those of the kernel, from Probe. The zero value works on
	// every kernel since 5.15.
	Features Features
	// Sizes are of the maps; a zero is that map's default.
	Sizes Sizes
}

// Sizes are the most entries that a map holds, but for Events, which is bytes
// and rounded up to a power of two of whole pages. Backends and Endpoints count
// ids, from 1.
type Sizes struct {
	Frontends, Slots, Backends, Maglev, AffinityMatch     uint32
	Endpoints, Addresses, IPCache, Nonmasquerade, Devices uint32
	Flows, NATs, Affinities, Fragments, Sockets, Events   uint32
}

// DefaultSizes are enough for some thousand services on a node of 2 GiB.
func DefaultSizes() Sizes {
	return Sizes{
		Frontends: 65536, Slots: 262144, Backends: 65536, Maglev: 65536, AffinityMatch: 65536,
		Endpoints: 1024, Addresses: 2048, IPCache: 65536, Nonmasquerade: 16384, Devices: 256,
		Flows: 131072, NATs: 131072, Affinities: 65536, Fragments: 8192, Sockets: 65536,
		Events: 1 << 20,
	}
}

// Features are what a kernel has and the datapath can do without.
type Features struct {
	// KernelContext lets programs see how a packet's checksum stands, and
	// write it themselves (bpf_cast_to_kern_ctx, Linux 6.2). Without it they
	// ask helpers to, which costs some 40 ns more for a translated packet.
	KernelContext bool
	// HZ is how many jiffies make a second, by which the datapath tells time;
	// 0 if not known. Then it asks for the time, which costs 14 ns a packet.
	HZ uint32
	// SetRetval lets a refused connect fail with EHOSTUNREACH (Linux 5.18).
	// Without it the error is EPERM.
	SetRetval bool
}

// Probe finds out what the running kernel has. An error means that it could not
// be told; what was found until then is returned and safe to use.
func Probe() (Features, error) {
	var found Features
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return found, fmt.Errorf("read the kernel's types: %w (the kernel needs CONFIG_DEBUG_INFO_BTF)", err)
	}
	var cast *btf.Func
	switch err := kernel.TypeByName("bpf_cast_to_kern_ctx", &cast); {
	case err == nil:
		found.KernelContext = true
	case !errors.Is(err, btf.ErrNotFound):
		return found, fmt.Errorf("look for bpf_cast_to_kern_ctx: %w", err)
	}
	if found.HZ, err = probeHZ(); err != nil {
		return found, fmt.Errorf("tell how long a jiffy is: %w", err)
	}
	switch err := features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval); {
	case err == nil:
		found.SetRetval = true
	case !errors.Is(err, ebpf.ErrNotSupported):
		return found, fmt.Errorf("look for bpf_set_retval: %w", err)
	}
	return found, nil
}

// Spec is the datapath for one node, ready to load: constants written and maps
// sized. The caller sets pins, if any, and replaces maps that he has already.
func Spec(o Options) (*ebpf.CollectionSpec, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	spec, err := LoadDatapath()
	if err != nil {
		return nil, fmt.Errorf("read the datapath's object: %w", err)
	}
	delete(spec.Variables, "vocabulary") // nothing but names of types
	delete(spec.Maps, ".bss")
	if err := spec.Variables["config"].Set(config); err != nil {
		return nil, fmt.Errorf("set the datapath's constants: %w", err)
	}
	for name, size := range o.Sizes.byMap() {
		spec.Maps[name].MaxEntries = size
	}
	spec.Maps[Maglev].InnerMap.MaxEntries = config.MaglevSize
	return spec, nil
}

// Digest names what Spec makes of these options: programs that were loaded under
// the same digest are the same, down to their constants and their maps' sizes.
func Digest(o Options) (string, error) {
	config, err := o.config()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	sum.Write(_DatapathBytes)
	fmt.Fprintf(sum, "%v %v", config, o.Sizes.byMap()) // maps are printed in the order of their keys
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// MaglevTable is the spec of one service's table in the map Maglev: MaglevSize
// backend ids.
func MaglevTable(size uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "maglev_table", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: size,
	}
}

func (o Options) config() (DatapathNodeConfig, error) {
	loopback := o.Loopback
	if !loopback.IsValid() {
		loopback = DefaultLoopback
	}
	config := DatapathNodeConfig{
		HostNetns: o.HostNetns, MaglevSize: o.MaglevSize, MaglevSeed: o.MaglevSeed,
		NodeportMin: o.NodePortMin, NodeportMax: o.NodePortMax,
		Masquerade: flag(o.Masquerade), KernelCtx: flag(o.Features.KernelContext),
		SetRetval: flag(o.Features.SetRetval),
	}
	if config.NodeportMin == 0 && config.NodeportMax == 0 {
		config.NodeportMin, config.NodeportMax = DefaultNodePortMin, DefaultNodePortMax
	}
	if config.NodeportMin > config.NodeportMax {
		return config, fmt.Errorf("NodePort range %d-%d is empty", config.NodeportMin, config.NodeportMax)
	}
	clock := o.Features.Clock()
	config.TickShift = clock.shift
	config.AgeTcp, config.AgeSyn = clock.Ticks(AgeTCP), clock.Ticks(AgeSYN)
	config.AgeAny, config.AgeClosing = clock.Ticks(AgeAny), clock.Ticks(AgeClosing)
	if config.MaglevSize == 0 {
		config.MaglevSize = DefaultMaglevSize
	}
	var err error
	if config.Loopback, err = Address(loopback); err != nil {
		return config, fmt.Errorf("loopback: %w", err)
	}
	if config.PodCidr, config.PodMask, err = network(o.PodCIDR); err != nil {
		return config, fmt.Errorf("pod CIDR: %w", err)
	}
	if config.NativeCidr, config.NativeMask, err = network(o.NativeCIDR); err != nil {
		return config, fmt.Errorf("native-routing CIDR: %w", err)
	}
	return config, nil
}

// byMap gives each map its size. Arrays have their entry 0 besides, which stands
// for none.
func (s Sizes) byMap() map[string]uint32 {
	d := DefaultSizes()
	or := func(size, otherwise uint32) uint32 {
		if size == 0 {
			return otherwise
		}
		return size
	}
	return map[string]uint32{
		Frontends:     or(s.Frontends, d.Frontends),
		Slots:         or(s.Slots, d.Slots),
		Backends:      or(s.Backends, d.Backends) + 1,
		Maglev:        or(s.Maglev, d.Maglev),
		AffinityMatch: or(s.AffinityMatch, d.AffinityMatch),
		Endpoints:     or(s.Endpoints, d.Endpoints) + 1,
		Addresses:     or(s.Addresses, d.Addresses),
		IPCache:       or(s.IPCache, d.IPCache),
		Nonmasquerade: or(s.Nonmasquerade, d.Nonmasquerade),
		Devices:       or(s.Devices, d.Devices),
		Flows:         or(s.Flows, d.Flows),
		MoreFlows:     max(or(s.Flows, d.Flows)/8, 64),
		NATs:          or(s.NATs, d.NATs),
		Affinities:    or(s.Affinities, d.Affinities),
		Fragments:     or(s.Fragments, d.Fragments),
		Sockets:       or(s.Sockets, d.Sockets),
		Events:        ringSize(or(s.Events, d.Events)),
	}
}

// ringSize rounds up to what a ring buffer can be: a power of two, whole pages.
func ringSize(bytes uint32) uint32 {
	size := uint32(unix.Getpagesize())
	for size < bytes && size <= math.MaxUint32/2 {
		size *= 2
	}
	return size
}

func flag(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}
