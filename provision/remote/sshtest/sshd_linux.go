package sshtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Daemon is OpenSSH's sshd on a port of 127.0.0.1, for root with one key. It has
// mounts and processes of its own: all that it started ends with it.
type Daemon struct {
	t      testing.TB
	dir    string
	cmd    *exec.Cmd
	log    lockedBuffer
	Port   int
	Host   Key // its host key
	Client Key // who may log in
}

// lockedBuffer is what a process writes while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// NewDaemon starts sshd with further lines of sshd_config(5). The test needs root.
func NewDaemon(t testing.TB, config ...string) *Daemon {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("sshd is started as root (run the test by sudo)")
	}
	d := &Daemon{t: t, dir: t.TempDir(), Port: freePort(t), Host: NewKey(t), Client: NewKey(t)}
	d.write("authorized_keys", d.Client.Authorized())
	lines := append([]string{
		fmt.Sprintf("ListenAddress 127.0.0.1:%d", d.Port),
		"HostKey " + d.Host.File,
		"AuthorizedKeysFile " + filepath.Join(d.dir, "authorized_keys"),
		"PidFile none", "StrictModes no", "UsePAM no", "PermitRootLogin prohibit-password",
		"MaxStartups 200", "LogLevel VERBOSE",
	}, config...)
	d.write("sshd_config", []byte(strings.Join(lines, "\n")+"\n"))
	d.Start()
	t.Cleanup(func() {
		d.Stop()
		if t.Failed() {
			t.Logf("sshd: %s", d.log.String())
		}
	})
	return d
}

func (d *Daemon) write(name string, content []byte) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), content, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// Start starts it, where it was stopped, on the same port with the same host key.
func (d *Daemon) Start() {
	d.t.Helper()
	// sshd wants /run/sshd, which systemd makes elsewhere; what root's shell reads
	// when it starts is this machine's affair.
	script := `mount -t tmpfs tmpfs /run && mkdir /run/sshd && mount -t tmpfs tmpfs /root && exec /usr/sbin/sshd -D -e -f "$1"`
	d.cmd = exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
		"sh", "-c", script, "sh", filepath.Join(d.dir, "sshd_config"))
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatalf("start sshd: %v", err)
	}
	d.wait(func() bool {
		conn, err := net.Dial("tcp", d.Address())
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}, "sshd does not listen")
}

// Stop kills it with all of its sessions and their commands.
func (d *Daemon) Stop() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
	d.cmd = nil
}

// Address is where it listens.
func (d *Daemon) Address() string { return fmt.Sprintf("127.0.0.1:%d", d.Port) }

// ChangeHostKey gives it another host key, as a machine has that was made anew.
func (d *Daemon) ChangeHostKey() {
	d.t.Helper()
	d.Stop()
	key, err := os.ReadFile(NewKey(d.t).File)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.Host.File, key, 0o600); err != nil {
		d.t.Fatal(err)
	}
	d.Start()
}

// AddHostKey has it offer one more host key, of a type of ssh-keygen -t.
func (d *Daemon) AddHostKey(kind string) {
	d.t.Helper()
	d.Stop()
	file := filepath.Join(d.dir, "host_"+kind)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", file).CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
	config, err := os.ReadFile(filepath.Join(d.dir, "sshd_config"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("sshd_config", append(config, "HostKey "+file+"\n"...))
	d.Start()
}

func (d *Daemon) wait(condition func() bool, what string) {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("%s: %s", what, d.log.String())
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
