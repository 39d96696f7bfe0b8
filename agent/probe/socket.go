//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/native-routing/labctl/agent/capture"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// maxDatagram is the largest IPv4 packet, in bytes.
	maxDatagram = 65535
	// socketBuffer is asked for in both directions, in bytes: what a few
	// thousand small packets take in the kernel's own accounting.
	socketBuffer = 4 << 20
	// controlSpace holds every control message that is asked for.
	controlSpace = 256
	// sendBatch packets are sent before the answers are looked at.
	sendBatch = 16
	// sendRetry is the wait for room in the socket's send buffer.
	sendRetry = time.Millisecond
	// drainLimit is how many packets are taken in before the time is looked at
	// again: more than the receive buffer holds.
	drainLimit = 1 << 16
)

// errBusy means that the kernel has no room for a packet now. Whoever tries
// again does so for no longer than the probe's own timeout.
var errBusy = errors.New("the kernel's send queue is full")

// sendError is the kernel's refusal of a packet.
type sendError struct {
	errno unix.Errno
	mtu   int // with EMSGSIZE, where the kernel named it
}

func (e *sendError) Error() string { return e.errno.Error() }
func (e *sendError) Unwrap() error { return e.errno }

// dropped says whether an error of send means that the packet was taken and
// then dropped on the way out: by a full queue of the device, or by a veth of
// which the other end has a smaller MTU. The kernel tells that only with
// IP_RECVERR. It is lost as it would be on any other link, and sending it again
// at once would do no better.
func dropped(err error) bool {
	var refused *sendError
	return errors.As(err, &refused) && refused.errno == unix.ENOBUFS
}

// message is a received packet, or an entry of the error queue with the packet
// it speaks of. Its bytes hold until the next one is received.
type message struct {
	control
	bytes []byte
	// address is the sender; on an error the destination of the packet that failed.
	address netip.AddrPort
}

// receiver is handed what a socket receives. It must not send, since it may be
// called while another packet is being sent.
type receiver interface {
	received(*message)
	refused(*message)
}

// socket is a non-blocking socket under the runtime's poller, so that waiting
// takes no thread. One goroutine uses it.
type socket struct {
	file   *os.File
	conn   syscall.RawConn
	fd     int
	to     receiver
	buffer []byte
	oob    [controlSpace]byte
	// localMTU is what the kernel named when it refused a packet as too long.
	localMTU int
}

// newSocket opens a socket in the namespace of the calling thread. It hands
// out at most size bytes of each packet.
func newSocket(domain, kind, protocol, size int) (*socket, error) {
	fd, err := unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "probe"), fd: fd, buffer: make([]byte, size)}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) close() { _ = s.file.Close() }

// option is one setsockopt(2) with an int.
type option struct {
	name        string
	level, code int
	value       int
}

func (s *socket) set(options ...option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(s.fd, o.level, o.code, o.value); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	return nil
}

// enlarge sets a buffer's size past the administrator's limit where that is allowed.
func (s *socket) enlarge(force, plain int) error {
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, force, socketBuffer) == nil {
		return nil
	}
	return s.set(option{"the buffer size", unix.SOL_SOCKET, plain, socketBuffer})
}

// tellErrors asks for the error queue and for all that a probe wants to know
// of what it receives.
func (s *socket) tellErrors() error {
	if err := s.enlarge(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF); err != nil {
		return err
	}
	if err := s.enlarge(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF); err != nil {
		return err
	}
	return s.set(
		option{"SO_TIMESTAMPNS_NEW", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1},
		option{"IP_RECVERR", unix.SOL_IP, unix.IP_RECVERR, 1},
		option{"IP_RECVTTL", unix.SOL_IP, unix.IP_RECVTTL, 1},
		option{"IP_PKTINFO", unix.SOL_IP, unix.IP_PKTINFO, 1},
	)
}

// attach puts a classic BPF program in front of the receive queue.
func (s *socket) attach(program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	return capture.Attach(s.fd, raw)
}

