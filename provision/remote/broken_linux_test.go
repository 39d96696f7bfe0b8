package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/join"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/remote/sshtest"
)

// through is a client of a daemon by a proxy that breaks connections.
func through(t *testing.T, d *sshtest.Daemon, edit func(*Config)) (*Client, *sshtest.Proxy) {
	t.Helper()
	p := sshtest.NewProxy(t, d.Address())
	config := to(t, d)
	config.Port = p.Port
	if edit != nil {
		edit(&config)
	}
	return dial(t, config), p
}

// noise does not compress.
func noise(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.New(rand.NewSource(1)).Read(b)
	return b
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// TestUploadBroken cuts the connection in the middle of an upload.
func TestUploadBroken(t *testing.T) {
	t.Parallel()
	c, proxy := through(t, sshtest.NewDaemon(t), nil)
	path := filepath.Join(t.TempDir(), "agent")
	file := provision.File{Path: path, Mode: 0o755, Content: []byte("old")}
	if _, err := c.Put(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	file.Content = noise(4_000_000)
	proxy.CutAfter(2_000_000)
	if _, err := c.Put(t.Context(), file); !errors.Is(err, ErrLost) {
		t.Fatalf("%v, want ErrLost", err)
	}
	if have, err := os.ReadFile(path); err != nil || string(have) != "old" {
		t.Errorf("the old file is now %.20q, %v", have, err)
	}
	// What a killed writer leaves goes with the next.
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), ".agent.labctl.abcdefgh"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := c.Put(t.Context(), file); err != nil || !changed {
		t.Fatalf("again: changed %t, %v", changed, err)
	}
	if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, file.Content) {
		t.Errorf("%d bytes arrived, %v", len(have), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestPutRefused says why, and leaves nothing.
func TestPutRefused(t *testing.T) {
	t.Parallel()
	c := dial(t, to(t, sshtest.NewDaemon(t)))
	dir := t.TempDir()
	for path, says := range map[string]string{
		dir: "it is a directory", "relative": "want an absolute path", "/proc/new": "/proc",
	} {
		_, err := c.Put(t.Context(), provision.File{Path: path, Mode: 0o644, Content: []byte("x")})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", path, err, says)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/etc/hostname", link); err != nil {
		t.Fatal(err)
	}
	if changed, err := c.Put(t.Context(), provision.File{Path: link, Mode: 0o644, Content: []byte("x")}); err != nil || !changed {
		t.Errorf("over a link: %t, %v", changed, err)
	}
	if info, err := os.Lstat(link); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the link is now %v, %v", info, err)
	}
}

// TestLostCommandIsEnded loses the connection while a command runs: the call
// fails, the next one goes over a new connection, and the command is no more.
func TestLostCommandIsEnded(t *testing.T) {
	t.Parallel()
	c, proxy := through(t, sshtest.NewDaemon(t), nil)
	out := &firstWrite{done: make(chan struct{})}
	result := make(chan error, 1)
	go func() {
		result <- c.Run(context.Background(), provision.Command{
			Argv: []string{"sh", "-c", "trap '' HUP TERM PIPE; echo up; sleep 2001; sleep 2001"}, Stdout: out,
		})
	}()
	<-out.done
	proxy.Cut()
	if err := <-result; !errors.Is(err, ErrLost) {
		t.Errorf("%v, want ErrLost", err)
	}
	if ps := output(t, c, "ps", "-e", "-o", "args"); strings.Contains(ps, "sleep 2001") {
		t.Errorf("still running: %s", ps)
	}
}

// firstWrite tells of the first output.
type firstWrite struct {
	done chan struct{}
	seen bool
}

func (w *firstWrite) Write(p []byte) (int, error) {
	if !w.seen {
		w.seen = true
		close(w.done)
	}
	return len(p), nil
}

// TestSilentPeer is a machine that is gone without a word: what is asked of it
// fails, and when it is back the next call works.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	c, proxy := through(t, sshtest.NewDaemon(t), func(config *Config) {
		config.KeepAlive, config.Silence = 50*time.Millisecond, 3*time.Second
	})
	if err := c.Run(t.Context(), provision.Command{Argv: []string{"sleep", "4"}}); err != nil {
		t.Fatalf("a peer that answers, and a command that says nothing: %v", err)
	}
	proxy.Freeze()
	c.config.Patience = time.Second
	err := c.Run(t.Context(), provision.Command{Argv: []string{"true"}})
	// No command was begun, so it was tried anew until patience ended.
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrTimeout) {
		t.Errorf("%v, want ErrUnreachable and ErrTimeout", err)
	}
	proxy.Thaw()
	c.config.Patience = 20 * time.Second
	output(t, c, "true")
}

