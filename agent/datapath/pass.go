//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/route"
	"github.com/native-routing/labctl/bpf"
)

// Kinds of objects.
const (
	kindProgram = "program"
	kindMap     = "map"
)

// pass is one look at everything, with what it comes to.
type pass struct {
	d         *Datapath
	state     api.State
	pods      []api.PodStatus
	podsKnown bool

	loadedNow bool
	inUse     map[int]bool // devices that pods of the maps are behind
	objects   []api.Object
	mended    []objectKey
	missing   []string
	socketLB  bool
	devices   []string
}

func (p *pass) healthy() bool {
	return !slices.ContainsFunc(p.objects, func(o api.Object) bool {
		return o.Condition == api.Failed || o.Condition == api.Pending
	})
}

// object notes how an object stands; what was noted of it first holds.
func (p *pass) object(kind, name string, condition api.Condition, err error) {
	if slices.ContainsFunc(p.objects, func(o api.Object) bool { return o.Kind == kind && o.Name == name }) {
		return
	}
	o := api.Object{Kind: kind, Name: name, Owner: api.OwnerAgent, Condition: condition}
	if err != nil {
		o.Reason = err.Error()
	}
	if condition == api.Drifted {
		o.Owner = api.OwnerLab
	}
	p.objects = append(p.objects, o)
}

func (p *pass) run() {
	seen, err := p.d.look()
	if err == nil {
		p.d.seen = seen
		err = p.load()
	}
	if err != nil {
		p.failed(err)
		return
	}
	p.fill()
	if p.loadedNow && p.d.config.OnMaps != nil {
		p.d.config.OnMaps(p.d.now.maps)
	}
	points := p.points()
	p.attach(points)
	p.detach(points)
}

// failed notes an error of loading at the map that it concerns.
func (p *pass) failed(err error) {
	var concerns *mapError
	if errors.As(err, &concerns) {
		p.object(kindMap, concerns.name, api.Failed, err)
	} else {
		p.object(kindProgram, "all", api.Failed, err)
	}
}

// load makes sure that what is loaded is what the state asks for.
func (p *pass) load() error {
	d := p.d
	if d.kernel == nil {
		found, err := probeKernel()
		if err != nil {
			return err
		}
		if d.noTCX && found.tcx {
			found.tcx = false
			found.missing = append(found.missing, missingTCX)
		}
		if err := d.inside(func() (err error) { d.cookie, err = netnsCookie(); return err }); err != nil {
			return err
		}
		d.kernel, d.hooks.tcx = &found, found.tcx
	}
	p.missing = slices.Clone(d.kernel.missing)
	o := optionsOf(p.state, d.kernel.features, d.cookie)
	programs := p.programs()
	if d.now != nil && d.now.maps.Options == o && len(programs) == len(d.now.programs) {
		return p.mendPins()
	}
	l := &loader{pins: d.pins, source: d.source, hooks: &d.hooks, step: d.step}
	now, err := l.load(o, programs)
	// The types of the kernel and the object are some MiB, and not needed again.
	debug.FreeOSMemory()
	if err != nil && d.now != nil && !l.turned {
		p.failed(err) // and what was there before goes on
		return nil
	} else if err != nil {
		d.now = nil // some of it is attached no longer
		return err
	}
	d.now, p.loadedNow = now, true
	d.hub.use(now.maps)
	return nil
}

// programs are those that the state needs and the kernel takes.
func (p *pass) programs() []string {
	names := []string{bpf.FromPod, bpf.ToPod, bpf.FromHost, bpf.FromNetdev, bpf.ToNetdev}
	if !p.state.Cluster.KubeProxyReplacement {
		return names
	}
	if err := haveSocketHooks(p.d.config.Cgroup); err != nil {
		p.missing = append(p.missing, missingSocketHooks+err.Error())
		return names
	}
	return append(names, bpf.Connect4, bpf.Sendmsg4, bpf.Recvmsg4, bpf.Getpeername4)
}

const missingSocketHooks = "balancing at connect: pods are balanced packet by packet, and the node itself does not reach services: "

