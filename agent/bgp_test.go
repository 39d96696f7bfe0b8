//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
)

// neighbours are a node with pods and a router, on one link.
func neighbours(t *testing.T) (node, router *nstest.Namespace) {
	node, router = nstest.New(t), nstest.New(t)
	node.Connect("eth1", router, "eth1")
	node.IP("addr add 192.168.10.100/24 dev eth1")
	router.IP("addr add 192.168.10.200/24 dev eth1")
	return node, router
}

func speakingNode(generation string) api.State {
	return api.State{
		Generation: generation, Lab: "study", Node: "k8s-ctr",
		BGP: &api.BGP{
			ASN: 65001, RouterID: addr("192.168.10.100"), Advertise: []netip.Prefix{prefix("172.20.0.0/24")},
			Neighbors: []api.BGPNeighbor{{Name: "router", Address: addr("192.168.10.200"), Local: addr("192.168.10.100"), ASN: 65000}},
		},
	}
}

func speakingRouter(generation string) api.State {
	return api.State{
		Generation: generation, Lab: "study", Node: "router",
		BGP: &api.BGP{
			ASN: 65000, RouterID: addr("192.168.10.200"),
			Neighbors: []api.BGPNeighbor{{Name: "k8s-ctr", Address: addr("192.168.10.100"), Local: addr("192.168.10.200"), ASN: 65001, Passive: true}},
		},
	}
}

// TestBGP: the router learns the node's pods, keeps them while either agent is
// exchanged, forgets them when the node says so, and leaves nothing behind.
func TestBGP(t *testing.T) {
	node, router := neighbours(t)
	nodeDir, routerDir := t.TempDir(), t.TempDir()
	a, r := start(t, node, nodeDir, ""), start(t, router, routerDir, "")
	a.put(speakingNode("1"))
	r.settle(speakingRouter("1"))
	a.until("settled", func(s api.Status) bool { return s.Settled })
	const learned = "172.20.0.0/24 via 192.168.10.100 dev eth1 proto bgp metric 108"
	table := func() string { return strings.Join(strings.Fields(router.IP("route show 172.20.0.0/24")), " ") }
	if got := table(); got != learned {
		t.Fatalf("the router learned %q", got)
	}
	status := r.status().BGP
	if len(status.Peers) != 1 || status.Peers[0].State != "established" || status.Peers[0].Received != 1 || len(status.Routes) != 1 || status.Routes[0].NextHop != addr("192.168.10.100") {
		t.Errorf("status: %+v", status)
	}
	if listening := node.Run("ss", "-Hltn"); listening != "" {
		t.Errorf("a node that calls listens: %s", listening)
	}
	if listening := router.Run("ss", "-Hltn"); strings.Count(listening, "\n") != 1 || !strings.Contains(listening, "192.168.10.200:179") {
		t.Errorf("the router listens on %s", listening)
	}

	// Both agents are exchanged, one after the other, and the route is always there.
	stop, lost := watchRoute(router)
	a.kill(unix.SIGKILL)
	a = start(t, node, nodeDir, "")
	a.until("settled after its restart", func(s api.Status) bool { return s.Settled })
	r.kill(unix.SIGTERM)
	r = start(t, router, routerDir, "")
	r.until("settled after its restart", func(s api.Status) bool { return s.Settled })
	close(stop)
	if n := <-lost; n > 0 {
		t.Errorf("the route was away %d times", n)
	}

	// The node has nothing to say any more: the route goes, and so does the session.
	silent := speakingNode("2")
	silent.BGP = nil
	a.settle(silent)
	r.until("the session's end", func(s api.Status) bool { return s.BGP.Peers[0].State != "established" })
	left := time.Now()
	for table() != "" && time.Since(left) < patience {
		time.Sleep(20 * time.Millisecond)
	}
	if took := time.Since(left); took > 10*time.Second { // much less than neighbours wait for a speaker that is exchanged
		t.Errorf("the router kept the route for %v", took)
	}
	r.settle(api.State{Generation: "3", Lab: "study", Node: "router"})
	if listening := router.Run("ss", "-Hltn"); listening != "" {
		t.Errorf("it speaks BGP no more, and listens: %s", listening)
	}
}

// watchRoute looks for the route all the time, and counts when it is away.
func watchRoute(router *nstest.Namespace) (stop chan struct{}, lost chan int) {
	stop, lost = make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				lost <- n
				return
			case <-time.After(20 * time.Millisecond):
			}
			out, err := router.Command(context.Background(), "ip", "route", "show", "172.20.0.0/24").Output()
			if err != nil || len(out) == 0 {
				n++
			}
		}
	}()
	return stop, lost
}

// TestFRR: the router speaks by FRR, as in the study, and takes the node's pods
// from its agent.
func TestFRR(t *testing.T) {
	node, router := neighbours(t)
	dir := frr(t, router, `
router bgp 65000
 bgp router-id 192.168.10.200
 no bgp ebgp-requires-policy
 neighbor 192.168.10.100 remote-as 65001
 neighbor 192.168.10.100 passive
 address-family ipv4 unicast
  network 10.10.1.0/24
 exit-address-family
`)
	router.IP("link add loop1 type ifb")
	router.IP("addr add 10.10.1.200/24 dev loop1")
	router.IP("link set loop1 up")
	a := start(t, node, t.TempDir(), "")
	a.settle(speakingNode("1"))
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = strings.Join(strings.Fields(router.IP("route show 172.20.0.0/24")), " "); got != "" {
			break
		}
	}
	if !strings.Contains(got, "via 192.168.10.100 dev eth1 proto bgp metric 20") {
		t.Errorf("FRR's table has %q\n%s", got, router.Run("vtysh", "--vty_socket", dir, "-c", "show bgp summary"))
	}
	summary := router.Run("vtysh", "--vty_socket", dir, "-c", "show bgp ipv4 unicast 172.20.0.0/24")
	if !strings.Contains(summary, "65001") || !strings.Contains(summary, "192.168.10.100") {
		t.Errorf("FRR sees\n%s", summary)
	}
	// What FRR advertises, the node learns.
	a.until("10.10.1.0/24", func(api.Status) bool {
		return strings.Contains(node.IP("route show 10.10.1.0/24"), "via 192.168.10.200 dev eth1 proto bgp metric 108")
	})
}

// frr runs Debian's zebra and bgpd in a namespace, with files of their own.
func frr(t *testing.T, ns *nstest.Namespace, config string) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "frr") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // the daemons are FRR's own user
		t.Fatal(err)
	}
	file := filepath.Join(dir, "frr.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"zebra", "bgpd"} {
		args := []string{filepath.Join("/usr/lib/frr", name), "-f", file, "-i", filepath.Join(dir, name+".pid"), "-z", filepath.Join(dir, "zserv"), "--vty_socket", dir,
			"-A", "127.0.0.1", "-P", "0", "--log", "stdout"}
		cmd := ns.Command(context.Background(), args...)
		if err := cmd.Start(); err != nil {
			t.Fatalf("start FRR's %s: %v (apt-get install frr)", name, err)
		}
		t.Cleanup(func() { stopFRR(cmd) })
		socket := filepath.Join(dir, name+".vty")
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal(fmt.Errorf("%s does not open %s", name, socket))
			}
		}
	}
	return dir
}

func stopFRR(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(unix.SIGTERM)
	_ = cmd.Wait()
}
