//go:build linux

package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// connection is a connected socket under the runtime's poller. Its reads and
// writes end with the context that it was opened for.
type connection struct {
	*os.File
	raw  syscall.RawConn
	fd   int
	stop func() bool
}

// connect opens a socket of the given kind in the room and connects it: plain
// TCP, never MPTCP, or UDP.
func (r *room) connect(ctx context.Context, kind int, to netip.AddrPort) (*connection, error) {
	c, err := r.begin(ctx, kind, to, nil)
	if err != nil {
		return nil, err
	}
	if err := c.established(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// begin opens a socket as connect does, lets prepare set it up where that is not
// nil, and begins to connect it.
func (r *room) begin(ctx context.Context, kind int, to netip.AddrPort, prepare func(fd int) error) (*connection, error) {
	if !to.Addr().Unmap().Is4() {
		return nil, &failure{classOther, fmt.Sprintf("connect to %s: not an IPv4 address", to)}
	}
	protocol := unix.IPPROTO_TCP
	if kind == unix.SOCK_DGRAM {
		protocol = unix.IPPROTO_UDP
	}
	fd := -1
	err := r.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
		return err
	})
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if prepare != nil {
		err = prepare(fd)
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().Unmap().As4(), Port: int(to.Port())})
		if err == unix.EINPROGRESS {
			err = nil
		}
		err = os.NewSyscallError("connect", err)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	c := &connection{File: os.NewFile(uintptr(fd), "fetch"), fd: fd}
	if c.raw, err = c.SyscallConn(); err == nil {
		err = c.bound(ctx)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// bound lets everything that waits on the socket end with ctx.
func (c *connection) bound(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	c.stop = context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return nil
}

// rebound lets the socket end with another context than until now.
func (c *connection) rebound(ctx context.Context) error {
	c.stop()
	return c.bound(ctx)
}

// established waits until the connection stands or is refused. The poller may
// wake a socket before either, so the peer decides.
func (c *connection) established() error {
	var failed error
	err := c.raw.Write(func(uintptr) bool {
		errno, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			failed = os.NewSyscallError("getsockopt", err)
		case errno != 0:
			failed = os.NewSyscallError("connect", unix.Errno(errno))
		default:
			_, err := unix.Getpeername(c.fd)
			return err == nil
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}

func (c *connection) close() {
	if c.stop != nil {
		c.stop()
	}
	_ = c.Close()
}

// ends are the socket's own address and the one that it says it is connected to.
func (c *connection) ends() (local, peer netip.AddrPort) {
	local, _ = address(unix.Getsockname(c.fd))
	peer, _ = address(unix.Getpeername(c.fd))
	return local, peer
}

func address(sa unix.Sockaddr, err error) (netip.AddrPort, error) {
	if err != nil {
		return netip.AddrPort{}, err
	}
	in, ok := sa.(*unix.SockaddrInet4)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("not an IPv4 address: %T", sa)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)), nil
}
