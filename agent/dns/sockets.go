//go:build linux

package dns

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"

	"github.com/native-routing/labctl/agent/listen"
)

const (
	// connections over TCP at once; more wait in the kernel's queue.
	connections = 64
	// A client that is slower than this is cut off.
	patience = 2 * time.Second
	// never is the time-out of a UDP read, which only wakes a server that has
	// nothing to do.
	never = 24 * time.Hour
)

// sockets are what one address is served on.
type sockets struct {
	at      netip.AddrPort
	servers []*dns.Server
	ended   chan error
}

// bind begins to answer on at, over UDP and TCP.
func bind(ctx context.Context, at netip.AddrPort, handler dns.Handler) (*sockets, error) {
	udp, err := listen.UDP(ctx, at)
	if err != nil {
		return nil, err
	}
	tcp, err := listen.TCP(ctx, at)
	if err != nil {
		_ = udp.Close()
		return nil, err
	}
	s := &sockets{at: at, ended: make(chan error, 2)}
	s.start(&dns.Server{PacketConn: udp, Handler: handler, ReadTimeout: never})
	s.start(&dns.Server{
		Listener: netutil.LimitListener(net.Listener(tcp), connections), Handler: handler,
		ReadTimeout: patience, WriteTimeout: patience,
	})
	return s, nil
}

// start returns when the server can be shut down.
func (s *sockets) start(server *dns.Server) {
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	ended := make(chan error, 1)
	go func() {
		err := server.ActivateAndServe() // nil after Shutdown
		ended <- err
		if err != nil {
			s.ended <- err
		}
	}()
	select {
	case <-started:
		s.servers = append(s.servers, server)
	case <-ended:
	}
}

// failed tells if a server ends by itself. A nil one never does.
func (s *sockets) failed() <-chan error {
	if s == nil {
		return nil
	}
	return s.ended
}

// close ends the servers, and waits for the answers that are under way.
func (s *sockets) close() {
	if s == nil {
		return
	}
	for _, server := range s.servers {
		_ = server.Shutdown()
	}
}
