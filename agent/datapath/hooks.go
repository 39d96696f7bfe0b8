//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/bpf"
)

// point is where a program belongs.
type point struct {
	program, device string
	index           int // of the device
}

func (p point) name() string { return p.program + "@" + p.device }

// ingress says at which side of the device.
func (p point) ingress() bool { return p.program == bpf.FromPod || p.program == bpf.FromNetdev }

// socketHooks are the programs of the node's cgroup.
var socketHooks = map[string]ebpf.AttachType{
	bpf.Connect4:     ebpf.AttachCGroupInet4Connect,
	bpf.Sendmsg4:     ebpf.AttachCGroupUDP4Sendmsg,
	bpf.Recvmsg4:     ebpf.AttachCGroupUDP4Recvmsg,
	bpf.Getpeername4: ebpf.AttachCgroupInet4GetPeername,
}

// hooks attaches programs to the devices of a network namespace and to a
// cgroup, and knows again what it attached.
type hooks struct {
	pins    pins
	handle  *netlink.Handle
	inside  func(func() error) error // runs on a thread in the namespace
	cgroup  string
	tcx     bool
	filters clsact
	held    map[string]link.Link // of pins, by their names, against who deletes one
}

// errUnpinnable is a hook that ends with the process.
var errUnpinnable = errors.New("links cannot be pinned: programs would go with the agent")

// attach makes program run at p, and says whether anything had to be done.
func (h *hooks) attach(p point, program *ebpf.Program) (changed bool, err error) {
	id, err := programID(program)
	if err != nil {
		return false, fmt.Errorf("attach %s to %s: %w", p.program, p.device, err)
	}
	if p.device != cgroupDevice && !h.tcx {
		changed, err = h.filters.attach(p, program, id)
	} else {
		changed, err = h.attachLink(p, program, id)
	}
	if err != nil {
		return changed, fmt.Errorf("attach %s to %s: %w", p.program, p.device, err)
	}
	return changed, nil
}

func programID(program *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := program.Info()
	if err != nil {
		return 0, err
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("the kernel does not number programs")
	}
	return id, nil
}

func (h *hooks) attachLink(p point, program *ebpf.Program, id ebpf.ProgramID) (changed bool, err error) {
	l, err := link.LoadPinnedLink(h.pins.path(linksDir, p.name()), nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l = h.repin(p)
		changed = l != nil
	case err != nil: // something else bears the name
		if err := h.pins.remove(linksDir, p.name()); err != nil {
			return false, err
		}
		l = nil
	}
	if l != nil {
		info, err := l.Info()
		if err == nil && h.inPlace(p, info) {
			h.hold(p.name(), l)
			if info.Program == id {
				return changed, nil
			}
			return true, l.Update(program)
		}
		_ = l.Close()
	}
	if l, err = h.newLink(p, program); err != nil {
		return false, err
	}
	if err := h.pins.put(linksDir, p.name(), l); err != nil {
		_ = l.Close()
		if errors.Is(err, ebpf.ErrNotSupported) {
			return false, errUnpinnable
		}
		return false, err
	}
	h.hold(p.name(), l)
	return true, nil
}

// repin puts back the pin of a link that is still attached, for it is held.
func (h *hooks) repin(p point) link.Link {
	held := h.held[p.name()]
	if held == nil {
		return nil
	}
	info, err := held.Info()
	if err != nil || !h.inPlace(p, info) {
		return nil
	}
	l, err := link.NewFromID(info.ID)
	if err != nil {
		return nil
	}
	if h.pins.put(linksDir, p.name(), l) != nil {
		_ = l.Close()
		return nil
	}
	return l
}

func (h *hooks) hold(name string, l link.Link) {
	if before := h.held[name]; before != nil && before != l {
		_ = before.Close()
	}
	h.held[name] = l
}

