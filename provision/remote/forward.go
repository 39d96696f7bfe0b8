package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/native-routing/labctl/provision"
)

// DialContext connects from the node: network is "unix" or "tcp". A TCP address
// may have a name, which the node resolves.
//
// sshd opens unix sockets as the user who logged in. Where commands need Become to
// be root's, sockets of root are reached through [Config.Bridge]: it runs as root
// and joins its standard input and output to the socket. Without a Bridge sshd is
// asked. A bridge is one of the 8 commands that a client runs at once, for as
// long as the connection is open.
//
// The connection outlives ctx. A connection to the node that breaks is told by
// Read and Write as [ErrLost].
func (c *Client) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch {
	case network == "unix" && len(c.config.Become) > 0 && len(c.config.Bridge) > 0:
		return c.DialCommand(ctx, append(append([]string{}, c.config.Bridge...), address), address)
	case network == "unix":
		return c.direct(ctx, "direct-streamlocal@openssh.com", ssh.Marshal(struct {
			Path     string
			Reserved string
			Unused   uint32
		}{address, "", 0}), unixAddr(address))
	case network == "tcp", network == "tcp4", network == "tcp6":
		host, service, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("%s: dial %s: %w", c.config.Node, address, err)
		}
		port, err := strconv.ParseUint(service, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%s: dial %s: want a number as port: %w", c.config.Node, address, err)
		}
		return c.direct(ctx, "direct-tcpip", ssh.Marshal(struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{host, uint32(port), "127.0.0.1", 0}), tcpAddr(address))
	default:
		return nil, fmt.Errorf("%s: dial %s: %w", c.config.Node, address, net.UnknownNetworkError(network))
	}
}

func (c *Client) direct(ctx context.Context, kind string, payload []byte, to net.Addr) (net.Conn, error) {
	l, channel, requests, err := c.channel(ctx, kind, payload)
	var refused *ssh.OpenChannelError
	switch {
	case errors.As(err, &refused) && refused.Reason == ssh.Prohibited:
		return nil, fmt.Errorf("%s: dial %s: %w (AllowTcpForwarding and AllowStreamLocalForwarding in its sshd_config)", c.config.Node, to, refused)
	case errors.As(err, &refused):
		return nil, fmt.Errorf("%s: dial %s: %w", c.config.Node, to, refused)
	case err != nil:
		return nil, err
	}
	go ssh.DiscardRequests(requests)
	near, far := net.Pipe()
	conn := &conn{Conn: near, to: to}
	go func() {
		go func() {
			_, _ = io.Copy(channel, far)
			channel.Close()
		}()
		_, err := io.Copy(far, channel)
		if err == nil {
			err = l.lost() // a connection that broke ends its channels like a peer that is done
		}
		conn.end(err)
		far.Close()
		channel.Close()
	}()
	return conn, nil
}

// bridgeGrace is how long a command may outlive the connection that it carries.
const bridgeGrace = time.Second

// whileOpen drops what comes after the connection was closed on this side: no
// failure of the command.
type whileOpen struct{ io.Writer }

func (w whileOpen) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if errors.Is(err, io.ErrClosedPipe) {
		return len(p), nil
	}
	return n, err
}

// DialCommand returns a connection to the standard input and output of a command
// that is run on the node as root. It is what closes the command, and the command's
// failure is the error of Read. The name is what stands for the remote address.
func (c *Client) DialCommand(ctx context.Context, argv []string, name string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	running, cancel := context.WithCancel(context.Background())
	// The end of its input ends a well-behaved command; others get no more time.
	conn := &conn{Conn: near, to: unixAddr(name), closed: func() { time.AfterFunc(bridgeGrace, cancel) }}
	go func() {
		defer cancel()
		var said tail
		err := c.Run(running, provision.Command{Argv: argv, Stdin: far, Stdout: whileOpen{far}, Stderr: &said})
		if err != nil && said.String() != "" {
			err = fmt.Errorf("%s (%w)", said.String(), err)
		}
		conn.end(err)
		far.Close()
	}()
	return conn, nil
}

// conn is a connection through the node. The pipe gives it deadlines, which SSH's
// channels have not.
type conn struct {
	net.Conn
	to     net.Addr
	closed func() // may be nil

	mu    sync.Mutex
	cause error
}

func (c *conn) LocalAddr() net.Addr  { return unixAddr("labctl") }
func (c *conn) RemoteAddr() net.Addr { return c.to }

func (c *conn) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cause = cause
}

// why says what ended the connection, in place of a mere end.
func (c *conn) why(err error) error {
	if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return c.cause
	}
	return err
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.why(err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.why(err)
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	if c.closed != nil {
		c.closed()
	}
	return err
}

// unixAddr and tcpAddr are addresses as the node knows them.
type (
	unixAddr string
	tcpAddr  string
)

func (a unixAddr) Network() string { return "unix" }
func (a unixAddr) String() string  { return string(a) }
func (a tcpAddr) Network() string  { return "tcp" }
func (a tcpAddr) String() string   { return string(a) }
