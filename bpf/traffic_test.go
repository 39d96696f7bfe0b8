//go:build linux

package bpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// TestTraffic: real connections between namespaces, with the programs attached.
//
//	pod1 172.20.0.10 ─┐                                   ┌ 172.20.1.20 (a remote pod)
//	                  ├ node 192.168.10.100 ── eth1 ── 192.168.10.200 outside
//	pod2 172.20.0.11 ─┘                                   └ 10.10.1.200
//
// TCP carries a megabyte each way, so that packets are segments too large for
// the wire; UDP carries 4,000 bytes, so that they are fragments.
func TestTraffic(t *testing.T) {
	for _, offload := range []string{"on", "off", "of pods"} {
		for _, direct := range []bool{true, false} {
			t.Run(fmt.Sprintf("offload %s, direct=%t", offload, direct), func(t *testing.T) {
				o := testOptions
				o.Features.KernelContext = direct
				w := newWorld(t, o)
				w.setOffload(offload)
				w.tc()
				w.refused()
				w.sockets()
				w.noDrops()
			})
		}
	}
}

func (w *world) tc() {
	local, remote := netip.MustParseAddr("172.20.0.11"), netip.MustParseAddr("172.20.1.20")
	for _, server := range []struct {
		ns   netns.NsHandle
		addr string
	}{{w.pod2, "172.20.0.11:8080"}, {w.pod1, "172.20.0.10:8080"}, {w.outside, "172.20.1.20:8080"},
		{w.outside, "10.10.1.200:8080"}, {w.host, "192.168.10.100:8080"}} {
		w.serve(server.ns, server.addr)
	}
	for id, addr := range []string{"", "172.20.0.11:8080", "172.20.1.20:8080", "172.20.0.10:8080", "192.168.10.100:8080"} {
		if id > 0 {
			w.backend(w.t, []string{fmt.Sprint(id), addr + "/tcp"})
			w.backend(w.t, []string{fmt.Sprint(id + 10), addr + "/udp"})
		}
	}
	for id, proto := range map[int]string{0: "tcp", 10: "udp"} {
		w.service(w.t, strings.Fields(fmt.Sprintf("10.96.0.11:80/%s %d backends=%d", proto, id+1, id+1)))
		w.service(w.t, strings.Fields(fmt.Sprintf("10.96.0.20:80/%s %d backends=%d", proto, id+2, id+2)))
		w.service(w.t, strings.Fields(fmt.Sprintf("10.96.0.10:80/%s %d backends=%d", proto, id+3, id+3)))
		w.service(w.t, strings.Fields(fmt.Sprintf("10.96.0.100:80/%s %d backends=%d", proto, id+4, id+4)))
		w.service(w.t, strings.Fields(fmt.Sprintf("192.168.10.100:30011/%s %d backends=%d nodeport", proto, id+5, id+1)))
		w.service(w.t, strings.Fields(fmt.Sprintf("192.168.10.100:30020/%s %d backends=%d nodeport", proto, id+6, id+2)))
		w.service(w.t, strings.Fields(fmt.Sprintf("192.168.10.100:30100/%s %d backends=%d nodeport", proto, id+7, id+4)))
	}
	node, pod, out := "192.168.10.100", "172.20.0.10", "192.168.10.200"
	for _, c := range []struct {
		from         netns.NsHandle
		to           string
		seen, server string
	}{
		{w.pod1, "172.20.0.11:8080", pod, local.String()},
		{w.pod1, "172.20.1.20:8080", pod, remote.String()},
		{w.pod1, "10.96.0.11:80", pod, local.String()},
		{w.pod1, "10.96.0.20:80", pod, remote.String()},
		{w.pod1, "10.96.0.10:80", "169.254.42.1", pod},
		{w.pod1, "10.96.0.100:80", pod, node},
		{w.pod1, "10.10.1.200:8080", node, "10.10.1.200"},
		{w.pod1, "192.168.10.100:30020", pod, remote.String()},
		{w.outside, "172.20.0.11:8080", out, local.String()},
		{w.outside, "192.168.10.100:30011", out, local.String()},
		{w.outside, "192.168.10.100:30020", node, remote.String()},
		{w.outside, "192.168.10.100:30100", out, node},
		{w.host, "172.20.0.11:8080", "172.20.0.1", local.String()},
		{w.host, "10.10.1.200:8080", node, "10.10.1.200"},
	} {
		for _, network := range []string{"tcp4", "udp4"} {
			if err := w.talk(c.from, network, c.to, c.seen, c.server); err != nil {
				w.t.Errorf("%s to %s: %v%s", network, c.to, err, w.lastDrop(w.t))
			}
		}
	}
	for _, to := range []string{"172.20.0.11", "10.10.1.200", "172.20.1.20", "172.20.0.1"} {
		w.sh(w.pod1, "ping", "-n", "-c", "2", "-i", "0.01", "-W", "2", to)
	}
}

