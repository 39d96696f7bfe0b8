//go:build linux

package datapath

import (
	"errors"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// attachedTCX counts the TCX programs on all devices of a node.
func attachedTCX(n *node) (count int, failed error) {
	n.ns.Do(func() {
		devices, err := net.Interfaces()
		failed = err
		for _, device := range devices {
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				found, err := link.QueryPrograms(link.QueryOptions{Target: device.Index, Attach: at})
				failed = errors.Join(failed, err)
				if err == nil {
					count += len(found.Programs)
				}
			}
		}
	})
	return count, failed
}
