//go:build linux

package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Watch tells that something changed in a namespace's links, IPv4 addresses,
// routes, or per-interface configuration (forwarding, rp_filter), or among the
// neighbours and forwarding entries that somebody wrote. It does not tell what: who hears of a change looks again, so no change can be missed by
// misreading a message.
type Watch struct {
	file   *os.File
	closed atomic.Bool
}

// NewWatch watches the network namespace ns; netns.None() is the caller's own.
// Changes that the socket with the netlink port except made are not told; 0
// excepts none.
func NewWatch(ns netns.NsHandle, except uint32) (*Watch, error) {
	fd, err := watchSocket(ns, except)
	if err != nil {
		return nil, fmt.Errorf("watch rtnetlink: %w", err)
	}
	return &Watch{file: os.NewFile(uintptr(fd), "rtnetlink")}, nil
}

func watchSocket(ns netns.NsHandle, except uint32) (int, error) {
	socket, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	defer socket.Close()
	// A descriptor of our own, for the poller: the library's socket hides its file.
	fd, err := unix.FcntlInt(uintptr(socket.GetFd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := configureWatch(fd, except); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func configureWatch(fd int, except uint32) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	// The filter comes first, so that nothing slips in that it is against.
	if err := filter(fd, except); err != nil {
		return err
	}
	for _, group := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_NEIGH,
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return err
		}
	}
	return nil
}

// filter makes the kernel drop notifications whose nlmsg_pid is port, so that
// ten thousand routes of our own do not wake us ten thousand times, and those of
// neighbours that come and go by themselves: of these it passes entries that are
// permanent, that are a tunnel's, or that are gone.
func filter(fd int, port uint32) error {
	const (
		kindAt, portAt = 4, 12 // in struct nlmsghdr
		familyAt       = 16    // of struct ndmsg behind it
		stateAt        = 24
	)
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: at}
	}
	// unless skips the next instructions where the value is another.
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	and := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: value}
	}
	drop, pass := unix.SockFilter{Code: unix.BPF_RET}, unix.SockFilter{Code: unix.BPF_RET, K: math.MaxUint32}
	var program []unix.SockFilter
	if port != 0 { // which is the kernel's own
		program = append(program, load(unix.BPF_W, portAt), unless(loaded32(port), 1), drop)
	}
	program = append(program,
		load(unix.BPF_H, kindAt), unless(loaded16(unix.RTM_NEWNEIGH), 7), // to the end
		load(unix.BPF_B, familyAt), unless(unix.AF_BRIDGE, 1), pass,
		load(unix.BPF_H, stateAt), and(loaded16(unix.NUD_PERMANENT)), unless(0, 1), drop,
		pass,
	)
	given := unix.SockFprog{Len: uint16(len(program)), Filter: unsafe.SliceData(program)}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &given)
}

// loaded32 and loaded16 are numbers as a filter loads them: in network order what
// the kernel wrote in host order.
func loaded32(n uint32) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, n))
}

func loaded16(n uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, n)))
}

// Wait returns when something changed since the last call, having read all
// that there is to read. Notifications that the kernel had to drop count as a
// change. After Close it returns an error that matches os.ErrClosed.
func (w *Watch) Wait() error {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = conn.Read(func(fd uintptr) bool {
		heard, err := drainChanges(int(fd))
		failure = err
		return heard || err != nil
	})
	if w.closed.Load() {
		return os.ErrClosed // what the poller says then cannot be matched
	}
	return errors.Join(err, failure)
}

// drainChanges reads until nothing is left, and says whether there was anything.
func drainChanges(fd int) (heard bool, err error) {
	var first [1]byte // the rest of each message is let go
	for {
		_, _, err := unix.Recvfrom(fd, first[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS):
			heard = true
		case errors.Is(err, unix.EAGAIN):
			return heard, nil
		case !errors.Is(err, unix.EINTR):
			return heard, fmt.Errorf("receive from rtnetlink: %w", err)
		}
	}
}

// Close ends a waiting Wait.
func (w *Watch) Close() error {
	w.closed.Store(true)
	return w.file.Close()
}
