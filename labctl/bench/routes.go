//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"time"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/rtnl"
)

// routesGoal: a process that is exec'd and reads its requests as text must not be faster.
const routesGoal = 1.0

// measureRoutes puts many routes into a namespace of its own.
func measureRoutes(ctx context.Context, r *rig) ([]Row, error) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		return nil, fmt.Errorf("%w (apt-get install iproute2)", err)
	}
	var rows []Row
	for _, n := range []int{1000, 10000} {
		var ours, floor samples
		for range r.rounds {
			if err := routesRound(ctx, ip, n, &floor, &ours); err != nil {
				return nil, fmt.Errorf("%d routes: %w", n, err)
			}
		}
		rows = append(rows, timed(fmt.Sprintf("%d routes by agent/rtnl", n), ours).against(floor, "ip -batch").ratioAtMost(routesGoal))
	}
	return rows, r.kernel.settle(ctx)
}

var gateway = netip.MustParseAddr("192.168.10.101")

// routesRound lets ip and then rtnl fill the same namespace.
func routesRound(ctx context.Context, ip string, n int, floor, ours *samples) error {
	changes := make([]rtnl.Change, n)
	var script bytes.Buffer
	for i := range changes {
		to := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		changes[i] = rtnl.Change{Route: rtnl.Route{To: to, Protocol: rtnl.RouteProtocol, NextHops: []rtnl.NextHop{{Via: gateway}}}}
		fmt.Fprintf(&script, "route add %s via %s proto %d\n", to, gateway, rtnl.RouteProtocol)
	}
	return onThread(func() error {
		if err := routesNamespace(); err != nil {
			return err
		}
		conn, err := rtnl.Open(vnetns.None())
		if err != nil {
			return err
		}
		defer conn.Close()
		cmd := exec.CommandContext(ctx, ip, "-batch", "-")
		cmd.Stdin = strings.NewReader(script.String())
		runtime.GC() // ours, not to be paid for by either
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ip -batch: %w: %s", err, out)
		}
		floor.took(start)
		if err := removeRoutes(conn, changes); err != nil { // all that ip made is there
			return err
		}
		start = time.Now()
		if err := apply(conn, changes); err != nil {
			return err
		}
		ours.took(start)
		return removeRoutes(conn, changes)
	})
}

// routesNamespace moves the calling thread to where gateway is on the link.
func routesNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	if err := noIPv6(); err != nil {
		return err
	}
	ns, err := vnetns.Get()
	if err != nil {
		return err
	}
	defer ns.Close()
	socket, err := openRtnetlink()
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	l := floorLink{name: "eth1", index: firstLink, mtu: defaultMTU, mac: [6]byte{0x02}, port: firstPort, portMTU: defaultMTU,
		portName: "port", address: netip.MustParsePrefix("192.168.10.100/24")}
	var b batch
	b.pair(l, int(ns))
	b.request(unix.RTM_SETLINK, 0, linkHeader(l.index, true))
	b.address(l)
	return b.send(socket)
}

func apply(conn *rtnl.Conn, changes []rtnl.Change) error {
	errs, err := conn.Change(changes)
	return errors.Join(append(errs, err)...)
}

func removeRoutes(conn *rtnl.Conn, added []rtnl.Change) error {
	remove := make([]rtnl.Change, len(added))
	for i, a := range added {
		remove[i] = rtnl.Change{Verb: rtnl.Delete, Route: a.Route}
	}
	return apply(conn, remove)
}
