//go:build linux

// Package nstest gives a test network namespaces of its own. They have no name
// and are held by open descriptors only, so that nothing is left of them when
// the test ends, however it ends.
package nstest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace with its loopback up and IPv6 off.
type Namespace struct {
	Handle netns.NsHandle

	t testing.TB
}

// New makes a namespace that lives as long as the test. Without root the test
// fails; only -short skips it.
func New(t testing.TB) *Namespace {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	type made struct {
		handle netns.NsHandle
		err    error
	}
	result := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{err: err}
			return
		}
		handle, err := netns.Get()
		result <- made{handle, err}
	}()
	m := <-result
	if m.err != nil {
		t.Fatalf("make a network namespace: %v (this test needs root)", m.err)
	}
	ns := &Namespace{Handle: m.handle, t: t}
	t.Cleanup(func() { _ = ns.Handle.Close() })
	ns.Run("ip", "link", "set", "lo", "up")
	ns.Run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
	return ns
}

// Path is where another process finds the namespace.
func (ns *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns.Handle)) }

// Command is argv in the namespace, not started yet.
func (ns *Namespace) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + ns.Path(), "--"}, argv...)...)
}

// Run runs argv in the namespace, which must succeed, and returns its output.
func (ns *Namespace) Run(argv ...string) string {
	ns.t.Helper()
	out, err := ns.Command(context.Background(), argv...).CombinedOutput()
	if err != nil {
		ns.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// IP runs ip(8) with the words of args, which must succeed.
func (ns *Namespace) IP(args string) string {
	ns.t.Helper()
	return ns.Run(append([]string{"ip"}, strings.Fields(args)...)...)
}

// Do runs f on a thread that is in the namespace.
func (ns *Namespace) Do(f func()) {
	ns.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, as in New
		err := netns.Set(ns.Handle)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		ns.t.Fatalf("enter the namespace: %v", err)
	}
}

// Connect makes a veth pair between the namespaces: name in ns, peerName in
// peer, both up.
func (ns *Namespace) Connect(name string, peer *Namespace, peerName string) {
	ns.t.Helper()
	ns.Run("ip", "link", "add", name, "type", "veth", "peer", "name", peerName, "netns", peer.Path())
	ns.IP("link set " + name + " up")
	peer.IP("link set " + peerName + " up")
}