// sendControl is the control message block that sets the source address, where
// from is valid, and the TTL, where it is not 0, of one packet.
func sendControl(from netip.Addr, ttl int) []byte {
	var oob []byte
	if from.IsValid() {
		oob = append(oob, unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.As4()})...)
	}
	if ttl > 0 {
		one := make([]byte, unix.CmsgSpace(4))
		header := (*unix.Cmsghdr)(unsafe.Pointer(&one[0]))
		header.Level, header.Type = unix.SOL_IP, unix.IP_TTL
		header.SetLen(unix.CmsgLen(4))
		*(*int32)(unsafe.Pointer(&one[unix.CmsgLen(0)])) = int32(ttl)
		oob = append(oob, one...)
	}
	return oob
}

// send hands one packet to the kernel. It returns errBusy where that must be
// tried again later, and a *sendError for a refusal or a drop.
func (s *socket) send(packet, oob []byte, to netip.AddrPort) error {
	address := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	for range 16 {
		_, err := unix.SendmsgN(s.fd, packet, oob, address, 0)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOMEM:
			return errBusy
		case unix.ENOBUFS:
			return &sendError{errno: unix.ENOBUFS}
		}
		errno, ok := err.(unix.Errno)
		if !ok {
			return err
		}
		// An ICMP error for an earlier packet makes the next send fail, once.
		// Only an error that is still there with an empty queue is this packet's,
		// and one that no ICMP error stands for.
		s.localMTU = 0
		pending := s.drainErrors()
		switch {
		case !pending, errno == unix.EMSGSIZE && s.localMTU > 0, errno == unix.EPERM, errno == unix.EACCES, errno == unix.EINVAL:
			return &sendError{errno, s.localMTU}
		}
	}
	return errBusy
}

// drain hands all that has arrived to the receiver, and says whether there was any.
func (s *socket) drain() bool {
	some := s.drainErrors()
	for skipped, taken := 0, 0; skipped < 16 && taken < drainLimit; taken++ {
		m, err := s.receive(0)
		switch err {
		case nil:
			some = true
			s.to.received(&m)
		case unix.EAGAIN:
			return some
		default:
			// The pending error of the socket, which the queue has told already.
			skipped++
			some = s.drainErrors() || some
		}
	}
	return some
}

func (s *socket) drainErrors() bool {
	some := false
	for range drainLimit {
		m, err := s.receive(unix.MSG_ERRQUEUE)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return some
		}
		some = true
		switch {
		case !m.failed:
		case m.failure.origin == unix.SO_EE_ORIGIN_LOCAL:
			s.localMTU = int(min(m.failure.info, maxDatagram))
		default:
			s.to.refused(&m)
		}
	}
	return some
}

func (s *socket) receive(flags int) (message, error) {
	n, oobn, _, from, err := unix.Recvmsg(s.fd, s.buffer, s.oob[:], flags)
	if err != nil {
		return message{}, err
	}
	m := message{control: parseControl(s.oob[:oobn]), bytes: s.buffer[:n]}
	if a, ok := from.(*unix.SockaddrInet4); ok {
		m.address = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	}
	return m, nil
}

// run does the events of the agenda when they are due and takes in what
// arrives between them, until finished says so or ctx ends.
func (s *socket) run(ctx context.Context, a *agenda, do func(event), finished func() bool) error {
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		// What has arrived comes before what has expired: this process may have been late.
		s.drain()
		if finished() {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		for range sendBatch {
			e, ok := a.due(time.Now())
			if !ok {
				break
			}
			do(e)
		}
		next, ok := a.next()
		if finished() || !ok {
			return nil
		}
		if time.Until(next) > 0 {
			s.wait(ctx, next)
		}
	}
}

// wait returns when something has arrived, at the given time, or when ctx ends.
func (s *socket) wait(ctx context.Context, until time.Time) {
	if err := s.file.SetReadDeadline(until); err != nil || ctx.Err() != nil {
		return
	}
	err := s.conn.Read(func(uintptr) bool { return s.drain() })
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		// The poller takes an error on a socket whose send queue is full for the end of it.
		time.Sleep(sendRetry)
	}
}

// elapsed is the time from sent until the kernel stamped the answer. Where the
// real-time clock was set in between it falls back on the time until now.
func elapsed(sent, stamp time.Time) time.Duration {
	now := time.Since(sent)
	if stamp.IsZero() {
		return now
	}
	if d := stamp.Sub(sent); d > 0 && d <= now {
		return d
	}
	return now
}

// bindable says, in the words of bind(2), why an address is not this node's.
func bindable(a netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: a.As4()})
}
