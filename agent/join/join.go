// Package join carries a connection to a unix socket over standard input and
// output: how a user of SSH who is not root reaches the agent's socket, by sudo.
package join

import (
	"errors"
	"fmt"
	"io"
	"net"
)

// Socket connects to a unix socket, writes to it what in has and to out what it
// answers, until it closes. The end of in is passed on as the end of what is sent.
func Socket(path string, in io.Reader, out io.Writer) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, in) // a socket that takes no more ends the other direction too
		_ = conn.CloseWrite()
	}()
	if _, err := io.Copy(out, conn); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("join %s: %w", path, err)
	}
	return nil
}
