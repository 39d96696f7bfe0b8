//go:build linux

package lb

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/bpf"
)

// Address is an IPv4 address with a port and a protocol: what a frontend or a
// backend is, whatever number it has on a node. Addresses are ordered as
// numbers: by address, then port, then protocol. The zero value is none.
//
// Bits 63 to 32 are the address, 31 to 16 the port, 15 to 8 the protocol; the
// last eight are 0 here, and the scope in a [Key].
type Address uint64

// NewAddress packs an IPv4 address; it is 0 for any other.
func NewAddress(addr netip.AddrPort, proto uint8) Address {
	if !addr.Addr().Unmap().Is4() {
		return 0
	}
	return pack(addr.Addr(), addr.Port(), proto)
}

func pack(addr netip.Addr, port uint16, proto uint8) Address {
	b := addr.As4()
	return Address(binary.BigEndian.Uint32(b[:]))<<32 | Address(port)<<16 | Address(proto)<<8
}

// AddrPort is the address and the port.
func (a Address) AddrPort() netip.AddrPort {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(a>>32))
	return netip.AddrPortFrom(netip.AddrFrom4(b), uint16(a>>16))
}

// Proto is IPPROTO_TCP or IPPROTO_UDP.
func (a Address) Proto() uint8 { return uint8(a >> 8) }

// Protocol is TCP or UDP.
func (a Address) Protocol() string {
	switch a.Proto() {
	case unix.IPPROTO_TCP:
		return "TCP"
	case unix.IPPROTO_UDP:
		return "UDP"
	}
	return fmt.Sprintf("protocol %d", a.Proto())
}

// String is as Cilium writes it: 10.96.0.10:53/UDP.
func (a Address) String() string { return a.AddrPort().String() + "/" + a.Protocol() }

// Key is a frontend: an address with a scope.
type Key uint64

func (a Address) scoped(scope bpf.DatapathScope) Key { return Key(a) | Key(scope) }

// Address is the frontend's without its scope.
func (k Key) Address() Address { return Address(k &^ 0xff) }

// Internal is whether it is the half of a frontend for callers in the cluster.
func (k Key) Internal() bool { return uint8(k) == uint8(bpf.DatapathScopeSCOPE_INTERNAL) }

// String is as Cilium writes it: 192.168.10.100:30080/TCP/i.
func (k Key) String() string {
	if k.Internal() {
		return k.Address().String() + "/i"
	}
	return k.Address().String()
}

func (k Key) wire() bpf.DatapathFrontendKey {
	return bpf.DatapathFrontendKey{
		Addr: wireAddr(uint32(k >> 32)), Port: bpf.Port(uint16(k >> 16)), Proto: uint8(k >> 8), Scope: uint8(k),
	}
}

func keyOf(wire bpf.DatapathFrontendKey) Key {
	return pack(bpf.Addr(wire.Addr), bpf.Port(wire.Port), wire.Proto).scoped(bpf.DatapathScope(wire.Scope))
}

func (a Address) backend(state uint8) bpf.DatapathBackend {
	return bpf.DatapathBackend{
		Addr: wireAddr(uint32(a >> 32)), Port: bpf.Port(uint16(a >> 16)), Proto: a.Proto(), State: state,
	}
}

func addressOf(wire bpf.DatapathBackend) Address {
	return pack(bpf.Addr(wire.Addr), bpf.Port(wire.Port), wire.Proto)
}

// wireAddr is bpf.Address of a number in host order.
func wireAddr(host uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], host)
	return binary.NativeEndian.Uint32(b[:])
}

// protocolNumber is 0 for what is not balanced.
func protocolNumber(protocol string) uint8 {
	switch protocol {
	case "TCP", "":
		return unix.IPPROTO_TCP
	case "UDP":
		return unix.IPPROTO_UDP
	}
	return 0
}

// serviceName orders as namespace/name is read, without making that text.
type serviceName struct{ namespace, name string }

func (n serviceName) String() string { return n.namespace + "/" + n.name }

func (n serviceName) compare(o serviceName) int {
	return cmp.Or(cmp.Compare(n.namespace, o.namespace), cmp.Compare(n.name, o.name))
}
