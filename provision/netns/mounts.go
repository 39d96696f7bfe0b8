//go:build linux

package netns

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/native-routing/labctl/agent/mounts"
)

// enterMounts gives the calling thread mounts of its own, as ip-netns(8) does
// for its exec: /sys of the thread's network namespace, and the node's files
// over those in /etc. What was mounted below /sys moves along.
func (n *Node) enterMounts() error {
	if err := mounts.Private(); err != nil {
		return permission(err)
	}
	if err := mounts.RenewSys(); err != nil {
		return err
	}
	for _, b := range [][2]string{
		{filepath.Join(n.etc, "hosts"), "/etc/hosts"},
		{filepath.Join(n.etc, "resolv.conf"), "/etc/resolv.conf"},
		{"/proc/sys/kernel/hostname", "/etc/hostname"}, // the thread's own
		{filepath.Join(n.at.data, protocolsFile), protocolPath()},
	} {
		// A half-made node may lack a file; up mends it.
		if err := mounts.Bind(b[0], b[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
