//go:build linux

package rtnl

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// maxDumps bounds how often a dump is begun anew. An interrupted one takes
// microseconds, so only an endless storm of changes comes this far.
const maxDumps = 64

// List calls list until its dump was not interrupted by a change, so that the
// answer is one consistent view. Every list call of the netlink library goes
// through it; list must begin anew each time. After many tries the last answer
// is returned with netlink.ErrDumpInterrupted.
func List[T any](list func() (T, error)) (T, error) {
	for try := 1; ; try++ {
		answer, err := list()
		if err == nil || !errors.Is(err, netlink.ErrDumpInterrupted) || try == maxDumps {
			return answer, err
		}
	}
}
