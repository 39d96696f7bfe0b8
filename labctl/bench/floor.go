//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

const scopeLink = unix.RT_SCOPE_LINK

// floor makes what a plan says in the fewest system calls that are known: all
// links of a node are one message, and all that is in the node is another.
// Nothing is looked at, because all is new, and nothing is marked; the files of
// a node are not made either. One thread does it: with more, they wait for the
// kernel's lock around all links, and the whole takes longer.
type floor struct {
	dir string // of the namespaces' mounts; it must not exist
}

// up makes everything.
func (f floor) up(p floorPlan) error {
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return err
	}
	return onThread(func() error {
		if err := f.namespace("@fabric", ""); err != nil {
			return err
		}
		fabric, err := openRtnetlink()
		if err != nil {
			return err
		}
		defer unix.Close(fabric)
		if err := makeBridges(fabric, p.bridges); err != nil {
			return err
		}
		for _, n := range p.nodes {
			if err := f.node(n, fabric); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
		return nil
	})
}

// down removes the namespaces' names; the kernel ends them and what is in them.
func (f floor) down() error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(f.dir, e.Name())
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
		if err := unix.Unlink(path); err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
	}
	return unix.Rmdir(f.dir)
}

// onThread runs do on a thread of its own, which ends with it.
func onThread(do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		result <- do()
	}()
	return <-result
}

// namespace moves the calling thread into a new one, with a name and without IPv6.
func (f floor) namespace(name, hostname string) error {
	flags := unix.CLONE_NEWNET
	if hostname != "" {
		flags |= unix.CLONE_NEWUTS
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	if err := noIPv6(); err != nil {
		return err
	}
	if err := f.mount(name, "net"); err != nil || hostname == "" {
		return err
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set the hostname: %w", err)
	}
	return f.mount(name, "uts")
}

// noIPv6 is for the calling thread's namespace; all takes default along.
func noIPv6() error {
	fd, err := unix.Open("/proc/sys/net/ipv6/conf/all/disable_ipv6", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("1"))
	return err
}

func (f floor) mount(name, kind string) error {
	path := filepath.Join(f.dir, name+"."+kind)
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	unix.Close(fd)
	if err := unix.Mount("/proc/thread-self/ns/"+kind, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

func makeBridges(socket int, names []string) error {
	var b batch
	for i, name := range names {
		b.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(firstBridge+i, true))
		b.text(unix.IFLA_IFNAME, shorten(name))
		b.nest(unix.IFLA_LINKINFO, func() {
			b.attr(unix.IFLA_INFO_KIND, []byte("bridge")...)
			b.nest(unix.IFLA_INFO_DATA, func() {
				b.number(unix.IFLA_BR_STP_STATE, 0)
				b.number(unix.IFLA_BR_FORWARD_DELAY, 0)
				b.attr(unix.IFLA_BR_MCAST_SNOOPING, 0)
			})
		})
	}
	return b.send(socket)
}

// shorten cuts a name to what the kernel takes, IFNAMSIZ without the final NUL.
func shorten(name string) string { return name[max(0, len(name)-15):] }

// node makes one node on the calling thread, which ends up in it. fabric is a
// socket into the namespace of the bridges.
func (f floor) node(n floorNode, fabric int) error {
	if err := f.namespace(n.name, n.name); err != nil {
		return err
	}
	socket, err := openRtnetlink()
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	var pairs, rest batch
	rest.request(unix.RTM_SETLINK, 0, linkHeader(loopback, true))
	for _, l := range n.links {
		if l.kind == "veth" {
			pairs.pair(l, ns)
			rest.request(unix.RTM_SETLINK, 0, linkHeader(l.index, true))
		} else {
			rest.alone(l)
		}
		rest.address(l)
	}
	for _, neighbour := range n.neighbours {
		rest.neighbour(neighbour)
	}
	for _, r := range n.routes {
		rest.route(r)
	}
	if err := pairs.send(fabric); err != nil {
		return fmt.Errorf("links: %w", err)
	}
	return rest.send(socket)
}

// pair makes a veth, its port in the fabric up and its other end in the node.
func (b *batch) pair(l floorLink, node int) {
	b.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(l.port, true))
	b.text(unix.IFLA_IFNAME, shorten(l.portName))
	b.number(unix.IFLA_MTU, l.portMTU)
	if l.bridge != 0 {
		b.number(unix.IFLA_MASTER, l.bridge)
	}
	b.nest(unix.IFLA_LINKINFO, func() {
		b.attr(unix.IFLA_INFO_KIND, []byte("veth")...)
		b.nest(unix.IFLA_INFO_DATA, func() {
			b.nest(vethInfoPeer, func() {
				b.out = append(b.out, linkHeader(l.index, false)...)
				b.text(unix.IFLA_IFNAME, l.name)
				b.number(unix.IFLA_MTU, l.mtu)
				b.attr(unix.IFLA_ADDRESS, l.mac[:]...)
				b.number(unix.IFLA_NET_NS_FD, node)
			})
		})
	})
}

// alone makes what stands for a dummy.
func (b *batch) alone(l floorLink) {
	b.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(l.index, true))
	b.text(unix.IFLA_IFNAME, l.name)
	b.number(unix.IFLA_MTU, l.mtu)
	b.attr(unix.IFLA_ADDRESS, l.mac[:]...)
	b.nest(unix.IFLA_LINKINFO, func() { b.attr(unix.IFLA_INFO_KIND, []byte(l.kind)...) })
}

