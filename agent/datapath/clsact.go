//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/rtnl"
)

// How our filters are known: by their name, at a place that is always the same,
// so that a new program takes the old one's in one step.
const (
	filterPrefix   = "labctl-"
	filterHandle   = 1
	filterPriority = 108
)

// clsact attaches by filters, where there is no TCX.
type clsact struct {
	handle *netlink.Handle
}

// filter is one of ours.
type filter struct {
	point
	id     ebpf.ProgramID
	parent uint32
}

// errForeign is a filter of somebody else's where ours belongs.
var errForeign = fmt.Errorf("another filter has priority %d and handle %d there (remove it: tc filter del)", filterPriority, filterHandle)

func (c clsact) attach(p point, program *ebpf.Program, id ebpf.ProgramID) (changed bool, err error) {
	parent := uint32(netlink.HANDLE_MIN_EGRESS)
	if p.ingress() {
		parent = netlink.HANDLE_MIN_INGRESS
	}
	if err := c.ensureQdisc(p.index); err != nil {
		return false, err
	}
	there, err := c.filters(p.index, parent)
	if err != nil {
		return false, err
	}
	for _, f := range there {
		attrs := f.Attrs()
		if attrs.Priority != filterPriority {
			continue
		}
		ours, ok := f.(*netlink.BpfFilter)
		if !ok || attrs.Handle == filterHandle && !strings.HasPrefix(ours.Name, filterPrefix) {
			return false, errForeign
		}
		if attrs.Handle == filterHandle && ours.Name == filterPrefix+p.program && ebpf.ProgramID(ours.Id) == id {
			return false, nil
		}
	}
	return true, c.put(p, parent, program)
}

func (c clsact) put(p point, parent uint32, program *ebpf.Program) error {
	return c.handle.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: p.index, Parent: parent, Handle: filterHandle,
			Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: filterPrefix + p.program, DirectAction: true,
	})
}

func (c clsact) ensureQdisc(index int) error {
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	err := c.handle.QdiscAdd(qdisc)
	if err == nil || errors.Is(err, unix.EEXIST) {
		return nil
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("add the clsact qdisc: %w (load the modules: modprobe -a sch_ingress cls_bpf)", err)
	}
	return fmt.Errorf("add the clsact qdisc: %w", err)
}

func (c clsact) filters(index int, parent uint32) ([]netlink.Filter, error) {
	device := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	return rtnl.List(func() ([]netlink.Filter, error) { return c.handle.FilterList(device, parent) })
}

// qdiscs are the devices that have a clsact qdisc.
func (c clsact) qdiscs() (indexes []int, err error) {
	all, err := rtnl.List(func() ([]netlink.Qdisc, error) { return c.handle.QdiscList(nil) })
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range all {
		if q.Type() == "clsact" {
			indexes = append(indexes, q.Attrs().LinkIndex)
		}
	}
	return indexes, nil
}

var parents = [...]uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS}

// list finds every filter of ours.
func (c clsact) list() ([]filter, error) {
	indexes, err := c.qdiscs()
	if err != nil {
		return nil, err
	}
	var ours []filter
	for _, index := range indexes {
		device, err := c.handle.LinkByIndex(index)
		if err != nil {
			continue // gone meanwhile
		}
		for _, parent := range parents {
			there, err := c.filters(index, parent)
			if err != nil {
				return nil, fmt.Errorf("list the filters of %s: %w", device.Attrs().Name, err)
			}
			for _, f := range there {
				b, ok := f.(*netlink.BpfFilter)
				if !ok || !strings.HasPrefix(b.Name, filterPrefix) {
					continue
				}
				program := strings.TrimPrefix(b.Name, filterPrefix)
				ours = append(ours, filter{point{program, device.Attrs().Name, index}, ebpf.ProgramID(b.Id), parent})
			}
		}
	}
	return ours, nil
}

// turn exchanges the programs of all filters of ours.
func (c clsact) turn(programs map[string]*ebpf.Program, step func(string) error) error {
	ours, err := c.list()
	if err != nil {
		return err
	}
	for _, f := range ours {
		program := programs[f.program]
		if program == nil {
			continue
		}
		if id, err := programID(program); err == nil && id == f.id {
			continue
		}
		if err := c.put(f.point, f.parent, program); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("replace %s: %w", f.name(), err)
		}
		if err := step("turned " + f.name()); err != nil {
			return err
		}
	}
	return nil
}

// detach removes the filters of ours that keep does not want, and a clsact qdisc
// that has no filters then.
func (c clsact) detach(keep func(point) bool) error {
	ours, err := c.list()
	if err != nil {
		return err
	}
	var failed error
	for _, f := range ours {
		if keep(f.point) {
			continue
		}
		err := c.handle.FilterDel(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{
			LinkIndex: f.index, Parent: f.parent, Handle: filterHandle,
			Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		}})
		if err == nil {
			err = c.dropQdisc(f.index)
		}
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) {
			failed = errors.Join(failed, fmt.Errorf("remove %s: %w", f.name(), err))
		}
	}
	return failed
}

func (c clsact) dropQdisc(index int) error {
	for _, parent := range parents {
		if left, err := c.filters(index, parent); err != nil || len(left) > 0 {
			return err
		}
	}
	return c.handle.QdiscDel(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	})
}
