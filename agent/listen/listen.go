//go:build linux

// Package listen opens the sockets on which an agent serves the network, and
// says who has the port where it is taken.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// TCP listens in the calling thread's network namespace. The address need not
// be there yet, and may go and come back: connections are taken whenever it is
// there. Multipath TCP is off, since eBPF programs balance plain TCP only.
func TCP(ctx context.Context, at netip.AddrPort) (*net.TCPListener, error) {
	config := net.ListenConfig{Control: freebind}
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp4", at.String())
	if err != nil {
		return nil, explain("tcp", at, err)
	}
	return listener.(*net.TCPListener), nil
}

// UDP is as [TCP], for datagrams.
func UDP(ctx context.Context, at netip.AddrPort) (*net.UDPConn, error) {
	config := net.ListenConfig{Control: freebind}
	conn, err := config.ListenPacket(ctx, "udp4", at.String())
	if err != nil {
		return nil, explain("udp", at, err)
	}
	return conn.(*net.UDPConn), nil
}

// freebind lets a socket have an address that no interface has.
func freebind(_, _ string, conn syscall.RawConn) error {
	var failure error
	err := conn.Control(func(fd uintptr) {
		failure = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(err, failure)
}

func explain(protocol string, at netip.AddrPort, err error) error {
	// What net says beside the error number repeats the address.
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("listen on %s %s: %w", protocol, at, err)
	}
	who := holder(protocol, at.Port())
	if who == "" {
		flag := map[string]string{"tcp": "-ltnp", "udp": "-lunp"}[protocol]
		who = fmt.Sprintf("see who has it with: ss %s 'sport = :%d'", flag, at.Port())
	}
	return fmt.Errorf("listen on %s %s: %w (%s)", protocol, at, err, who)
}