// sockets does the same from a process in a cgroup with the socket hooks.
func (w *world) sockets() {
	w.service(w.t, strings.Fields("10.96.0.66:80/tcp 66"))
	w.service(w.t, strings.Fields("0.0.0.0:31000/tcp 31 backends=1 nodeport"))
	before := w.counted(w.t, 5)
	for _, c := range []struct{ call, want string }{
		{"tcp4 10.96.0.11:80", "server=172.20.0.11 peer=10.96.0.11:80"},
		{"tcp4 10.96.0.20:80", "server=172.20.1.20 peer=10.96.0.20:80"},
		{"tcp4 10.96.0.10:80", "server=172.20.0.10 peer=10.96.0.10:80"},
		{"udp4 10.96.0.20:80", "server=172.20.1.20 peer=10.96.0.20:80"},
		{"unconnected 10.96.0.20:80", "server=172.20.1.20 peer=10.96.0.20:80"},
		{"tcp4 172.20.0.11:8080", "server=172.20.0.11 peer=172.20.0.11:8080"},
		{"tcp4 192.168.10.100:31000", "server=172.20.0.11 peer=192.168.10.100:31000"},
		{"tcp4 10.96.0.66:80", "no route to host"},
	} {
		if got := w.client(c.call); got != c.want {
			w.t.Errorf("%s: %q, want %q", c.call, got, c.want)
		}
	}
	if got := w.counted(w.t, 5); got != before+1 {
		w.t.Errorf("counted %d connects without a backend, want 1", got-before)
	}
	// Nothing of that went through a service in tc.
	var key DatapathFlowKey
	var flow DatapathFlow
	for it := w.Maps[Flows].Iterate(); it.Next(&key, &flow); {
		if flow.Service == 31 {
			w.t.Error("a balanced socket was balanced again, by the packet")
		}
	}
}

// refused: a service without backends answers as a port that nobody listens on.
// That drops 8: of TCP two, of UDP as many datagrams of three fragments each.
func (w *world) refused() {
	for id, frontend := range []string{"10.96.0.67:80/tcp", "10.96.0.67:80/udp",
		"192.168.10.100:30067/tcp nodeport", "192.168.10.100:30067/udp nodeport"} {
		addr, flags, _ := strings.Cut(frontend, " ")
		w.service(w.t, append([]string{addr, fmt.Sprint(67 + id)}, strings.Fields(flags)...))
	}
	for _, c := range []struct {
		from netns.NsHandle
		to   string
	}{{w.pod1, "10.96.0.67:80"}, {w.outside, "192.168.10.100:30067"}} {
		for _, network := range []string{"tcp4", "udp4"} {
			var conn net.Conn
			var err error
			in(w.t, c.from, func() { conn, err = net.DialTimeout(network, c.to, 3*time.Second) })
			if err == nil {
				_, err = exchange(conn, network)
				conn.Close()
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				w.t.Errorf("%s to %s: %v, want a refusal", network, c.to, err)
			}
		}
	}
}

func (w *world) noDrops() {
	drops := w.lastDrop(w.t)
	for _, wanted := range []string{"; so far 1 for reason 5", "; so far 8 for reason 158"} {
		drops = strings.ReplaceAll(drops, wanted, "")
	}
	if drops != "" {
		w.t.Errorf("drops were counted%s", drops)
	}
}

