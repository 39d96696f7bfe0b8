package remote

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Config is how to reach a node. Node, Host and KnownHosts are needed.
type Config struct {
	// Node is the node's name in its lab. Its host key is pinned under this name,
	// because addresses and ports of machines change.
	Node string
	Host string
	Port int    // 22 where it is 0
	User string // root where it is empty
	// KeyFile is a private key in any format that OpenSSH writes. Where it is
	// empty, or has a passphrase, the agent at SSH_AUTH_SOCK is asked.
	KeyFile string
	// KnownHosts is the lab's file of pinned host keys, in the format of sshd(8).
	// It is made where it is not there. The same file serves
	// ssh -o UserKnownHostsFile=FILE -o HostKeyAlias=NODE.
	KnownHosts string
	// Become stands before every command, and makes it root's: "sudo -n --" where
	// it is nil and User is not root. Empty but not nil, commands run as User.
	Become []string
	// Bridge is a command on the node that joins its standard input and output to
	// the unix socket whose path is its last argument: "agent join". It reaches
	// sockets that User may not open, see [Client.DialContext].
	Bridge []string
	// Patience is how long the node is tried where trying again can help; 1 minute
	// where it is 0. The context of the call may end it sooner.
	Patience time.Duration
	// Attempt is the longest that one try may take, from the first packet to the
	// login; 30 seconds where it is 0. The first tries get less.
	Attempt time.Duration
	// KeepAlive is how often a silent node is asked whether it is there, and
	// Silence after how much of it the connection is given up: 10 and 30 seconds
	// where they are 0.
	KeepAlive, Silence time.Duration
	// Retry, where it is not nil, is told why a try failed and when the next one is.
	Retry func(err error, next time.Duration)
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Node == "" || strings.ContainsAny(c.Node, " \t\r\n,*?!|#@[]\""):
		return c, fmt.Errorf("node %q: not a name that a known_hosts file can hold", c.Node)
	case c.Host == "":
		return c, fmt.Errorf("%s: no host to connect to", c.Node)
	case c.KnownHosts == "":
		return c, fmt.Errorf("%s: no file to pin host keys in", c.Node)
	}
	if c.Port == 0 {
		c.Port = 22
	}
	if c.User == "" {
		c.User = "root"
	}
	if c.Become == nil && c.User != "root" {
		c.Become = []string{"sudo", "-n", "--"}
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.Patience, time.Minute}, {&c.Attempt, 30 * time.Second},
		{&c.KeepAlive, 10 * time.Second}, {&c.Silence, 30 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	return c, nil
}

func (c Config) address() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// at names the node and where it is, for errors.
func (c Config) at() string { return fmt.Sprintf("%s (%s@%s)", c.Node, c.User, c.address()) }

// agentSocket is where ssh-agent listens, if it does.
func agentSocket() string { return os.Getenv("SSH_AUTH_SOCK") }