func (b *batch) address(l floorLink) {
	header := make([]byte, unix.SizeofIfAddrmsg)
	header[0], header[1] = unix.AF_INET, byte(l.address.Bits())
	binary.NativeEndian.PutUint32(header[4:], uint32(l.index))
	b.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, header)
	b.addr(unix.IFA_LOCAL, l.address.Addr())
	b.addr(unix.IFA_ADDRESS, l.address.Addr())
	if l.address.Bits() < 31 {
		b.addr(unix.IFA_BROADCAST, broadcast(l.address))
	}
	if l.metric != 0 {
		b.number(unix.IFA_RT_PRIORITY, l.metric)
	}
}

func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|(1<<(32-p.Bits())-1))
	return netip.AddrFrom4(a)
}

func (b *batch) neighbour(n floorNeighbour) {
	header := make([]byte, unix.SizeofNdMsg)
	header[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(header[4:], uint32(n.index))
	binary.NativeEndian.PutUint16(header[8:], unix.NUD_PERMANENT)
	b.request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE, header)
	b.addr(unix.NDA_DST, n.ip)
	b.attr(unix.NDA_LLADDR, n.mac[:]...)
}

func (b *batch) route(r floorRoute) {
	b.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, []byte{unix.AF_INET, byte(r.to.Bits()), 0, 0,
		unix.RT_TABLE_MAIN, byte(r.protocol), byte(r.scope), unix.RTN_UNICAST, 0, 0, 0, 0})
	b.addr(unix.RTA_DST, r.to.Addr())
	if r.metric != 0 {
		b.number(unix.RTA_PRIORITY, r.metric)
	}
	if r.source.IsValid() {
		b.addr(unix.RTA_PREFSRC, r.source)
	}
	if len(r.index) == 1 {
		if len(r.via) == 1 {
			b.addr(unix.RTA_GATEWAY, r.via[0])
		}
		b.number(unix.RTA_OIF, r.index[0])
		return
	}
	b.nest(unix.RTA_MULTIPATH, func() {
		for i, via := range r.via {
			at := len(b.out)
			b.out = append(b.out, make([]byte, unix.SizeofRtNexthop)...)
			binary.NativeEndian.PutUint32(b.out[at+4:], uint32(r.index[i]))
			b.addr(unix.RTA_GATEWAY, via)
			binary.NativeEndian.PutUint16(b.out[at:], uint16(len(b.out)-at))
		}
	})
}
