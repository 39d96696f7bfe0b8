package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/remote/sshtest"
)

// toServer is how to reach a server; the pins are the test's own.
func toServer(t *testing.T, s *sshtest.Server) Config {
	t.Helper()
	return Config{
		Node: "k8s-ctr", Host: "127.0.0.1", Port: s.Port, KeyFile: s.Client.File,
		KnownHosts: filepath.Join(t.TempDir(), "known_hosts"), Patience: 20 * time.Second,
	}
}

func dial(t *testing.T, config Config) *Client {
	t.Helper()
	c, err := Dial(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// reset closes a connection as a machine does that does not listen.
func reset(conn net.Conn) bool {
	_ = conn.(*net.TCPConn).SetLinger(0)
	return false
}

// TestDial goes through what may meet a first connection. Nothing that no retry
// mends is tried twice; all else is tried until it is mended.
func TestDial(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		accept func(n int, conn net.Conn) bool
		edit   func(*Config)
		want   error // nil: connected
		tries  int
		// A busy machine may take longer than an attempt's time.
		atLeast int
		says    string
	}{
		{name: "at once", tries: 1},
		{name: "reset during the handshake", accept: func(n int, conn net.Conn) bool { return n > 2 || reset(conn) }, tries: 3},
		{name: "closed during the handshake", accept: func(n int, _ net.Conn) bool { return n > 2 }, tries: 3},
		{name: "words before the version", accept: func(_ int, conn net.Conn) bool {
			fmt.Fprint(conn, "Welcome to the lab\r\nbe kind\r\n")
			return true
		}, tries: 1},
		{name: "too many connections for now", accept: func(n int, conn net.Conn) bool {
			if n == 1 {
				fmt.Fprint(conn, "Exceeded MaxStartups\r\n")
			}
			return n > 1
		}, tries: 2},
		{name: "silent at first", accept: func(n int, conn net.Conn) bool {
			if n == 1 {
				_, _ = io.Copy(io.Discard, conn)
			}
			return n > 1
		}, edit: func(c *Config) { c.Attempt = 2 * time.Second }, atLeast: 2},
		{name: "junk", accept: func(_ int, conn net.Conn) bool {
			fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			return false
		}, want: ErrNotSSH, tries: 1, says: "HTTP/1.1 400 Bad Request"},
		{name: "endless junk", accept: func(_ int, conn net.Conn) bool {
			_, _ = conn.Write(bytes.Repeat([]byte{'x'}, 10_000))
			return false
		}, want: ErrNotSSH, tries: 1},
		{name: "always silent", accept: func(_ int, conn net.Conn) bool {
			_, _ = io.Copy(io.Discard, conn)
			return false
		}, edit: func(c *Config) { c.Attempt, c.Patience = 200*time.Millisecond, 700*time.Millisecond }, want: ErrTimeout, says: "within 700ms"},
		{name: "another key", edit: func(c *Config) { c.KeyFile = sshtest.NewKey(t).File }, want: ErrAuth, tries: 1, says: "root"},
		{name: "a key file that is not there", edit: func(c *Config) { c.KeyFile += ".not" }, want: errAny, says: "read the key"},
		{name: "no host key algorithm", edit: func(c *Config) { c.Node = "a b" }, want: errAny, says: "known_hosts"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := sshtest.NewServer(t, sshtest.Script{Accept: test.accept})
			config := toServer(t, s)
			if test.edit != nil {
				test.edit(&config)
			}
			c, err := Dial(t.Context(), config)
			if c != nil {
				defer c.Close()
			}
			if test.want == nil && err != nil || test.want != nil && err == nil ||
				test.want != nil && test.want != errAny && !errors.Is(err, test.want) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if err != nil && (!strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), config.Node)) {
				t.Errorf("%v: does not name the node and %q", err, test.says)
			}
			if test.tries != 0 && s.Connections() != test.tries {
				t.Errorf("%d tries, want %d", s.Connections(), test.tries)
			}
			if s.Connections() < test.atLeast {
				t.Errorf("%d tries, want %d or more", s.Connections(), test.atLeast)
			}
		})
	}
}

var errAny = errors.New("any")

func TestDialRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	var told int
	config := Config{
		Node: "router", Host: "127.0.0.1", Port: port, KeyFile: sshtest.NewKey(t).File, KnownHosts: filepath.Join(t.TempDir(), "k"),
		Patience: time.Second, Retry: func(error, time.Duration) { told++ },
	}
	_, err = Dial(t.Context(), config)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") || told < 2 {
		t.Errorf("%v after %d tries, want ErrUnreachable after some", err, told)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = Dial(ctx, config); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want Canceled", err)
	}
}

// TestSilentAgent has an ssh-agent that takes the question and never answers, as one
// does that waits for a finger on a token.
func TestSilentAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("SSH_AUTH_SOCK", socket)
	config := toServer(t, sshtest.NewServer(t, sshtest.Script{}))
	config.KeyFile, config.Attempt, config.Patience = "", 100*time.Millisecond, 500*time.Millisecond
	if _, err := Dial(t.Context(), config); !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "ssh-agent") {
		t.Errorf("%v, want ErrTimeout", err)
	}
}

// TestHostKeyChanged is a machine that was made anew at the same place.
func TestHostKeyChanged(t *testing.T) {
	t.Parallel()
	old, renewed := sshtest.NewServer(t, sshtest.Script{}), sshtest.NewServer(t, sshtest.Script{})
	config := toServer(t, old)
	dial(t, config)
	config.Port, config.KeyFile = renewed.Port, renewed.Client.File
	_, err := Dial(t.Context(), config)
	var changed *HostKeyError
	if !errors.As(err, &changed) || changed.Got != fingerprint(renewed.Host.Signer.PublicKey()) || renewed.Connections() != 1 {
		t.Fatalf("%v after %d tries, want a HostKeyError at once", err, renewed.Connections())
	}
	if err := Forget(t.Context(), config.KnownHosts, config.Node); err != nil {
		t.Fatal(err)
	}
	dial(t, config)
}

// TestFiftyNodes connects to all at once, with one file of pins.
func TestFiftyNodes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "known_hosts")
	var all sync.WaitGroup
	for i := range 50 {
		name := fmt.Sprintf("node%d", i)
		s := sshtest.NewServer(t, sshtest.Script{Exec: func(_ string, _ io.Reader, out, _ io.Writer) sshtest.Exit {
			fmt.Fprint(out, name)
			return sshtest.Exit{}
		}})
		all.Go(func() {
			config := toServer(t, s)
			config.Node, config.KnownHosts = name, file
			c, err := Dial(t.Context(), config)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range 3 {
				var out bytes.Buffer
				if err := c.Run(t.Context(), provision.Command{Argv: []string{"hostname"}, Stdout: &out}); err != nil || out.String() != name {
					t.Errorf("%s: %v: it says %q", name, err, out.String())
				}
			}
			if s.Connections() != 1 {
				t.Errorf("%s: %d connections, want one that is kept", name, s.Connections())
			}
		})
	}
	all.Wait()
	if n := lines(t, file); n != 50 {
		t.Errorf("%d pins", n)
	}
}

// TestExits are the ends that sshd tells of, and the one that it does not.
func TestExits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		exit sshtest.Exit
		want *provision.ExitError
		is   error
	}{
		{sshtest.Exit{Status: 3}, &provision.ExitError{Code: 3}, nil},
		{sshtest.Exit{Status: 255}, &provision.ExitError{Code: 255}, nil},
		{sshtest.Exit{Signal: "SEGV"}, &provision.ExitError{Code: 139, Signal: "SIGSEGV"}, nil},
		{sshtest.Exit{Vanish: true}, nil, ErrLost},
	} {
		s := sshtest.NewServer(t, sshtest.Script{Exec: func(string, io.Reader, io.Writer, io.Writer) sshtest.Exit { return test.exit }})
		err := dial(t, toServer(t, s)).Run(t.Context(), provision.Command{Argv: []string{"x"}})
		var exit *provision.ExitError
		switch {
		case test.want == nil && errors.Is(err, test.is):
		case !errors.As(err, &exit), exit.Code != test.want.Code, exit.Signal != test.want.Signal, exit.Argv[0] != "x":
			t.Errorf("%+v: %v", test.exit, err)
		}
	}
}

