//go:build linux

package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// Retries of what failed are doubled from retryFirst to retryLast.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
	// largest datagram that is taken in, in bytes; a longer one is cut, and its
	// signature is wrong then.
	largest = 2048
)

// conn is a socket, [*net.UDPConn] but in tests.
type conn interface {
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
	Close() error
}

type listener func(ctx context.Context, at netip.AddrPort) (conn, error)

// socket is an open conn, with the reader of it.
type socket struct {
	conn
	at   netip.AddrPort
	read chan struct{} // closed at the reader's end
}

func (s *socket) close() {
	if s != nil {
		_ = s.conn.Close()
		<-s.read
	}
}

// Run speaks and listens until ctx ends, in the network namespace of the
// calling thread. It calls OnChange.
func (x *Exchange) Run(ctx context.Context) {
	var open *socket
	defer func() { open.close() }()
	var wait time.Duration // before the next try to listen; 0 without one
	told := map[string]State{}
	for {
		var err error
		open, err = x.reopen(ctx, open)
		if ctx.Err() != nil {
			return
		}
		if wait = min(max(2*wait, retryFirst), retryLast); err == nil {
			wait = 0
		}
		next := x.speak(open, time.Now())
		if wait > 0 {
			next = earliest(next, time.Now().Add(wait))
		}
		states, again := x.look()
		if !maps.Equal(told, states) {
			told = states
			x.config.OnChange()
		}
		if !x.pause(ctx, earliest(next, again)) {
			return
		}
	}
}

// pause waits for a reason to go on: an event, or the time until.
func (x *Exchange) pause(ctx context.Context, until time.Time) bool {
	var timer <-chan time.Time
	if !until.IsZero() {
		timer = time.After(time.Until(until))
	}
	select {
	case <-ctx.Done():
		return false
	case <-x.wake:
	case <-timer:
	}
	return true
}

func (x *Exchange) look() (states map[string]State, again time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	states = x.refresh(time.Now())
	return states, x.again
}

// reopen brings the socket in line with the state, and says how that went.
func (x *Exchange) reopen(ctx context.Context, open *socket) (*socket, error) {
	x.mu.Lock()
	at, keyLength, set := x.own, len(x.key), x.set
	x.mu.Unlock()
	var err error
	if at.IsValid() && keyLength != keySize {
		err = fmt.Errorf("the key of the cluster has %d bytes and not %d: run labctl up, which gives one", keyLength, keySize)
		at = netip.AddrPort{}
	}
	if open != nil && open.at != at {
		open.close()
		open = nil
	}
	if open == nil && at.IsValid() {
		var c conn
		if c, err = x.listen(ctx, at); err == nil {
			open = &socket{conn: c, at: at, read: make(chan struct{})}
			go x.hear(open)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failure = err
	if x.set == set {
		x.settled = set
	}
	return open, err
}

// hear takes in what comes, until the socket is closed.
func (x *Exchange) hear(s *socket) {
	defer close(s.read)
	buffer := make([]byte, largest)
	for {
		n, _, err := s.ReadFromUDPAddrPort(buffer)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			x.config.Report(fmt.Errorf("hear of other nodes' pods: %w", err))
			time.Sleep(retryFirst) // an error that stays must not spin
		default:
			x.receive(buffer[:n], time.Now())
		}
	}
}

// speak sends what is due, and says when there will be more.
func (x *Exchange) speak(open *socket, now time.Time) (next time.Time) {
	if open == nil {
		return time.Time{}
	}
	x.mu.Lock()
	out, next := x.due(now)
	x.mu.Unlock()
	failures := make(map[*peer]error, len(out))
	for _, d := range out {
		if _, err := open.WriteToUDPAddrPort(d.bytes, d.at); err != nil || failures[d.to] == nil {
			failures[d.to] = err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stats.Sent += uint64(len(out))
	for p, err := range failures {
		p.failure = err
	}
	return next
}

// Objects is how each other node stands, and the socket before them.
func (x *Exchange) Objects() (objects []api.Object, settled bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	settled = x.settled == x.set
	if !x.own.IsValid() {
		return nil, settled
	}
	socket := api.Object{Kind: "peer", Name: x.own.String(), Owner: api.OwnerAgent, Condition: api.InPlace}
	switch {
	case x.failure != nil:
		socket.Condition, socket.Reason = api.Failed, x.failure.Error()
	case !settled:
		socket.Condition = api.Pending
	}
	objects = append(objects, socket)
	for _, p := range slices.SortedFunc(maps.Values(x.peers), func(a, b *peer) int { return strings.Compare(a.name, b.name) }) {
		objects = append(objects, p.object(time.Now()))
	}
	for _, o := range objects {
		settled = settled && o.Condition != api.Failed && o.Condition != api.Pending
	}
	return objects, settled
}

// object is how p stands. That it is silent is not the agent's failure, and
// only at first worth to wait for.
func (p *peer) object(now time.Time) api.Object {
	o := api.Object{Kind: "peer", Name: p.name, Owner: api.OwnerLab, Condition: api.Drifted}
	switch ago := now.Sub(p.heard).Truncate(time.Second) / time.Second; {
	case p.heard.IsZero():
		o.Reason = "not heard yet"
		if now.Before(p.since.Add(patience)) {
			o.Condition = api.Pending
		}
	case now.Before(p.heard.Add(silence)):
		o.Condition = api.InPlace
		o.Reason = fmt.Sprintf("heard %d s ago", ago)
	default:
		o.Reason = fmt.Sprintf("silent for %d s", ago)
	}
	if o.Condition == api.Drifted {
		o.Reason += fmt.Sprintf(": does its agent run, and do UDP datagrams to %s pass both ways?", p.address)
		if p.failure != nil {
			o.Reason += fmt.Sprintf(" (the last could not be sent: %s)", cause(p.failure))
		}
	}
	return o
}

// cause leaves out what net repeats of the addresses.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
