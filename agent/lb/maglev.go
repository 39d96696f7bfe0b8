//go:build linux

package lb

import (
	"crypto/sha256"
	"encoding/binary"
)

// Maglev is the lookup table of "Maglev: A Fast and Reliable Software Network
// Load Balancer" (NSDI 2016): each entry is an index into backends. It depends
// on the backends alone, so all nodes that have them in the same order agree,
// whatever numbers they gave them. size is a prime.
func Maglev(backends []Address, size uint32) []uint16 {
	table := make([]uint16, size)
	if len(backends) == 0 {
		return table
	}
	const free = ^uint16(0)
	for i := range table {
		table[i] = free
	}
	at, skip := permutations(backends, size)
	for filled := uint32(0); ; {
		for i := range backends {
			for table[at[i]] != free {
				at[i] = step(at[i], skip[i], size)
			}
			table[at[i]] = uint16(i)
			at[i] = step(at[i], skip[i], size)
			if filled++; filled == size {
				return table
			}
		}
	}
}

// permutations are each backend's order of preference: where it begins and how
// far it goes each time. They come from the text 172.20.0.5:80/TCP.
func permutations(backends []Address, size uint32) (first, skip []uint32) {
	first, skip = make([]uint32, len(backends)), make([]uint32, len(backends))
	for i, backend := range backends {
		hash := sha256.Sum256([]byte(backend.String()))
		first[i] = uint32(binary.BigEndian.Uint64(hash[:]) % uint64(size))
		skip[i] = uint32(binary.BigEndian.Uint64(hash[8:])%uint64(size-1)) + 1
	}
	return first, skip
}

func step(at, skip, size uint32) uint32 {
	if at += skip; at >= size {
		at -= size
	}
	return at
}