// TestBecome is a user who is not root, with and without the right to be.
func TestBecome(t *testing.T) {
	t.Parallel()
	sudo := func(allowed bool) sshtest.Script {
		return sshtest.Script{Exec: func(command string, in io.Reader, out, errs io.Writer) sshtest.Exit {
			asRoot, ok := strings.CutPrefix(command, "exec sudo -n -- env ")
			if !ok {
				fmt.Fprintln(errs, "not through sudo:", command)
				return sshtest.Exit{Status: 9}
			}
			if !allowed {
				fmt.Fprintln(errs, "sudo: a password is required")
				return sshtest.Exit{Status: 1}
			}
			return sshtest.Shell("exec env "+asRoot, in, out, errs)
		}}
	}
	for _, allowed := range []bool{true, false} {
		s := sshtest.NewServer(t, sudo(allowed))
		config := toServer(t, s)
		config.User = "vagrant"
		c := dial(t, config)
		err := c.Run(t.Context(), provision.Command{Argv: []string{"false"}})
		_, putErr := c.Put(t.Context(), provision.File{Path: filepath.Join(t.TempDir(), "f"), Mode: 0o644, Content: []byte("x")})
		var exit *provision.ExitError
		if allowed && (!errors.As(err, &exit) || exit.Code != 1 || putErr != nil) {
			t.Errorf("with the right: %v, %v, want exit status 1 and nil", err, putErr)
		}
		if !allowed {
			for _, err := range []error{err, putErr} {
				if !errors.Is(err, ErrBecome) || !strings.Contains(err.Error(), "a password is required") || !strings.Contains(err.Error(), "vagrant ALL=(ALL) NOPASSWD: ALL") {
					t.Errorf("without the right: %v, want ErrBecome with the cure", err)
				}
			}
		}
	}
}

// TestSessionsAreBounded runs more at once than sshd takes.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now, most := 0, 0
	s := sshtest.NewServer(t, sshtest.Script{Exec: func(string, io.Reader, io.Writer, io.Writer) sshtest.Exit {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		return sshtest.Exit{}
	}})
	c := dial(t, toServer(t, s))
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if err := c.Run(t.Context(), provision.Command{Argv: []string{"x"}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most > sessions {
		t.Errorf("%d at once, want at most %d", most, sessions)
	}
}

func TestForwardingForbidden(t *testing.T) {
	t.Parallel()
	s := sshtest.NewServer(t, sshtest.Script{Closed: map[string]ssh.RejectionReason{"direct-tcpip": ssh.Prohibited}})
	_, err := dial(t, toServer(t, s)).DialContext(t.Context(), "tcp", "127.0.0.1:80")
	if err == nil || !strings.Contains(err.Error(), "AllowTcpForwarding") {
		t.Errorf("%v: does not name the setting", err)
	}
}

// brokenWriter takes nothing.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// TestWriterFails must not wait for a command that nobody reads.
func TestWriterFails(t *testing.T) {
	t.Parallel()
	c := dial(t, toServer(t, sshtest.NewServer(t, sshtest.Script{})))
	err := c.Run(t.Context(), provision.Command{Argv: []string{"yes"}, Stdout: brokenWriter{}})
	if !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v, want the writer's error", err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	s := sshtest.NewServer(t, sshtest.Script{Exec: func(_ string, in io.Reader, _, _ io.Writer) sshtest.Exit {
		close(started)
		_, _ = io.Copy(io.Discard, in)
		return sshtest.Exit{}
	}})
	c := dial(t, toServer(t, s))
	result := make(chan error, 1)
	in, w := io.Pipe()
	defer w.Close()
	go func() { result <- c.Run(t.Context(), provision.Command{Argv: []string{"x"}, Stdin: in}) }()
	<-started
	c.Close()
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("a call that was under way: %v, want ErrClosed", err)
	}
	if err := c.Run(t.Context(), provision.Command{Argv: []string{"x"}}); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after: %v, want ErrClosed", err)
	}
}

// TestUploadInFewPackets counts what goes into the connection: an emulated machine
// takes some 30 ms for each packet, however small.
func TestUploadInFewPackets(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("an agent is a large executable, and compresses to a third\n"), 100_000)
	in, feed := io.Pipe()
	go (&dialog{content: content, feed: feed}).send(true)
	buffer, packets, size := make([]byte, packetSize), 0, 0
	for {
		n, err := in.Read(buffer)
		if err != nil {
			break
		}
		packets++
		size += n
	}
	if most := size/packetSize + 3; packets > most { // how, and two that are not full
		t.Errorf("%d packets for %d bytes, want at most %d", packets, size, most)
	}
}
