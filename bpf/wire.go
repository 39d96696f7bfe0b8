//go:build linux

package bpf

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
)

// Address is an IPv4 address as the maps hold it: its four bytes as they are on
// the wire.
func Address(addr netip.Addr) (uint32, error) {
	if !addr.Unmap().Is4() {
		return 0, fmt.Errorf("%v is no IPv4 address", addr)
	}
	b := addr.Unmap().As4()
	return binary.NativeEndian.Uint32(b[:]), nil
}

// Addr is the inverse of Address.
func Addr(address uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], address)
	return netip.AddrFrom4(b)
}

// Port turns a port as people write it into one as the maps hold it, and back.
func Port(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

// Prefix is the key of a prefix in IPCache and Nonmasquerade.
func Prefix(prefix netip.Prefix) (DatapathPrefix, error) {
	address, err := Address(prefix.Masked().Addr())
	if err != nil {
		return DatapathPrefix{}, err
	}
	return DatapathPrefix{Bits: uint32(prefix.Bits()), Addr: address}, nil
}

// MetricIndex is where the counters of a reason and a direction are in Metrics,
// and Metric the inverse.
func MetricIndex(reason DatapathReason, direction DatapathDirection) uint32 {
	return uint32(reason)*4 + uint32(direction)
}

// Metric says what an entry of Metrics counts.
func Metric(index uint32) (DatapathReason, DatapathDirection) {
	return DatapathReason(index / 4), DatapathDirection(index % 4)
}

// network is a prefix as address and mask. No address lies in an invalid one:
// its mask makes 0 of each, and its address is not 0.
func network(prefix netip.Prefix) (address, mask uint32, err error) {
	if !prefix.IsValid() {
		return 1, 0, nil
	}
	if address, err = Address(prefix.Masked().Addr()); err != nil {
		return 0, 0, err
	}
	mask = ^uint32(0) << (32 - prefix.Bits())
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		mask = bits.ReverseBytes32(mask)
	}
	return address, mask, nil
}
