//go:build linux

package netns_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/provision/providertest"
)

// oneNode brings up a lab and opens node a.
func oneNode(t *testing.T) (lab string, n provision.Node) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	lab = providertest.Name()
	t.Cleanup(func() { wantGoneAtEnd(t, p, lab) })
	top := providertest.Load(t, lab, providertest.Lab)
	if err := up(p, top); err != nil {
		t.Fatal(err)
	}
	n, err := p.OpenNode(t.Context(), lab, "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return lab, n
}

func wantGoneAtEnd(t *testing.T, p *netns.Provider, lab string) {
	t.Helper()
	if _, err := p.Destroy(context.Background(), lab); err != nil {
		t.Error(err)
	}
	if left := residue(t, lab); len(left) > 0 {
		t.Errorf("left on the machine:\n%s", strings.Join(left, "\n"))
	}
}

func sh(t *testing.T, n provision.Node, script string) string {
	t.Helper()
	var out bytes.Buffer
	if err := n.Run(t.Context(), provision.Command{Argv: []string{"sh", "-c", script}, Stdout: &out, Stderr: &out}); err != nil {
		t.Errorf("%s: %v", script, err)
	}
	return out.String()
}

// TestSurroundings looks at what a process on a node finds there.
func TestSurroundings(t *testing.T) {
	lab, n := oneNode(t)
	for _, test := range []struct{ script, want string }{
		{"ls /sys/class/net", "eth0\neth1\nlo\n"},
		{"hostname; cat /etc/hostname; uname -n", "a\na\na\n"},
		{"cat /etc/resolv.conf", "# Made by labctl for lab " + lab + ".\nnameserver 10.0.2.3\noptions timeout:1 attempts:1\n"},
		{"cat /etc/hosts", "# Made by labctl for lab " + lab + ".\n127.0.0.1 localhost\n192.168.10.200 router\n" +
			"192.168.10.201 second\n192.168.10.100 a\n192.168.20.100 b\n"},
		{"ip route add 10.66.0.0/16 via 192.168.10.200 proto 108; ip route show 10.66.0.0/16; ip route del 10.66.0.0/16",
			"10.66.0.0/16 via 192.168.10.200 dev eth1 proto labctl \n"},
		{"ip route show proto static 10.10.0.0/16", "10.10.0.0/16 via 192.168.10.200 dev eth1 \n"},
		{"echo $LABCTL_LAB $LABCTL_NODE", lab + " a\n"},
		{"grep ^0:: /proc/self/cgroup", "0::/labctl." + lab + "/a\n"},
		{"cat /proc/sys/net/ipv6/conf/eth1/disable_ipv6; cat /proc/sys/net/ipv4/conf/eth1/rp_filter", "1\n0\n"},
		{"ip -6 addr", ""},
		{"ip link show eth1 | grep -o 'alias.*'", "alias labctl lab=" + lab + " node=a interface=eth1\n"},
		{"cat /proc/self/mountinfo | grep -c ' /sys - \\| /sys rw.*sysfs'", "2\n"},
	} {
		if got := sh(t, n, test.script); got != test.want {
			t.Errorf("%s\n got %q\nwant %q", test.script, got, test.want)
		}
	}
	// What was mounted below /sys is there still, such as cgroups.
	const below = "awk '$5 ~ \"^/sys/\" {print $5, $(NF-2)}' /proc/self/mountinfo"
	outside, err := exec.Command("sh", "-c", below).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := sh(t, n, below); got != string(outside) || got == "" {
		t.Errorf("below /sys:\n%s\nwant:\n%s", got, outside)
	}
	// Plain ip netns exec sees the same names, and has nothing to complain about.
	out, err := exec.Command("ip", "netns", "exec", "labctl."+lab+".a", "sh", "-c", "cat /etc/hosts; ping -c 1 -W 1 router").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "# Made by labctl") || strings.Contains(string(out), "failed") {
		t.Errorf("ip netns exec: %v\n%s", err, out)
	}
}

// expect returns what waits until a text comes out of the terminal. All that
// comes is read at once, so that the other side can always write.
func expect(t *testing.T, terminal io.Reader) (wait func(text string)) {
	output := make(chan string, 1000)
	go func() {
		defer close(output)
		buffer := make([]byte, 4096)
		for {
			k, err := terminal.Read(buffer)
			if err != nil {
				return
			}
			output <- string(buffer[:k])
		}
	}()
	seen := "" // and not yet waited for
	return func(text string) {
		t.Helper()
		limit := time.After(10 * time.Second)
		for !strings.Contains(seen, text) {
			select {
			case more, ok := <-output:
				if seen += more; !ok {
					t.Fatalf("waiting for %q: the end; seen %q", text, seen)
				}
			case <-limit:
				t.Fatalf("waiting for %q; seen %q", text, seen)
			}
		}
		_, seen, _ = strings.Cut(seen, text)
	}
}

