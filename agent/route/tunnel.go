//go:build linux

package route

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addTunnel makes a device that sends to nobody until it is told where to.
func (k *kernel) addTunnel(want LinkChange) error {
	mac, err := net.ParseMAC(want.MAC)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = want.Name, want.MTU, mac
	err = k.reader.Handle.LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(want.VXLAN.VNI), Port: int(want.VXLAN.Port), SrcAddr: want.VXLAN.Local.AsSlice(),
	})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("this kernel has no VXLAN: %w (load the vxlan module: modprobe vxlan)", err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("another device has VNI %d on port %d: %w (find it: ip -d link show type vxlan)", want.VXLAN.VNI, want.VXLAN.Port, err)
	}
	return err
}

// setTunnel marks the device first: from then on it is known as the agent's.
func (k *kernel) setTunnel(want LinkChange) error {
	h := k.reader.Handle
	link, err := h.LinkByName(want.Name)
	if err != nil {
		return err
	}
	if err := k.markLink(link, want); err != nil {
		return err
	}
	if link.Attrs().HardwareAddr.String() != want.MAC {
		mac, err := net.ParseMAC(want.MAC)
		if err == nil {
			err = h.LinkSetHardwareAddr(link, mac)
		}
		if err != nil {
			return err
		}
	}
	if want.Closed {
		return nil
	}
	return h.LinkSetUp(link)
}

// changeEntry writes or removes an entry of the tunnel's device.
func (k *kernel) changeEntry(a Action) error {
	h := k.reader.Handle
	entry := &netlink.Neigh{State: unix.NUD_PERMANENT, Family: unix.AF_INET}
	device, text := "", ""
	if a.Neighbour != nil {
		device, text, entry.IP = a.Neighbour.Device, a.Neighbour.MAC, a.Neighbour.Address.AsSlice()
	} else {
		device, text, entry.IP = a.Forward.Device, a.Forward.MAC, a.Forward.Remote.AsSlice()
		entry.Family, entry.Flags = unix.AF_BRIDGE, unix.NTF_SELF
	}
	link, err := h.LinkByName(device)
	if err != nil {
		return err
	}
	entry.LinkIndex = link.Attrs().Index
	if entry.HardwareAddr, err = net.ParseMAC(text); err != nil {
		return err
	}
	if a.Verb == Delete {
		err := h.NeighDel(entry)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	return h.NeighSet(entry)
}
