//go:build linux

package probe

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// control is what the kernel tells about a received packet beside its bytes.
type control struct {
	// stamp is when the kernel received it, by the real-time clock; zero where it did not say.
	stamp time.Time
	// ttl of the packet as it arrived; 0 where the kernel did not say.
	ttl int
	// local is the address of this node that the packet was sent to.
	local netip.Addr
	// failure is there on what comes from the error queue.
	failure extendedError
	failed  bool
}

// extendedError is struct sock_extended_err of linux/errqueue.h, with the
// address that SO_EE_OFFENDER finds behind it.
type extendedError struct {
	errno    unix.Errno
	origin   uint8
	icmpType uint8
	icmpCode uint8
	info     uint32 // the next hop's MTU, with EMSGSIZE
	offender netip.Addr
}

// parseControl reads the control messages of recvmsg(2). What is cut off or of
// no known kind is passed over.
func parseControl(oob []byte) control {
	var c control
	for len(oob) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return c
		}
		oob = rest
		switch {
		case header.Level == unix.SOL_SOCKET && header.Type == unix.SO_TIMESTAMPNS_NEW && len(data) >= 16:
			seconds := int64(binary.NativeEndian.Uint64(data))
			c.stamp = time.Unix(seconds, int64(binary.NativeEndian.Uint64(data[8:])))
		case header.Level == unix.SOL_IP && header.Type == unix.IP_TTL && len(data) >= 4:
			c.ttl = int(binary.NativeEndian.Uint32(data) & 0xff)
		case header.Level == unix.SOL_IP && header.Type == unix.IP_PKTINFO && len(data) >= 12:
			c.local = netip.AddrFrom4([4]byte(data[8:12]))
		case header.Level == unix.SOL_IP && header.Type == unix.IP_RECVERR:
			c.failure, c.failed = parseExtendedError(data)
		}
	}
	return c
}

// parseExtendedError reads one IP_RECVERR message. The offender is the zero
// address where the error is this node's own.
func parseExtendedError(b []byte) (extendedError, bool) {
	const size, addressOffset = 16, 4
	if len(b) < size {
		return extendedError{}, false
	}
	e := extendedError{
		errno:    unix.Errno(binary.NativeEndian.Uint32(b)),
		origin:   b[4],
		icmpType: b[5],
		icmpCode: b[6],
		info:     binary.NativeEndian.Uint32(b[8:]),
	}
	if offender := b[size:]; len(offender) >= addressOffset+4 && binary.NativeEndian.Uint16(offender) == unix.AF_INET {
		e.offender = netip.AddrFrom4([4]byte(offender[addressOffset:]))
	}
	return e, true
}
