//go:build linux

package netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// startSysctls put a new network namespace into a known state before it has
// links, since a link takes conf/default over when it is made, and a new
// namespace takes the machine's own conf over (net.core.devconf_inherit_init_net).
// What they name is written under net/ipv4/conf/{all,default}.
func startSysctls() map[string]string {
	return map[string]string{
		"rp_filter": "0", "accept_redirects": "0", "send_redirects": "1", "accept_source_route": "0",
		"arp_ignore": "0", "arp_announce": "0", "arp_filter": "0", "proxy_arp": "0",
		"accept_local": "0", "route_localnet": "0", "log_martians": "0", "promote_secondaries": "0",
		"ignore_routes_with_linkdown": "0",
	}
}

// tune is for the calling thread's network namespace, which must be new: IPv6
// off, bridges out of iptables' sight and, on a node, IPv4 as above. The fabric
// has no addresses.
func tune(node bool) error {
	forward := "0"
	if node {
		forward = "1" // what a node's agent wants; now it costs nothing, with links it would
	}
	for _, s := range [][2]string{
		// First: the kernel sets others back when this one changes.
		{"/proc/sys/net/ipv4/ip_forward", forward},
		{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"},
		{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"},
		{"/proc/sys/net/bridge/bridge-nf-call-iptables", "0"},
		{"/proc/sys/net/bridge/bridge-nf-call-arptables", "0"},
	} {
		if err := writeSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	if !node {
		return nil
	}
	for _, scope := range []string{"all", "default"} {
		if err := tuneConf("/proc/sys/net/ipv4/conf/" + scope); err != nil {
			return err
		}
	}
	return nil
}

func tuneConf(path string) error {
	dir, err := unix.Open(path, unix.O_DIRECTORY|unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(dir)
	for name, value := range startSysctls() {
		if err := writeSysctlAt(dir, name, value); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func writeSysctl(path, value string) error { return writeSysctlAt(unix.AT_FDCWD, path, value) }

// writeSysctlAt passes over a file that this kernel does not have (IPv6 or
// br_netfilter left out), and one that holds the value already: to read costs
// less than to write.
func writeSysctlAt(dir int, path, value string) error {
	fd, err := unix.Openat(dir, path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, permission(err))
	}
	defer unix.Close(fd)
	var now [8]byte
	if n, err := unix.Pread(fd, now[:], 0); err == nil && n == len(value)+1 && string(now[:n-1]) == value {
		return nil
	}
	if _, err := unix.Pwrite(fd, []byte(value), 0); err != nil {
		return fmt.Errorf("write %s to %s: %w", value, path, permission(err))
	}
	return nil
}
