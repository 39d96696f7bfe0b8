//go:build linux

package probe

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/native-routing/labctl/agent/api"
	"golang.org/x/sys/unix"
)

// The kinds of [api.ProbeError].
const (
	kindNet        = "net-unreachable"
	kindHost       = "host-unreachable"
	kindProhibited = "prohibited"
	kindTTL        = "ttl-exceeded"
	kindTooBig     = "too-big"
	kindLocal      = "local"
)

// The codes of ICMP destination unreachable and time exceeded that a trace tells apart.
const (
	codeHostUnreachable = 1
	codePortUnreachable = 3
	codeFragNeeded      = 4
	codeTransit         = 0
)

// unreachable gives the kind and ping's words for the codes of ICMP destination
// unreachable (RFC 792, RFC 1122, RFC 1812).
func unreachable(code uint8) (kind, words string) {
	switch code {
	case 0:
		return kindNet, "destination net unreachable"
	case codeHostUnreachable:
		return kindHost, "destination host unreachable"
	case 2:
		return kindHost, "destination protocol unreachable"
	case codePortUnreachable:
		return kindHost, "destination port unreachable"
	case codeFragNeeded:
		return kindTooBig, "frag needed and DF set"
	case 5:
		return kindHost, "source route failed"
	case 6:
		return kindNet, "destination net unknown"
	case 7:
		return kindHost, "destination host unknown"
	case 8:
		return kindHost, "source host isolated"
	case 9:
		return kindProhibited, "destination net prohibited"
	case 10:
		return kindProhibited, "destination host prohibited"
	case 11:
		return kindNet, "destination net unreachable for type of service"
	case 12:
		return kindHost, "destination host unreachable for type of service"
	case 13:
		return kindProhibited, "packet filtered"
	case 14:
		return kindProhibited, "precedence violation"
	case 15:
		return kindProhibited, "precedence cutoff"
	default:
		return kindHost, fmt.Sprintf("destination unreachable, code %d", code)
	}
}

// explain turns an entry of the error queue into what the API says of it.
func (e extendedError) explain() *api.ProbeError {
	switch {
	case e.origin != unix.SO_EE_ORIGIN_ICMP:
		return localFailure(e.errno, int(e.info))
	case e.icmpType == icmpUnreachable:
		kind, words := unreachable(e.icmpCode)
		failure := &api.ProbeError{Kind: kind, From: e.offender, Message: words}
		if kind == kindTooBig {
			failure.MTU = int(min(e.info, maxDatagram))
			failure.Message = fmt.Sprintf("%s (mtu = %d)", words, e.info)
		}
		return failure
	case e.icmpType == icmpTimeExceeded && e.icmpCode == codeTransit:
		return &api.ProbeError{Kind: kindTTL, From: e.offender, Message: "time to live exceeded"}
	case e.icmpType == icmpTimeExceeded:
		return &api.ProbeError{Kind: kindTTL, From: e.offender, Message: "fragment reassembly time exceeded"}
	default:
		return &api.ProbeError{Kind: kindHost, From: e.offender, Message: fmt.Sprintf("ICMP type %d code %d: %s", e.icmpType, e.icmpCode, e.errno)}
	}
}

// byOwnKernel says whether a queued error is an ICMP error that this node
// sent to itself, as the kernel does when nobody answers ARP for the next hop.
func (m *message) byOwnKernel() bool {
	return m.failure.offender.IsValid() && m.failure.offender == m.local && m.address.Addr() != m.local
}

// explainOwn is the error that this node's kernel sent to itself.
func (m *message) explainOwn() *api.ProbeError {
	failure := localFailure(m.failure.errno, 0)
	if m.failure.icmpType == icmpUnreachable && m.failure.icmpCode == codeHostUnreachable {
		failure.Message += " (the next hop does not answer ARP)"
	} else {
		failure.Message += " (a firewall rule of this node rejects it)"
	}
	return failure
}

// localFailure is an error of this node's own kernel; mtu is 0 where it names none.
func localFailure(errno unix.Errno, mtu int) *api.ProbeError {
	failure := &api.ProbeError{Kind: kindLocal, Message: errno.Error()}
	switch errno {
	case unix.EMSGSIZE:
		failure.MTU = mtu
		if mtu > 0 {
			failure.Message = fmt.Sprintf("%s (mtu = %d)", errno, mtu)
		}
	case unix.EPERM:
		failure.Message += " (a firewall rule of this node drops it)"
	case unix.ENOBUFS:
		failure.Message += " (this node's device drops it: its queue is full, or the other end of the link takes no packet of this size)"
	case unix.EACCES:
		failure.Message += " (a broadcast address, or a route that prohibits)"
	}
	return failure
}

// sendFailure is why the kernel did not take a packet from the source from.
func sendFailure(err error, from netip.Addr) *api.ProbeError {
	var refused *sendError
	if !errors.As(err, &refused) {
		return &api.ProbeError{Kind: kindLocal, Message: err.Error()}
	}
	// What the route lookup says of a source that is not local differs between
	// kernels and never names it; bind(2) is plain.
	if from.IsValid() {
		if err := bindable(from); err != nil {
			return &api.ProbeError{Kind: kindLocal, Message: fmt.Sprintf("%s is not an address of this node: %s", from, err)}
		}
	}
	return localFailure(refused.errno, refused.mtu)
}
