//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// vethInfoPeer is VETH_INFO_PEER (linux/veth.h).
const vethInfoPeer = 1

// batch is rtnetlink requests that go to the kernel in one system call. Only the
// last is acknowledged; of the others the kernel answers errors alone.
type batch struct {
	out  []byte
	last int // where the last request begins
	n    int
}

// request begins one with its fixed header (struct ifinfomsg and its like);
// attributes follow by attr and nest.
func (b *batch) request(kind, flags int, header []byte) {
	b.finish()
	b.last = len(b.out)
	b.n++
	b.out = append(b.out, 0, 0, 0, 0)
	b.out = binary.NativeEndian.AppendUint16(b.out, uint16(kind))
	b.out = binary.NativeEndian.AppendUint16(b.out, uint16(flags|unix.NLM_F_REQUEST))
	b.out = binary.NativeEndian.AppendUint32(b.out, uint32(b.n))
	b.out = append(append(b.out, 0, 0, 0, 0), header...)
}

// finish writes the length of the request that is open.
func (b *batch) finish() {
	if b.n > 0 {
		binary.NativeEndian.PutUint32(b.out[b.last:], uint32(len(b.out)-b.last))
	}
}

// attr adds a struct rtattr.
func (b *batch) attr(kind int, value ...byte) {
	b.out = binary.NativeEndian.AppendUint16(b.out, uint16(unix.SizeofRtAttr+len(value)))
	b.out = binary.NativeEndian.AppendUint16(b.out, uint16(kind))
	b.out = append(b.out, value...)
	for len(b.out)%unix.NLMSG_ALIGNTO != 0 {
		b.out = append(b.out, 0)
	}
}

func (b *batch) text(kind int, s string) { b.attr(kind, append([]byte(s), 0)...) }

func (b *batch) number(kind, n int) {
	b.attr(kind, binary.NativeEndian.AppendUint32(nil, uint32(n))...)
}

func (b *batch) addr(kind int, a netip.Addr) { b.attr(kind, a.AsSlice()...) }

// nest adds an attribute that holds what fill adds.
func (b *batch) nest(kind int, fill func()) {
	at := len(b.out)
	b.attr(kind)
	fill()
	binary.NativeEndian.PutUint16(b.out[at:], uint16(len(b.out)-at))
}

// send carries all requests out on an rtnetlink socket, and empties the batch.
// The error is the first that the kernel answers.
func (b *batch) send(socket int) error {
	if b.n == 0 {
		return nil
	}
	b.finish()
	flags := binary.NativeEndian.Uint16(b.out[b.last+6:])
	binary.NativeEndian.PutUint16(b.out[b.last+6:], flags|unix.NLM_F_ACK)
	n := b.n
	err := unix.Sendto(socket, b.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	b.out, b.n = b.out[:0], 0
	if err != nil {
		return fmt.Errorf("send to rtnetlink: %w", err)
	}
	return receive(socket, n)
}

var errTruncated = errors.New("truncated rtnetlink answer")

// receive reads answers until that to the n-th request.
func receive(socket, n int) error {
	var first error
	in := make([]byte, 64<<10)
	for {
		length, _, err := unix.Recvfrom(socket, in, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive from rtnetlink: %w", err)
		}
		for rest := in[:length]; len(rest) > 0; {
			size := 0
			if len(rest) >= unix.SizeofNlMsghdr+4 {
				size = int(binary.NativeEndian.Uint32(rest))
			}
			if size < unix.SizeofNlMsghdr+4 || size > len(rest) {
				return errTruncated
			}
			seq := int(binary.NativeEndian.Uint32(rest[8:]))
			if errno := -int32(binary.NativeEndian.Uint32(rest[unix.SizeofNlMsghdr:])); errno != 0 && first == nil {
				first = fmt.Errorf("request %d of %d: %w", seq, n, unix.Errno(errno))
			}
			if seq == n {
				return first
			}
			rest = rest[min((size+3)&^3, len(rest)):]
		}
	}
}

// openRtnetlink opens a socket into the calling thread's network namespace.
func openRtnetlink() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, fmt.Errorf("open rtnetlink: %w", err)
	}
	return fd, nil
}

// linkHeader is a struct ifinfomsg; index 0 lets the kernel choose or go by name.
func linkHeader(index int, up bool) []byte {
	h := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	if up {
		binary.NativeEndian.PutUint32(h[8:], unix.IFF_UP)
		binary.NativeEndian.PutUint32(h[12:], unix.IFF_UP)
	}
	return h
}