// inPlace says whether a link is where it belongs: a device that is gone, or a
// detach, leaves one that is nowhere.
func (h *hooks) inPlace(p point, info *link.Info) bool {
	if at := info.Cgroup(); at != nil {
		var stat unix.Stat_t
		return p.device == cgroupDevice && unix.Stat(h.cgroup, &stat) == nil && at.CgroupId == stat.Ino
	}
	at := info.TCX()
	return at != nil && int(at.Ifindex) == p.index
}

func (h *hooks) newLink(p point, program *ebpf.Program) (l link.Link, err error) {
	if p.device == cgroupDevice {
		return link.AttachCgroup(link.CgroupOptions{Path: h.cgroup, Attach: socketHooks[p.program], Program: program})
	}
	at := ebpf.AttachTCXEgress
	if p.ingress() {
		at = ebpf.AttachTCXIngress
	}
	err = h.inside(func() error {
		l, err = link.AttachTCX(link.TCXOptions{Interface: p.index, Program: program, Attach: at})
		return err
	})
	return l, err
}

// detach removes all of ours that keep does not want.
func (h *hooks) detach(keep func(name string) bool) error {
	names, err := h.pins.list(linksDir)
	if err != nil {
		return err
	}
	var failed error
	for _, name := range names {
		_, device, _ := strings.Cut(name, "@")
		if keep(name) && (h.tcx || device == cgroupDevice) {
			continue
		}
		if held := h.held[name]; held != nil {
			_ = held.Close()
			delete(h.held, name)
		}
		failed = errors.Join(failed, h.pins.detach(name))
	}
	return errors.Join(failed, h.filters.detach(func(p point) bool { return keep(p.name()) && !h.tcx }))
}

// turn exchanges the programs of all that is attached, each in one step.
func (h *hooks) turn(programs map[string]*ebpf.Program, step func(string) error) error {
	names, err := h.pins.list(linksDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		program := programs[strings.Split(name, "@")[0]]
		if program == nil {
			continue // not wanted any more, and detached in a moment
		}
		if err := h.turnLink(name, program); err != nil {
			return fmt.Errorf("replace %s: %w", name, err)
		}
		if err := step("turned " + name); err != nil {
			return err
		}
	}
	return h.filters.turn(programs, step)
}

func (h *hooks) turnLink(name string, program *ebpf.Program) error {
	l, err := link.LoadPinnedLink(h.pins.path(linksDir, name), nil)
	if err != nil {
		return nil // gone, or no link: attach looks after it
	}
	defer l.Close()
	id, err := programID(program)
	if err != nil {
		return err
	}
	if info, err := l.Info(); err == nil && info.Program == id {
		return nil
	}
	if err := l.Update(program); err != nil && !errors.Is(err, unix.ENOLINK) { // its device is gone
		return err
	}
	return nil
}

// mapsInUse are the maps of all programs of ours that are attached.
func (h *hooks) mapsInUse() (map[ebpf.MapID]bool, error) {
	used := make(map[ebpf.MapID]bool)
	names, err := h.pins.list(linksDir)
	if err != nil {
		return nil, err
	}
	var attached []ebpf.ProgramID
	for _, name := range names {
		l, err := link.LoadPinnedLink(h.pins.path(linksDir, name), nil)
		if err != nil {
			continue
		}
		if info, err := l.Info(); err == nil {
			attached = append(attached, info.Program)
		}
		_ = l.Close()
	}
	filters, err := h.filters.list()
	if err != nil {
		return nil, err
	}
	for _, f := range filters {
		attached = append(attached, f.id)
	}
	for _, id := range attached {
		program, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("look at the attached programs: %w", err)
		}
		info, err := program.Info()
		_ = program.Close()
		if err != nil {
			return nil, fmt.Errorf("look at the attached programs: %w", err)
		}
		ids, _ := info.MapIDs()
		for _, id := range ids {
			used[id] = true
		}
	}
	return used, nil
}

// close lets go of the links; those that are pinned stay.
func (h *hooks) close() {
	for name, l := range h.held {
		_ = l.Close()
		delete(h.held, name)
	}
}
