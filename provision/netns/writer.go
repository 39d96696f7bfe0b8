//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// maxBatch bounds the requests of one message: their acknowledgements must fit
// into the socket's receive buffer (about 768 bytes each of the usual 208 KiB).
const maxBatch = 128

// writer sends changes to one namespace, many in one system call. The kernel
// carries out what one call holds even where the process is killed meanwhile.
type writer struct {
	socket *nl.NetlinkSocket
	seq    uint32
	buffer []byte
	whats  []string
}

func newWriter(ns *os.File) (*writer, error) {
	socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(ns.Fd()), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink in %s: %w", ns.Name(), err)
	}
	for _, option := range []int{unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK} {
		if err := unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, option, 1); err != nil {
			socket.Close()
			return nil, fmt.Errorf("set up rtnetlink: %w", err)
		}
	}
	return &writer{socket: socket}, nil
}

func (w *writer) Close() { w.socket.Close() }

// add queues a request; what names it in an error.
func (w *writer) add(what string, kind, flags int, data ...nl.NetlinkRequestData) error {
	w.seq++
	req := nl.NetlinkRequest{NlMsghdr: unix.NlMsghdr{
		Type: uint16(kind), Flags: uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags), Seq: w.seq,
	}}
	for _, d := range data {
		req.AddData(d)
	}
	w.buffer = append(w.buffer, req.Serialize()...)
	w.whats = append(w.whats, what)
	if len(w.whats) == maxBatch {
		return w.flush()
	}
	return nil
}

// flush sends what is queued and waits for each answer. All requests are
// carried out as far as they can be; the error is the first one's.
func (w *writer) flush() error {
	if len(w.whats) == 0 {
		return nil
	}
	whats, out := w.whats, w.buffer
	w.whats, w.buffer = nil, w.buffer[:0]
	if err := unix.Sendto(w.socket.GetFd(), out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: send to rtnetlink: %w", whats[0], err)
	}
	first := w.seq - uint32(len(whats)) + 1
	errs := make([]error, len(whats))
	for answered := 0; answered < len(whats); {
		messages, _, err := w.socket.Receive()
		if err != nil {
			return fmt.Errorf("%s: receive from rtnetlink: %w", whats[0], err)
		}
		for _, m := range messages {
			i := m.Header.Seq - first
			if m.Header.Type != unix.NLMSG_ERROR || i >= uint32(len(whats)) {
				continue
			}
			answered++
			if err := answerError(m); err != nil {
				errs[i] = fmt.Errorf("%s: %w", whats[i], err)
			}
		}
	}
	return errors.Join(errs...)
}

// answerError is nil for an acknowledgement (struct nlmsgerr in linux/netlink.h).
func answerError(m syscall.NetlinkMessage) error {
	const header = 4 + unix.SizeofNlMsghdr
	if len(m.Data) < header {
		return errors.New("truncated answer")
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
	if errno == 0 {
		return nil
	}
	if m.Header.Flags&unix.NLM_F_ACK_TLVS == 0 || m.Header.Flags&unix.NLM_F_CAPPED == 0 {
		return errno
	}
	attributes, err := nl.ParseRouteAttr(m.Data[header:])
	if err != nil {
		return errno
	}
	for _, a := range attributes {
		if a.Attr.Type == nl.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w (%s)", errno, unix.ByteSliceToString(a.Value))
		}
	}
	return errno
}
