//go:build linux

package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// wantedBuffer is asked for the socket, in bytes; the kernel doubles it. It
	// costs memory only while answers wait.
	wantedBuffer = 1 << 20
	// answerCost and routeCost are what the kernel charges to the buffer, at
	// most, for an acknowledgement and for an answer with a route in it
	// (alloc_skb(NLMSG_GOODSIZE) in inet_rtm_getroute).
	answerCost = 1 << 10
	routeCost  = 8 << 10
	// maxChunk bounds the bytes of one message, well below the send buffer.
	maxChunk = 64 << 10
)

// Conn is an rtnetlink socket that carries many requests in one system call.
// Its methods are safe for concurrent use.
type Conn struct {
	mu     sync.Mutex
	socket *nl.NetlinkSocket
	port   uint32
	seq    uint32
	buffer int // bytes of answers that the kernel keeps for us
	out    []byte
	in     []byte
}

// Open returns a Conn into the network namespace ns; netns.None() is the
// caller's own.
func Open(ns netns.NsHandle) (*Conn, error) {
	socket, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open an rtnetlink socket: %w", err)
	}
	c := &Conn{socket: socket, in: make([]byte, 32<<10)}
	if err := c.configure(); err != nil {
		socket.Close()
		return nil, fmt.Errorf("configure the rtnetlink socket: %w", err)
	}
	return c, nil
}

func (c *Conn) configure() (err error) {
	fd := c.socket.GetFd()
	if c.port, err = c.socket.GetPid(); err != nil {
		return err
	}
	// Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it the chunks are smaller.
	if err := c.socket.SetReceiveBufferSize(wantedBuffer, true); err != nil {
		_ = c.socket.SetReceiveBufferSize(wantedBuffer, false)
	}
	if c.buffer, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	return c.socket.SetExtAck(true)
}

// Close closes the socket.
func (c *Conn) Close() { c.socket.Close() }

// Port is the socket's netlink port, which its changes bear in the
// notifications of others.
func (c *Conn) Port() uint32 { return c.port }

// Error is the kernel's refusal of one request.
type Error struct {
	Errno unix.Errno
	// Detail is the kernel's own explanation; often empty.
	Detail string
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Errno.Error()
	}
	return e.Errno.Error() + " (" + e.Detail + ")"
}

// Unwrap lets errors.Is match the errno.
func (e *Error) Unwrap() error { return e.Errno }

// ErrNoAnswer is a request that the kernel may or may not have carried out.
var ErrNoAnswer = errors.New("the kernel's answer was lost")

// exchange sends n requests, many in one message, and calls answered for each
// that the kernel refused or answered with a body. Requests that only change
// something are acknowledged by silence: the kernel answers each error, and the
// last of a chunk is asked for its acknowledgement, so none is missed. cost is
// what an answer takes of the socket's buffer at most, in bytes. With an error
// of the socket it returns how many requests have their answers; the fate of
// the others is not known.
func (c *Conn) exchange(n, cost int, encode func(b []byte, i int) []byte, answered func(i int, err error, body []byte)) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := max(1, c.buffer/cost)
	for start := 0; start < n; {
		first := c.seq + 1
		end := c.fill(start, min(n, start+limit), encode)
		if err := c.send(); err != nil {
			return start, err
		}
		open := end - start
		last, err := c.receive(func(seq uint32, err error, body []byte) {
			if i := seq - first; i < uint32(open) {
				answered(start+int(i), err, body)
			}
		})
		if err != nil {
			return start, err
		}
		if !last {
			return start, fmt.Errorf("requests %d to %d of %d: %w", start+1, end, n, ErrNoAnswer)
		}
		start = end
	}
	return n, nil
}

