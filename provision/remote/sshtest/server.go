package sshtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Script is how a Server behaves. The zero Script is a machine that runs what it
// is told by /bin/sh.
type Script struct {
	// Accept is called with each new connection and its number, from 1. Where it
	// returns false it has dealt with the connection, which is closed.
	Accept func(n int, conn net.Conn) bool
	// Exec runs a command line, in place of /bin/sh.
	Exec func(command string, stdin io.Reader, stdout, stderr io.Writer) Exit
	// Closed, where it is not nil, refuses channels of these kinds.
	Closed map[string]ssh.RejectionReason
}

// Exit is how a command ended.
type Exit struct {
	Status uint32
	Signal string // as SSH has it, such as "KILL"
	// Vanish closes the session without a word of how the command ended.
	Vanish bool
}

// Server is an SSH server in this process, on a port of 127.0.0.1.
type Server struct {
	Port   int
	Host   Key // its host key
	Client Key // who may log in

	t        testing.TB
	script   Script
	listener net.Listener
	wait     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	count int
}

// NewServer starts a server, which ends with the test.
func NewServer(t testing.TB, script Script) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Port: l.Addr().(*net.TCPAddr).Port, Host: NewKey(t), Client: NewKey(t),
		t: t, script: script, listener: l, conns: map[net.Conn]bool{},
	}
	s.wait.Go(s.serve)
	t.Cleanup(func() {
		l.Close()
		s.Drop()
		s.wait.Wait()
	})
	return s
}

// Drop closes all connections; new ones are taken.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
}

// Connections is how many connections there ever were.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *Server) serve() {
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if bytes.Equal(key.Marshal(), s.Client.Signer.PublicKey().Marshal()) {
			return nil, nil
		}
		return nil, errors.New("unknown key")
	}}
	config.AddHostKey(s.Host.Signer)
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[conn] = true
		s.count++
		n := s.count
		s.mu.Unlock()
		s.wait.Go(func() {
			if s.script.Accept == nil || s.script.Accept(n, conn) {
				s.converse(conn, config)
			}
			conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
	}
}

func (s *Server) converse(conn net.Conn, config *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go func() {
		for r := range requests {
			_ = r.Reply(false, nil)
		}
	}()
	for c := range channels {
		if reason, closed := s.script.Closed[c.ChannelType()]; closed {
			_ = c.Reject(reason, "scripted")
			continue
		}
		if c.ChannelType() != "session" {
			_ = c.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go s.session(channel, requests)
	}
}

func (s *Server) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	for r := range requests {
		var command struct{ Line string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &command) != nil {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		go func() {
			defer channel.Close()
			run := s.script.Exec
			if run == nil {
				run = Shell
			}
			exit := run(command.Line, channel, channel, channel.Stderr())
			switch {
			case exit.Vanish:
			case exit.Signal != "":
				_, _ = channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
					Signal            string
					Core              bool
					Message, Language string
				}{Signal: exit.Signal}))
			default:
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{exit.Status}))
			}
		}()
	}
}

// Shell runs a command line by /bin/sh.
func Shell(command string, stdin io.Reader, stdout, stderr io.Writer) Exit {
	c := exec.Command("/bin/sh", "-c", command)
	in, err := c.StdinPipe()
	if err != nil {
		return Exit{Status: 255}
	}
	c.Stdout, c.Stderr = stdout, stderr
	go func() {
		_, _ = io.Copy(in, stdin)
		in.Close()
	}()
	err = c.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return Exit{}
	case !errors.As(err, &exit):
		fmt.Fprintln(stderr, err)
		return Exit{Status: 255}
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
		return Exit{Signal: map[syscall.Signal]string{syscall.SIGKILL: "KILL", syscall.SIGTERM: "TERM"}[status.Signal()]}
	}
	return Exit{Status: uint32(exit.ExitCode())}
}
