package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// signers are the keys to log in with. The connection to ssh-agent, where there
// is one, must stay open until they have signed; close ends it, and so does ctx:
// an agent may wait for a finger on a token.
func (c Config) signers(ctx context.Context) (keys []ssh.Signer, close func(), err error) {
	close = func() {}
	var locked *ssh.PassphraseMissingError
	if c.KeyFile != "" {
		data, err := os.ReadFile(c.KeyFile)
		if err != nil {
			return nil, close, fmt.Errorf("%s: read the key: %w", c.Node, err)
		}
		key, err := ssh.ParsePrivateKey(data)
		switch {
		case err == nil:
			return []ssh.Signer{key}, close, nil
		case !errors.As(err, &locked):
			return nil, close, fmt.Errorf("%s: read the key %s: %w", c.Node, c.KeyFile, err)
		}
	}
	keys, close, err = fromAgent(ctx, agentSocket())
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, close, &passing{fmt.Errorf("ask ssh-agent: %w", ErrTimeout)}
	case err != nil && locked != nil:
		return nil, close, fmt.Errorf("%s: the key %s has a passphrase: %w (ssh-add %s)", c.Node, c.KeyFile, err, quote(c.KeyFile))
	case err != nil:
		return nil, close, fmt.Errorf("%s: no key file is named: %w", c.Node, err)
	}
	return keys, close, nil
}

func fromAgent(ctx context.Context, socket string) (keys []ssh.Signer, close func(), err error) {
	close = func() {}
	if socket == "" {
		return nil, close, errors.New("no ssh-agent (SSH_AUTH_SOCK is not set)")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, close, fmt.Errorf("ask ssh-agent: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	close = func() {
		stop()
		conn.Close()
	}
	keys, err = agent.NewClient(conn).Signers()
	if err == nil && len(keys) == 0 {
		err = errors.New("ssh-agent has no keys")
	}
	if err != nil {
		close()
		return nil, func() {}, fmt.Errorf("ask ssh-agent: %w", err)
	}
	return keys, close, nil
}