// TestTerminal drives the node's shell on a terminal.
func TestTerminal(t *testing.T) {
	lab, n := oneNode(t)
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := pty.Setsize(master, &pty.Winsize{Rows: 33, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	shell := n.Shell()
	shell.Stdin, shell.Stdout, shell.Stderr = slave, slave, slave
	// The test has no terminal of its own to hand over: setsid gives the shell this one.
	shell.Argv = append([]string{"setsid", "-c", "-w"}, shell.Argv...)
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		done <- n.Run(ctx, shell)
		slave.Close()
	}()
	wait := expect(t, master)
	prompt := "root@a [" + lab + "]"
	wait(prompt)
	for _, step := range []struct{ send, want string }{
		{"stty size\n", "33 77"},
		{"", prompt},
		{"sed -u s/i/o/\nhi\n", "ho"},
		{"\x03", "^C"}, // Ctrl-C ends the command, not the shell
		{"", prompt},
		{"sed -u s/i/a/\nhi\n", "ha"},
		{"\x1a", "Stopped"}, // Ctrl-Z
		{"", prompt},
		{"kill -KILL %1; sleep 0.2\n", "Killed"},
		{"", prompt},
		{"grep ^0:: /proc/self/cgroup\n", "0::/labctl." + lab + "/a"},
		{"", prompt},
		{"exit 7\n", "exit"},
	} {
		if _, err := io.WriteString(master, step.send); err != nil {
			t.Fatal(err)
		}
		wait(step.want)
	}
	err = <-done
	if exit, ok := err.(*provision.ExitError); !ok || exit.Code != 7 {
		t.Errorf("the shell: %v, want exit status 7", err)
	}
}

func TestDial(t *testing.T) {
	_, n := oneNode(t)
	socket := n.RunDir() + "/test.sock"
	local, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	conn, err := n.Dial(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	_, err = n.Dial(t.Context(), "tcp", "192.168.10.200:80")
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("the router refuses: %v", err)
	}
	for _, address := range []string{"router:80", "192.168.10.200", ""} {
		if _, err := n.Dial(t.Context(), "tcp", address); err == nil {
			t.Errorf("dial %q worked", address)
		}
	}
	if _, err := n.Dial(t.Context(), "udp", "192.168.10.200:80"); err == nil {
		t.Error("udp worked")
	}
	// A listener on the node itself.
	go func() {
		_ = n.Run(t.Context(), provision.Command{Argv: []string{"python3", "-c",
			"import socket;s=socket.create_server(('192.168.10.100',8080));c=s.accept()[0];c.sendall(b'hello');c.close()"}})
	}()
	for range 500 {
		if conn, err = n.Dial(t.Context(), "tcp", "192.168.10.100:8080"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if text, err := io.ReadAll(conn); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.Dial(ctx, "tcp", "192.0.2.1:80"); err == nil {
		t.Error("an address behind eth0 answered")
	}
}

// TestPutStaysInside: a namespace shares the machine's file system.
func TestPutStaysInside(t *testing.T) {
	_, n := oneNode(t)
	for _, path := range []string{"/tmp/x", "../x", "", ".", "a/../../x", n.Dir() + "/../x"} {
		if _, err := n.Put(t.Context(), provision.File{Path: path, Mode: 0o644}); err == nil {
			t.Errorf("put %q worked", path)
		}
	}
}

// TestWithoutRoot runs as nobody, and as a root that lacks what counts.
func TestWithoutRoot(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root, to be nobody")
	}
	dir, err := os.MkdirTemp("", "labctl-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := filepath.Join(dir, "child")
	if out, err := exec.Command("sh", "-ec", "cp "+os.Args[0]+" "+binary+"; chmod 755 "+dir+" "+binary).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, test := range []struct{ name, drop, cure string }{
		{"nobody", "--reuid=65534 --regid=65534 --clear-groups", "(sudo labctl up)"},
		{"root without CAP_SYS_ADMIN", "--bounding-set=-sys_admin --inh-caps=-sys_admin",
			"(give this container or session CAP_SYS_ADMIN and CAP_NET_ADMIN, such as docker run --privileged)"},
	} {
		lab := providertest.Name()
		c := exec.Command("setpriv", append(strings.Fields(test.drop), binary, lab)...)
		c.Env = append(os.Environ(), asChild+"=preflight")
		out, err := c.CombinedOutput()
		if err == nil {
			t.Errorf("%s: EnsureNode worked", test.name)
		}
		for _, want := range []string{"missing privileges", test.cure + " permission denied", "EnsureNode: true"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q in\n%s", test.name, want, out)
			}
		}
		wantGoneAtEnd(t, netns.New(netns.Options{}), lab)
	}
}

func TestPreflight(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	top := providertest.Load(t, providertest.Name(), providertest.Lab)
	before := machine(t)
	var lines []string
	for _, f := range netns.New(netns.Options{}).Preflight(t.Context(), top) {
		lines = append(lines, strings.TrimSpace(string(f.Severity)+" "+f.Subject+" "+f.Cure))
		if f.Severity == provision.Missing {
			t.Errorf("%+v", f)
		}
	}
	if after := machine(t); after != before {
		t.Error("Preflight changed the machine")
	}
	got := strings.Join(lines, "\n")
	// This machine may have the dummy driver or not.
	got = strings.Replace(got, "warning dummy links sudo modprobe dummy", "ok dummy links", 1)
	want := "ok privileges\nok namespaces\nok veth links\nok bridge links\nok dummy links\nok BPF\nok BPF file system\nok BPF on links\nok BTF\nok cgroup2\nok run directory\nok data directory"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	findings := netns.New(netns.Options{RunDir: "/etc/hostname/x"}).Preflight(t.Context(), top)
	if f := findings[len(findings)-2]; f.Severity != provision.Missing || f.Cure == "" {
		t.Errorf("a run directory that cannot be made: %+v", f)
	}
}

// BenchmarkExec compares a process on a node with a plain one.
func BenchmarkExec(b *testing.B) {
	p := netns.New(netns.Options{})
	lab := providertest.Name()
	b.Cleanup(func() { _, _ = p.Destroy(context.Background(), lab) })
	top := providertest.Load(b, lab, providertest.Lab)
	if err := up(p, top); err != nil {
		b.Fatal(err)
	}
	n, err := p.OpenNode(b.Context(), lab, "a")
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	b.Run("node", func(b *testing.B) {
		for b.Loop() {
			if err := n.Run(b.Context(), provision.Command{Argv: []string{"true"}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
