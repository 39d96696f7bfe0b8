//go:build linux

package datapath

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
	"github.com/native-routing/labctl/bpf"
)

// Config is what a [Datapath] works on.
type Config struct {
	// PinDir is a directory in a bpffs, this node's alone.
	PinDir string
	// Cgroup is a cgroup2 directory: what runs in it has its sockets balanced.
	Cgroup string
	// Namespace is the node's; netns.None() is the caller's own.
	Namespace netns.NsHandle
	// Report is told each error that no object bears. It must not block.
	Report func(error)
	// OnMaps is told the maps whenever they are new, from the goroutine of Run.
	// It may be nil.
	OnMaps func(Maps)
	// OnPods is told, from there too, the UIDs of the pods that packets reach,
	// after each look. It may be nil.
	OnPods func(uids []string)
	// OnTunnel is told, from there too, the index of the tunnel's device when it
	// bears all of its programs; 0 while it does not. It may be nil.
	OnTunnel func(index int)
}

// Datapath keeps one node's eBPF in line with a state. Its methods are safe for
// concurrent use.
type Datapath struct {
	config Config
	source source
	step   func(string) error
	noTCX  bool // as if the kernel had none

	pins  pins
	hooks hooks
	watch *rtnl.Watch
	hub   *hub
	wake  chan struct{} // a new state or new pods
	heard chan struct{} // a change of the devices

	// Run's alone.
	kernel *kernel
	cookie uint64
	now    *loaded
	seen   map[string]device

	mu        sync.Mutex
	state     *api.State
	pods      []api.PodStatus
	podsKnown bool
	version   uint64 // counts what was set
	settled   uint64 // the version that objects speak of
	objects   []api.Object
	mended    map[objectKey]int
	status    *api.Datapath
	gc        GCStats
	names     map[int]string // of devices
}

type objectKey struct{ kind, name string }

// New opens the namespace and begins to listen to it; [Datapath.Run] does the
// work, once.
func New(config Config) (*Datapath, error) {
	handle, err := openHandle(config.Namespace)
	if err != nil {
		return nil, err
	}
	watch, err := rtnl.NewWatch(config.Namespace, 0)
	if err != nil {
		handle.Close()
		return nil, err
	}
	d := &Datapath{
		config: config,
		source: source{digest: bpf.Digest, spec: bpf.Spec},
		step:   func(string) error { return nil },
		pins:   pins(config.PinDir),
		watch:  watch,
		wake:   make(chan struct{}, 1),
		heard:  make(chan struct{}, 1),
		mended: make(map[objectKey]int),
	}
	d.hooks = hooks{
		pins: d.pins, handle: handle, inside: d.inside, cgroup: config.Cgroup, tcx: true,
		filters: clsact{handle}, held: make(map[string]link.Link),
	}
	d.hub = newHub(config.Report, d.deviceName)
	return d, nil
}

func openHandle(ns netns.NsHandle) (*netlink.Handle, error) {
	if !ns.IsOpen() {
		return netlink.NewHandle()
	}
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return handle, nil
}

// inside runs work on a thread in the node's namespace.
func (d *Datapath) inside(work func() error) error {
	if !d.config.Namespace.IsOpen() {
		return work()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(d.config.Namespace); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		done <- work()
	}()
	return <-done
}

// Set gives the state to hold, and returns at once. A state without a cluster
// means that there shall be no datapath.
func (d *Datapath) Set(state api.State) {
	d.mu.Lock()
	d.state = &state
	d.version++
	d.mu.Unlock()
	signal(d.wake)
}

// SetPods gives the pods that are on the node. Pods that the maps know of, from
// before the agent started, are left as they are until the first call, and
// after it those that the state has on this node until somebody tells of them.
func (d *Datapath) SetPods(pods []api.PodStatus) {
	d.mu.Lock()
	d.pods, d.podsKnown = slices.Clone(pods), true
	d.version++
	d.mu.Unlock()
	signal(d.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Objects are the node's programs and maps; settled says that they speak of what
// was set last, and none is pending or failed.
func (d *Datapath) Objects() (objects []api.Object, settled bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	settled = d.state != nil && d.settled == d.version
	objects = slices.Clone(d.objects)
	for i, o := range objects {
		objects[i].Mended = d.mended[objectKey{o.Kind, o.Name}]
		settled = settled && o.Condition != api.Pending && o.Condition != api.Failed
	}
	return objects, settled
}

// Status is how the programs are attached; nil where none are loaded.
func (d *Datapath) Status() *api.Datapath {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.status == nil {
		return nil
	}
	status := *d.status
	return &status
}

// GC is what was removed from flows and nats since the start.
func (d *Datapath) GC() GCStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gc
}

// Subscribe hands out what the programs tell up to a level, until ctx ends,
// which closes the channel. Who does not keep up loses events, and is told by
// one of type lost.
func (d *Datapath) Subscribe(ctx context.Context, level bpf.DatapathListen) <-chan api.MonitorEvent {
	return d.hub.subscribe(ctx, level)
}

// Close closes the sockets, when Run has ended. Everything stays attached.
func (d *Datapath) Close() {
	d.hub.use(Maps{})
	d.hooks.close()
	d.hooks.handle.Close()
}

// Remove detaches the programs of a node and removes its maps. It needs neither
// a Datapath nor what one loaded; that there is nothing is no error.
func Remove(config Config) error {
	handle, err := openHandle(config.Namespace)
	if err != nil {
		return err
	}
	defer handle.Close()
	h := hooks{pins: pins(config.PinDir), filters: clsact{handle}}
	return h.removeAll()
}

func (h *hooks) removeAll() error {
	if err := h.detach(func(string) bool { return false }); err != nil {
		return err
	}
	return h.pins.clear()
}

func (d *Datapath) deviceName(index int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.names[index]
}

// look lists the namespace's devices.
func (d *Datapath) look() (map[string]device, error) {
	links, err := rtnl.List(d.hooks.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	seen := make(map[string]device, len(links))
	names := make(map[int]string, len(links))
	for _, l := range links {
		attrs := l.Attrs()
		next := device{index: attrs.Index, virtual: l.Type() == "dummy" || l.Type() == "ifb" || attrs.Name == "lo"}
		if len(attrs.HardwareAddr) == 6 {
			next.mac = [6]byte(attrs.HardwareAddr)
		}
		seen[attrs.Name] = next
		names[attrs.Index] = attrs.Name
	}
	d.mu.Lock()
	if !maps.Equal(names, d.names) {
		d.names = names
	}
	d.mu.Unlock()
	return seen, nil
}
