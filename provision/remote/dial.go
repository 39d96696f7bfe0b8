package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// firstAttempt is the limit of the first try; each further one gets twice the
	// time. A machine that boots may accept a connection and forget it.
	firstAttempt = 5 * time.Second
	// firstPause and longestPause are between tries.
	firstPause   = 100 * time.Millisecond
	longestPause = 2 * time.Second
)

// ciphers puts first what is fast in software: a machine that is emulated, or
// told to hide its AES instructions, does ChaCha20 several times as fast as AES.
var ciphers = [...]string{
	ssh.CipherChaCha20Poly1305, ssh.CipherAES128GCM, ssh.CipherAES256GCM,
	ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR,
}

// connect tries until the node is there, something fails that no retry mends, or
// patience is at its end.
func (c Config) connect(ctx context.Context) (*link, error) {
	limit, pause := min(firstAttempt, c.Attempt), firstPause
	var last error
	for {
		l, err := c.attempt(ctx, limit)
		if err == nil {
			return l, nil
		}
		// What cut the last try short says less than what made others fail.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		var r *passing
		if !errors.As(err, &r) {
			return nil, fmt.Errorf("%s: %w", c.at(), err)
		}
		limit = min(2*limit, c.Attempt)
		// Several nodes that boot together need not be tried in step.
		wait := pause + rand.N(pause/2)
		pause = min(2*pause, longestPause)
		if ctx.Err() == nil && c.Retry != nil {
			c.Retry(fmt.Errorf("%s: %w", c.at(), err), wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, c.gaveUp(ctx, last)
		}
	}
}

// gaveUp says why: the caller's own cancelling, or no time left.
func (c Config) gaveUp(ctx context.Context, last error) error {
	if errors.Is(context.Cause(ctx), errPatience) {
		return fmt.Errorf("%s: %w within %s: %w", c.at(), ErrUnreachable, c.Patience, last)
	}
	return fmt.Errorf("%s: %w: %w (%w)", c.at(), ErrUnreachable, last, ctx.Err())
}

var errPatience = errors.New("tried long enough")

// passing is an error that another try may mend.
type passing struct{ err error }

func (p *passing) Error() string { return p.err.Error() }
func (p *passing) Unwrap() error { return p.err }

// attempt connects and logs in once.
func (c Config) attempt(ctx context.Context, limit time.Duration) (*link, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	keys, closeAgent, err := c.signers(ctx)
	if err != nil {
		return nil, err
	}
	defer closeAgent()
	h := &handshake{config: c}
	client, err := h.clientConfig(ctx, keys)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.address())
	if err != nil {
		return nil, notConnected(ctx, start, err)
	}
	w := &wire{Conn: conn, start: time.Now()}
	// Nothing of the handshake looks at ctx: closing the connection ends it.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	s, channels, requests, err := ssh.NewClientConn(w, c.address(), client)
	if err != nil {
		conn.Close()
		return nil, h.failed(ctx, w, err)
	}
	if !stop() {
		s.Close()
		return nil, h.failed(ctx, w, ctx.Err())
	}
	return newLink(c, w, ssh.NewClient(s, channels, requests)), nil
}

func notConnected(ctx context.Context, start time.Time, err error) error {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return err
	case ctx.Err() != nil:
		return &passing{fmt.Errorf("connect: %w after %s", ErrTimeout, time.Since(start).Round(time.Millisecond))}
	default:
		var op *net.OpError
		var call *os.SyscallError
		switch { // the address and the call are said already
		case errors.As(err, &call):
			err = call.Err
		case errors.As(err, &op):
			err = op.Err
		}
		return &passing{fmt.Errorf("connect: %w", err)}
	}
}

// handshake remembers how far it came, because its errors bear no class.
type handshake struct {
	config  Config
	keyErr  error
	login   bool   // the host key was good, and the user's were asked for
	banners string // what the node said before the login
}

func (h *handshake) clientConfig(ctx context.Context, keys []ssh.Signer) (*ssh.ClientConfig, error) {
	pinned := pins{h.config.KnownHosts}
	algorithms, err := pinned.algorithms(h.config.Node)
	if err != nil {
		return nil, err
	}
	return &ssh.ClientConfig{
		Config: ssh.Config{Ciphers: ciphers[:]},
		User:   h.config.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			h.login = true
			return keys, nil
		})},
		HostKeyAlgorithms: algorithms,
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			h.keyErr = pinned.check(ctx, h.config.Node, key)
			return h.keyErr
		},
		BannerCallback: func(message string) error {
			h.banners += message
			return nil
		},
	}, nil
}

// failed tells what another try may mend from what none will.
func (h *handshake) failed(ctx context.Context, w *wire, err error) error {
	var none *ssh.AlgorithmNegotiationError
	greeting, isSSH := w.greeting()
	switch {
	case h.keyErr != nil && ctx.Err() == nil:
		return h.keyErr
	case ctx.Err() != nil:
		return &passing{fmt.Errorf("log in: %w after %s", ErrTimeout, time.Since(w.start).Round(time.Millisecond))}
	case !isSSH && greeting != "" && !busy(greeting):
		return fmt.Errorf("%w: it says %.60q", ErrNotSSH, greeting)
	case !isSSH && greeting != "":
		return &passing{errors.New(greeting)}
	case errors.As(err, &none):
		return err
	case broken(err) && h.banners != "":
		// A machine that boots lets nobody in and says so (pam_nologin).
		return &passing{fmt.Errorf("log in: %w (%s)", err, strings.TrimSpace(h.banners))}
	case broken(err):
		return &passing{fmt.Errorf("log in: %w", err)}
	case h.login:
		return fmt.Errorf("%w: the key is not one of %s's (%w)", ErrAuth, h.config.User, err)
	default:
		return fmt.Errorf("%w: it takes no keys (%w)", ErrAuth, err)
	}
}

// busy are sshd's words, before its version, when it wants no connection now.
func busy(greeting string) bool {
	return greeting == "Exceeded MaxStartups" || greeting == "Not allowed at this time"
}

// broken is an error of the connection itself: the node closed or reset it.
func broken(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ECONNRESET) || errors.As(err, &op)
}
