package machine

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/native-routing/labctl/provision/remote/sshtest"
)

// box is a set of namespaces that plays a machine: with interfaces, a hostname, an
// /etc and processes of its own, and OpenSSH's sshd. It has no systemd.
type box struct {
	t      testing.TB
	pid    int
	client sshtest.Key
	port   int
}

// furniture is what a box is made of before anything else runs in it.
const furniture = `set -e
cp -a /etc "$1/etc" || test -e "$1/etc/passwd" # what other tests have in /etc/netns comes and goes
mount --bind "$1/etc" /etc
for d in /run /root /var/lib; do mount -t tmpfs -o mode=755 tmpfs "$d"; done
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run/sshd /root/.ssh
cp "$1/authorized" /root/.ssh/authorized_keys
chmod 600 /root/.ssh/authorized_keys
cp "$1/host" /etc/ssh/ssh_host_ed25519_key
ssh-keygen -y -f "$1/host" >/etc/ssh/ssh_host_ed25519_key.pub
hostname machine
echo machine >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$2" >/etc/hosts
ip link set lo up
ip link add eth0 type veth peer name far
ip link set eth0 up
ip link set far up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2 proto dhcp src 10.0.2.15 metric 100
echo ready >"$1/ready"
exec sleep 100000
`

func newBox(t testing.TB, name string) *box {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("a machine of namespaces is made by root (run the test by sudo)")
	}
	dir := t.TempDir()
	b := &box{t: t, client: sshtest.NewKey(t)}
	for file, from := range map[string]string{"authorized": "", "host": sshtest.NewKey(t).File} {
		text := b.client.Authorized()
		if from != "" {
			text, _ = os.ReadFile(from)
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
		"sh", "-c", furniture, "sh", dir, name)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
		if time.Since(start) > 30*time.Second {
			t.Fatalf("the box is not ready: %s", said.String())
		}
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if b.pid, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
		t.Fatal(err)
	}
	b.listen(dir)
	return b
}

// listen has sshd serve each connection to a port of this machine, in the box.
func (b *box) listen(dir string) {
	b.t.Helper()
	config := filepath.Join(dir, "sshd_config")
	text := "HostKey /etc/ssh/ssh_host_ed25519_key\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { l.Close() })
	b.port = l.Addr().(*net.TCPAddr).Port
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			file, err := conn.(*net.TCPConn).File()
			conn.Close()
			if err != nil {
				continue
			}
			cmd := exec.Command("nsenter", b.inside("/usr/sbin/sshd", "-i", "-f", config)...)
			cmd.Stdin, cmd.Stdout = file, file
			if cmd.Start() == nil {
				go func() { _ = cmd.Wait() }()
			}
			file.Close()
		}
	}()
}

func (b *box) inside(argv ...string) []string {
	return append([]string{"-t", strconv.Itoa(b.pid), "-n", "-u", "-m", "-p", "--"}, argv...)
}

// try runs a command in the box.
func (b *box) try(argv ...string) (string, error) {
	out, err := exec.Command("nsenter", b.inside(argv...)...).CombinedOutput()
	return string(out), err
}

func (b *box) run(argv ...string) string {
	b.t.Helper()
	out, err := b.try(argv...)
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// wire joins a device of one box to one of another.
func wire(a *box, device string, b *box, other string) {
	a.t.Helper()
	a.run("ip", "link", "add", "tmp0", "type", "veth", "peer", "name", "tmp1")
	for _, end := range []struct {
		from, to string
		box      *box
	}{{"tmp0", device, a}, {"tmp1", other, b}} {
		if out, err := exec.Command("nsenter", "-t", strconv.Itoa(a.pid), "-n", "--",
			"ip", "link", "set", "dev", end.from, "netns", strconv.Itoa(end.box.pid), "name", end.to).CombinedOutput(); err != nil {
			a.t.Fatalf("%v: %s", err, out)
		}
	}
}

func (b *box) access() Access {
	return Access{Host: "127.0.0.1", Port: b.port, User: "root", KeyFile: b.client.File}
}

// snapshot is all of the box that labctl may touch.
func (b *box) snapshot() string {
	b.t.Helper()
	return b.run("sh", "-c", `hostname
ip -br link | sort
ip -br -4 addr | sort
ip route
nft list ruleset
grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv6/conf/*/disable_ipv6
find /etc /root /var/lib /run /sys/fs/bpf -xdev \( -type f -exec stat -c '%n %a %U %s' {} + -exec sha256sum {} + \) -o -print | sort`)
}