// haveSocketHooks says what stands against programs for the sockets of a cgroup.
func haveSocketHooks(cgroup string) error {
	if cgroup == "" {
		return errors.New("there is no cgroup2 directory for the node")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroup, &fs); err != nil {
		return fmt.Errorf("%s: %w", cgroup, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("%s is not in a cgroup2 file system (mount -t cgroup2 none %s)", cgroup, cgroup)
	}
	return haveSockAddr()
}

// mendPins puts back pins of maps and programs that somebody removed, or put
// something else in place of.
func (p *pass) mendPins() error {
	d := p.d
	if err := d.pins.make(); err != nil {
		return err
	}
	for name, m := range d.now.maps.ByName {
		pinned, err := ebpf.LoadPinnedMap(d.pins.path(mapsDir, name), nil)
		if err == nil {
			is, _ := mapID(pinned)
			_ = pinned.Close()
			if was, _ := mapID(m); is == was {
				continue
			}
		}
		clone, err := m.Clone() // which knows of no pin
		if err != nil {
			return &mapError{name, err}
		}
		err = d.pins.put(mapsDir, name, clone)
		_ = clone.Close()
		if err != nil {
			return &mapError{name, err}
		}
		p.mended = append(p.mended, objectKey{kindMap, name})
	}
	for name, program := range d.now.programs {
		pin := name + "@" + d.now.digest
		if _, err := os.Lstat(d.pins.path(programsDir, pin)); err == nil {
			continue
		}
		clone, err := program.Clone()
		if err != nil {
			return err
		}
		err = d.pins.put(programsDir, pin, clone)
		_ = clone.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// fill brings the maps that are not services' in line.
func (p *pass) fill() {
	maps := p.d.now.maps
	failed := make(map[string]error)
	want, err := plan(p.state, network{p.d.seen, p.pods}, maps.Map(bpf.Endpoints).MaxEntries()-1)
	if err != nil {
		failed[bpf.Endpoints] = err
	} else {
		failed = maps.apply(want, p.untold())
		for _, e := range want.endpoints {
			p.inUse[int(e.Ifindex)] = e.Ifindex != 0
		}
	}
	if err := p.d.hub.carry(overlayOf(p.state)); err != nil {
		failed[bpf.Settings] = err
	}
	if !p.state.Cluster.KubeProxyReplacement {
		if err := clearFrontends(maps.Map(bpf.Frontends)); err != nil {
			failed[bpf.Frontends] = err
		}
	}
	for _, name := range allMaps {
		err := failed[name]
		if err == nil {
			err = fullness(name, maps.Map(name))
		}
		if err != nil {
			p.object(kindMap, name, api.Failed, err)
		} else {
			p.object(kindMap, name, api.InPlace, nil)
		}
	}
}

// untold says which addresses are those of pods that may be here though nobody
// has told of them: all before the first time, and then those that the state has
// on this node. Who has just started finds his pods one after the other.
func (p *pass) untold() func(address uint32) bool {
	if !p.podsKnown {
		return func(uint32) bool { return true }
	}
	told := make(map[string]bool, len(p.pods))
	for _, pod := range p.pods {
		told[pod.Key()] = true
	}
	expected := make(map[uint32]bool)
	for _, pod := range p.state.Cluster.Pods {
		if address, err := bpf.Address(pod.Address); err == nil && pod.Node == p.state.Node && !told[pod.Key()] {
			expected[address] = true
		}
	}
	return func(address uint32) bool { return expected[address] }
}

func clearFrontends(m *ebpf.Map) error {
	return walk(m, func(key *bpf.DatapathFrontendKey, _ *bpf.DatapathFrontend) error { return remove(m, key) })
}

// fullness tells a table of the agent's that has no room left. Those that the
// programs write forget instead.
func fullness(name string, m *ebpf.Map) error {
	var err error
	used := 0
	switch name {
	case bpf.Frontends:
		err = walk(m, func(*bpf.DatapathFrontendKey, *bpf.DatapathFrontend) error { used++; return nil })
	case bpf.AffinityMatch:
		err = walk(m, func(*bpf.DatapathAffinityMatchKey, *uint8) error { used++; return nil })
	case bpf.Addresses:
		err = walk(m, func(*uint32, *uint32) error { used++; return nil })
	}
	if err == nil && used >= int(m.MaxEntries()) {
		err = full(name, m.MaxEntries())
	}
	return err
}

// points are where programs belong. A device that is not there has index 0.
func (p *pass) points() []point {
	var all []point
	on := func(device string, programs ...string) {
		for _, program := range programs {
			all = append(all, point{program, device, p.d.seen[device].index})
		}
	}
	on(route.GatewayDevice, bpf.FromHost)
	for _, l := range p.state.Underlay.Links {
		if there, ok := p.d.seen[l.Name]; ok && there.virtual || l.Name == "lo" {
			continue
		}
		on(l.Name, bpf.FromNetdev, bpf.ToNetdev)
	}
	if overlayOf(p.state) != nil {
		on(route.TunnelDevice, bpf.FromNetdev, bpf.ToNetdev)
	}
	for _, pod := range p.pods {
		if pod.Device != "" {
			on(pod.Device, bpf.FromPod, bpf.ToPod)
		}
	}
	for program := range p.d.now.programs {
		if _, ok := socketHooks[program]; ok {
			all = append(all, point{program: program, device: cgroupDevice})
		}
	}
	slices.SortFunc(all, func(a, b point) int { return strings.Compare(a.name(), b.name()) })
	return slices.Compact(all)
}

func (p *pass) attach(points []point) {
	p.socketLB = p.d.now.programs[bpf.Connect4] != nil
	for _, at := range points {
		isDevice := at.device != cgroupDevice
		if isDevice && at.index == 0 {
			p.absent(at)
			continue
		}
		changed, err := p.d.hooks.attach(at, p.d.now.programs[at.program])
		switch {
		case errors.Is(err, unix.ENODEV):
			p.absent(at) // gone since the look; another look follows
			continue
		case errors.Is(err, errUnpinnable):
			p.socketLB = false
			p.missing = append(p.missing, missingSocketHooks+err.Error())
			continue
		case err != nil:
			p.socketLB = p.socketLB && isDevice
			p.object(kindProgram, at.name(), api.Failed, err)
			continue
		}
		if changed && !p.loadedNow {
			p.mended = append(p.mended, objectKey{kindProgram, at.name()})
		}
		p.object(kindProgram, at.name(), api.InPlace, nil)
		if at.program == bpf.FromNetdev && at.device != route.TunnelDevice {
			p.devices = append(p.devices, at.device)
		}
	}
}

// tunnel is the index of the tunnel's device if what comes by it meets programs.
func (p *pass) tunnel() int {
	index := p.d.seen[route.TunnelDevice].index
	for _, program := range []string{bpf.FromNetdev, bpf.ToNetdev} {
		name := point{program: program, device: route.TunnelDevice}.name()
		if !slices.ContainsFunc(p.objects, func(o api.Object) bool {
			return o.Kind == kindProgram && o.Name == name && o.Condition == api.InPlace
		}) {
			return 0
		}
	}
	return index
}

// reached are the pods that the maps know of and whose programs are attached.
func (p *pass) reached() []string {
	there := make(map[objectKey]bool)
	for _, o := range p.objects {
		there[objectKey{o.Kind, o.Name}] = o.Condition == api.InPlace
	}
	var uids []string
	for _, pod := range p.pods {
		from, to := point{program: bpf.FromPod, device: pod.Device}, point{program: bpf.ToPod, device: pod.Device}
		if there[objectKey{kindMap, bpf.Endpoints}] && there[objectKey{kindProgram, from.name()}] && there[objectKey{kindProgram, to.name()}] {
			uids = append(uids, pod.UID)
		}
	}
	return uids
}

// absent is a device that is not there: the agent's own is still to be made, the
// lab's is not the agent's to make.
func (p *pass) absent(at point) {
	reason := fmt.Errorf("there is no device %s", at.device)
	if at.device != route.TunnelDevice && (at.program == bpf.FromNetdev || at.program == bpf.ToNetdev) {
		p.object(kindProgram, at.name(), api.Drifted, reason)
		return
	}
	p.object(kindProgram, at.name(), api.Pending, reason)
}

// detach removes what is attached and does not belong: of devices that are gone,
// of pods that have ended, of another way to attach. A tunnel that is given up
// keeps its programs as long as there is the device: other nodes may still send
// by it, and what met no programs the kernel would answer itself.
func (p *pass) detach(points []point) {
	wanted := make(map[string]bool)
	for _, at := range points {
		if at.index != 0 || at.device == cgroupDevice {
			wanted[at.name()] = true
		}
	}
	err := p.d.hooks.detach(func(name string) bool {
		program, device, _ := strings.Cut(name, "@")
		if program == bpf.FromPod || program == bpf.ToPod {
			return wanted[name] || p.inUse[p.d.seen[device].index]
		}
		return wanted[name] || device == route.TunnelDevice && p.d.seen[device].index != 0
	})
	if err != nil {
		p.object(kindProgram, "others", api.Failed, err)
	}
}

// publish makes what a pass found the status.
func (d *Datapath) publish(version uint64, p *pass) {
	status := &api.Datapath{Attach: "clsact", Devices: p.devices, SocketLB: p.socketLB, Missing: p.missing}
	if d.hooks.tcx {
		status.Attach = "tcx"
	}
	if status.Devices == nil {
		status.Devices = []string{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.status = status; d.now == nil {
		d.status = nil
	}
	was := make(map[objectKey]bool)
	for _, o := range d.objects {
		was[objectKey{o.Kind, o.Name}] = o.Condition == api.InPlace || o.Condition == api.Drifted
	}
	for _, key := range p.mended {
		if was[key] {
			d.mended[key]++
		}
	}
	d.objects = p.objects
	if d.version == version {
		d.settled = version
	}
}