// fill encodes the requests from start on, as many as fit, and returns the
// index after the last.
func (c *Conn) fill(start, end int, encode func(b []byte, i int) []byte) int {
	c.out = c.out[:0]
	last := 0
	i := start
	for ; i < end && len(c.out) < maxChunk; i++ {
		last = len(c.out)
		c.seq++
		c.out = encode(c.out, i)
		binary.NativeEndian.PutUint32(c.out[last:], uint32(len(c.out)-last))
		binary.NativeEndian.PutUint32(c.out[last+8:], c.seq)
	}
	flags := binary.NativeEndian.Uint16(c.out[last+6:])
	binary.NativeEndian.PutUint16(c.out[last+6:], flags|unix.NLM_F_ACK)
	return i
}

func (c *Conn) send() error {
	for {
		err := unix.Sendto(c.socket.GetFd(), c.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("send %d bytes to rtnetlink: %w", len(c.out), err)
		}
	}
}

// receive reads what the kernel answered while it took the message: rtnetlink
// works in the sender's system call, so the answers are there when it returns.
// It says whether the last request was acknowledged.
func (c *Conn) receive(visit func(seq uint32, err error, body []byte)) (bool, error) {
	for {
		n, err := c.recv()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
			c.drain()
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("receive from rtnetlink: %w", err)
		}
		last := false
		err = parseAnswers(c.in[:n], func(a answer) {
			if a.ack && a.seq == c.seq {
				last = true
			}
			if a.err != nil || !a.ack {
				visit(a.seq, a.err, a.body)
			}
		})
		if err != nil {
			return false, err
		}
		if last {
			return true, nil
		}
	}
}

func (c *Conn) recv() (int, error) {
	for {
		n, _, err := unix.Recvfrom(c.socket.GetFd(), c.in, unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// drain throws away late answers, so that the next exchange does not meet them.
func (c *Conn) drain() {
	for {
		if _, err := c.recv(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

// answer is one message of the kernel's: an acknowledgement, with err where it
// refused, or a body.
type answer struct {
	seq  uint32
	ack  bool
	err  error
	body []byte
}

// errTruncated is an answer that is shorter than it says.
var errTruncated = errors.New("truncated rtnetlink answer")

// parseAnswers visits each netlink message in b (struct nlmsghdr, and struct
// nlmsgerr with its attributes, in linux/netlink.h).
func parseAnswers(b []byte, visit func(answer)) error {
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return errTruncated
		}
		flags := binary.NativeEndian.Uint16(b[6:])
		a := answer{seq: binary.NativeEndian.Uint32(b[8:]), body: b[unix.SizeofNlMsghdr:length]}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
			if len(a.body) < 4+unix.SizeofNlMsghdr {
				return errTruncated
			}
			a.ack = true
			if errno := -int32(binary.NativeEndian.Uint32(a.body)); errno != 0 {
				a.err = &Error{Errno: unix.Errno(errno), Detail: detail(a.body[4:], flags)}
			}
		}
		visit(a)
		b = b[min(align(length), len(b)):]
	}
	return nil
}

// detail finds NLMSGERR_ATTR_MSG after the echoed request, which is only a
// header where the kernel capped it.
func detail(b []byte, flags uint16) string {
	const nlmsgerrAttrMsg = 1
	if flags&unix.NLM_F_ACK_TLVS == 0 {
		return ""
	}
	skip := unix.SizeofNlMsghdr
	if flags&unix.NLM_F_CAPPED == 0 {
		skip = align(int(binary.NativeEndian.Uint32(b)))
	}
	if skip < unix.SizeofNlMsghdr || skip > len(b) {
		return ""
	}
	text := ""
	eachAttribute(b[skip:], func(kind uint16, value []byte) {
		if kind == nlmsgerrAttrMsg {
			text = unix.ByteSliceToString(value)
		}
	})
	return text
}

// eachAttribute visits the attributes (struct rtattr) in b, as far as they are whole.
func eachAttribute(b []byte, visit func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return
		}
		visit(binary.NativeEndian.Uint16(b[2:])&^uint16(unix.NLA_F_NESTED), b[unix.SizeofRtAttr:length])
		b = b[min(align(length), len(b)):]
	}
}

// align rounds up to NLMSG_ALIGNTO, which is RTA_ALIGNTO too.
func align(n int) int { return (n + 3) &^ 3 }