// TestSilentInCommand has the machine go while a command runs.
func TestSilentInCommand(t *testing.T) {
	t.Parallel()
	c, proxy := through(t, sshtest.NewDaemon(t), func(config *Config) {
		config.KeepAlive, config.Silence = 50*time.Millisecond, 3*time.Second
	})
	out := &firstWrite{done: make(chan struct{})}
	go func() {
		<-out.done
		proxy.Freeze()
	}()
	err := c.Run(t.Context(), provision.Command{Argv: []string{"sh", "-c", "echo up; sleep 2002"}, Stdout: out})
	if !errors.Is(err, ErrLost) || !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "nothing was heard for") {
		t.Errorf("%v, want ErrLost and ErrTimeout", err)
	}
	proxy.Thaw()
	if ps := output(t, c, "ps", "-e", "-o", "args"); strings.Contains(ps, "sleep 2002") {
		t.Errorf("still running: %s", ps)
	}
}

// TestServerRestarts has sshd go and come again, as with a reboot.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	d := sshtest.NewDaemon(t)
	c := dial(t, to(t, d))
	output(t, c, "true")
	d.Stop()
	go func() {
		time.Sleep(200 * time.Millisecond)
		d.Start()
	}()
	output(t, c, "true") // waits until it is back
	d.ChangeHostKey()
	if err := c.Run(t.Context(), provision.Command{Argv: []string{"true"}}); !errors.Is(err, ErrHostKey) {
		t.Errorf("%v, want ErrHostKey", err)
	}
}

// TestMain lets this very executable, under another name, be the bridge.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != bridgeName {
		os.Exit(m.Run())
	}
	if err := join.Socket(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const bridgeName = "test-bridge"

func bridge(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), bridgeName)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// echo answers every connection with what it says.
func echo(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	return l
}

func TestDialContext(t *testing.T) {
	t.Parallel()
	d := sshtest.NewDaemon(t)
	c := dial(t, to(t, d))
	bridged := to(t, d)
	// A user who is not root, as the client sees it: sockets go through the bridge.
	bridged.Become = []string{"env", "--"}
	bridged.Bridge = []string{bridge(t)}
	b := dial(t, bridged)
	socket := filepath.Join(t.TempDir(), "s")
	echo(t, "unix", socket)
	tcp := echo(t, "tcp", "127.0.0.1:0").Addr().String()
	for _, test := range []struct {
		name, network, address string
		client                 *Client
	}{
		{"unix", "unix", socket, c}, {"tcp", "tcp", tcp, c}, {"bridge", "unix", socket, b},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, err := test.client.DialContext(t.Context(), test.network, test.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			sent := noise(1_000_000)
			go func() { _, _ = conn.Write(sent) }()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%v: other bytes came back", err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v, want the deadline's error", err)
			}
		})
	}
	// Closed connections leave no bridge.
	eventually(t, "no bridge is left", func() bool {
		return !strings.Contains(output(t, b, "ps", "-e", "-o", "args"), bridged.Bridge[0])
	})
	if _, err := c.DialContext(t.Context(), "unix", socket+".not"); err == nil {
		t.Error("a socket that is not there was dialled")
	}
	conn, err := b.DialContext(t.Context(), "unix", socket+".not")
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a bridge to nowhere: %v", err)
	}
}

// TestDialContextLost: what is read over a connection that breaks is not taken for
// the whole.
func TestDialContextLost(t *testing.T) {
	t.Parallel()
	c, proxy := through(t, sshtest.NewDaemon(t), nil)
	socket := filepath.Join(t.TempDir(), "s")
	echo(t, "unix", socket)
	for range 20 {
		conn, err := c.DialContext(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		proxy.Cut()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, ErrLost) {
			t.Fatalf("%v, want ErrLost", err)
		}
		conn.Close()
	}
}