// talk sends much and gets it back, once; the server's line says who it saw.
func (w *world) talk(from netns.NsHandle, network, to, seen, server string) error {
	var conn net.Conn
	var err error
	in(w.t, from, func() { conn, err = net.DialTimeout(network, to, 3*time.Second) })
	if err != nil {
		return err
	}
	defer conn.Close()
	got, err := exchange(conn, network)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%s saw %s", server, seen); got != want {
		return fmt.Errorf("%q, want %q", got, want)
	}
	return nil
}

func sizeFor(network string) int {
	if strings.HasPrefix(network, "tcp") {
		return 1 << 20
	}
	return 4000
}

// exchange sends a load, and reads it back behind a line of 40 bytes.
func exchange(conn net.Conn, network string) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	load := bytes.Repeat([]byte("0123456789abcdef"), sizeFor(network)/16)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(load)
		sent <- err
	}()
	back := make([]byte, 40+len(load))
	var n int
	var err error
	if strings.HasPrefix(network, "tcp") {
		n, err = io.ReadFull(conn, back)
	} else {
		n, err = conn.Read(back)
	}
	if err := errors.Join(err, <-sent); err != nil {
		return "", err
	}
	if !bytes.Equal(back[40:n], load) {
		return "", fmt.Errorf("%d bytes came back, and not those that were sent", n-40)
	}
	return strings.TrimSpace(string(back[:40])), nil
}

// serve answers TCP and UDP on addr in ns until the test ends.
func (w *world) serve(ns netns.NsHandle, addr string) {
	w.t.Helper()
	var listener net.Listener
	var packets net.PacketConn
	var err, err2 error
	in(w.t, ns, func() {
		config := net.ListenConfig{}
		config.SetMultipathTCP(false)
		listener, err = config.Listen(context.Background(), "tcp4", addr)
		packets, err2 = net.ListenPacket("udp4", addr)
	})
	if err := errors.Join(err, err2); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { listener.Close(); packets.Close() })
	host, _, _ := strings.Cut(addr, ":")
	hello := func(client net.Addr) []byte {
		peer, _, _ := net.SplitHostPort(client.String())
		return fmt.Appendf(nil, "%-40s", host+" saw "+peer)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Write(hello(conn.RemoteAddr()))
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	go func() {
		buffer := make([]byte, 65536)
		for {
			n, client, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(append(hello(client), buffer[:n]...), client)
		}
	}()
}

const clientVariable = "LABCTL_BPF_TEST_CLIENT"

func TestMain(m *testing.M) {
	if call := os.Getenv(clientVariable); call != "" {
		fmt.Println(callService(call))
		return
	}
	os.Exit(m.Run())
}

// callService is the client in its cgroup: what it reached, and what it is told
// that it reached.
func callService(call string) string {
	network, to, _ := strings.Cut(call, " ")
	var conn net.Conn
	var peer net.Addr
	var err error
	if network == "unconnected" {
		return callUnconnected(to)
	}
	if conn, err = net.DialTimeout(network, to, 3*time.Second); err != nil {
		var code syscall.Errno
		if errors.As(err, &code) {
			return code.Error()
		}
		return err.Error()
	}
	peer = conn.RemoteAddr() // from getpeername
	line, err := exchange(conn, network)
	if err != nil {
		return err.Error()
	}
	server, _, _ := strings.Cut(line, " ")
	return fmt.Sprintf("server=%s peer=%s", server, peer)
}

func callUnconnected(to string) string {
	conn, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		return err.Error()
	}
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := conn.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
		return err.Error()
	}
	buffer := make([]byte, 100)
	n, peer, err := conn.ReadFrom(buffer)
	if err != nil {
		return err.Error()
	}
	server, _, _ := strings.Cut(string(buffer[:n]), " ")
	return fmt.Sprintf("server=%s peer=%s", server, peer)
}

// client runs a call in a process of its own, in pod1 and in the cgroup.
func (w *world) client(call string) string {
	w.t.Helper()
	var out []byte
	var err error
	in(w.t, w.pod1, func() {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), clientVariable+"="+call)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(w.cgroup.Fd())}
		out, err = cmd.CombinedOutput()
	})
	if err != nil {
		w.t.Errorf("client: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}
