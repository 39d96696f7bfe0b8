package sshtest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy passes connections on to a server and breaks them when it is told to.
type Proxy struct {
	Port int

	to string

	mu     sync.Mutex
	pairs  map[*pair]bool
	frozen chan struct{} // nil, or closed when the silence ends
	limit  int64         // bytes from the client that pass; negative for all
}

type pair struct{ client, server net.Conn }

func (p *pair) close() {
	p.client.Close()
	p.server.Close()
}

// NewProxy passes connections to an address, until the test ends.
func NewProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Port: l.Addr().(*net.TCPAddr).Port, to: to, pairs: map[*pair]bool{}, limit: -1}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", p.to)
			if err != nil {
				client.Close()
				continue
			}
			p.pass(&pair{client, server})
		}
	}()
	t.Cleanup(func() {
		l.Close()
		p.Thaw()
		p.Cut()
	})
	return p
}

// Cut closes all connections; new ones are passed.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.close()
	}
}

// CutAfter cuts the connections when so many more bytes have come from the client.
func (p *Proxy) CutAfter(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = bytes
}

// Freeze passes nothing more, and closes nothing: as a machine that lost its power.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
	}
}

// Thaw ends Freeze.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
}

func (p *Proxy) pass(c *pair) {
	p.mu.Lock()
	p.pairs[c] = true
	p.mu.Unlock()
	carry := func(to, from net.Conn, fromClient bool) {
		defer c.close()
		_, _ = io.Copy(gate{p, to, fromClient}, from)
	}
	go carry(c.server, c.client, true)
	go carry(c.client, c.server, false)
}

// gate is where what passes is counted and held up.
type gate struct {
	p          *Proxy
	to         net.Conn
	fromClient bool
}

func (g gate) Write(b []byte) (int, error) {
	g.p.mu.Lock()
	frozen := g.p.frozen
	cut := false
	if g.fromClient && g.p.limit >= 0 {
		g.p.limit -= int64(len(b))
		if cut = g.p.limit < 0; cut {
			g.p.limit = -1
		}
	}
	g.p.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	if cut {
		return 0, io.ErrClosedPipe
	}
	return g.to.Write(b)
}
