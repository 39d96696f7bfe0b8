//go:build linux

package main

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// session is a command on a terminal of its own.
type session struct {
	t    *testing.T
	cmd  *exec.Cmd
	tty  *os.File
	text chan string
	seen strings.Builder
}

func onTerminal(t *testing.T, cmd *exec.Cmd) *session {
	t.Helper()
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 123})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, cmd: cmd, tty: tty, text: make(chan string)}
	go func() {
		defer close(s.text)
		for buf := make([]byte, 4096); ; {
			n, err := tty.Read(buf)
			if err != nil {
				return // EIO once the last process has closed the terminal
			}
			s.text <- string(buf[:n])
		}
	}()
	t.Cleanup(func() { _ = tty.Close() })
	return s
}

// expect reads on until the pattern is there.
func (s *session) expect(pattern string) {
	s.t.Helper()
	want := regexp.MustCompile(pattern)
	deadline := time.After(10 * time.Second)
	for !want.MatchString(s.seen.String()) {
		select {
		case text, ok := <-s.text:
			if !ok {
				s.t.Fatalf("the terminal was closed before %q: %q", pattern, s.seen.String())
			}
			s.seen.WriteString(text)
		case <-deadline:
			s.t.Fatalf("no %q in %q", pattern, s.seen.String())
		}
	}
	s.seen.Reset()
}

func (s *session) send(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.tty, text); err != nil {
		s.t.Fatal(err)
	}
}

// exit drains the terminal and returns the exit code.
func (s *session) exit() int {
	s.t.Helper()
	go func() {
		for range s.text { // what comes after the last expectation
		}
	}()
	err := s.cmd.Wait()
	if err != nil && s.cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

func TestTerminal(t *testing.T) {
	l := newKillLab(t)
	l.must(l.up()...)

	t.Run("a shell with the node's prompt, names and window", func(t *testing.T) {
		s := onTerminal(t, l.command("ssh", "k8s-w0"))
		s.expect(`root@k8s-w0.*[#$] `)
		s.send("hostname; stty size; getent hosts k8s-ctr\n")
		s.expect(`k8s-w0\r\n40 123\r\n192\.168\.10\.100 +k8s-ctr`)
		s.send("sh -c 'echo begun; exec sleep 100'\n")
		s.expect(`[\r\n]begun\r\n`) // not the echo of the line: the shell has given the terminal away
		s.send("\x03")
		s.expect(`[#$] $`)
		s.send("echo ended with $?\n")
		s.expect(`ended with 130\r\n`)
		s.send("exit 5\n")
		if code := s.exit(); code != 5 {
			t.Errorf("exit code %d, want 5", code)
		}
	})
	t.Run("Ctrl-C ends the command, and labctl with its code", func(t *testing.T) {
		s := onTerminal(t, l.command("exec", "router", "--", "sh", "-c", "echo ready; exec sleep 100"))
		s.expect("ready")
		s.send("\x03")
		if code := s.exit(); code != 130 {
			t.Errorf("exit code %d, want 130", code)
		}
	})
	t.Run("a command may catch Ctrl-C", func(t *testing.T) {
		s := onTerminal(t, l.command("exec", "router", "--", "sh", "-c", `trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.05; done`))
		s.expect("ready")
		s.send("\x03")
		s.expect("caught")
		if code := s.exit(); code != 9 {
			t.Errorf("exit code %d, want 9", code)
		}
	})
	t.Run("without a terminal, an interrupt ends the command too", func(t *testing.T) {
		cmd := l.command("exec", "router", "--", "sleep", "100")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-done:
			if code := cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("exit code %d, want 130", code)
			}
		case <-time.After(5 * time.Second):
			t.Error("labctl still runs")
		}
	})
	l.goes()
}
