//go:build linux

// Package dns answers the names of a cluster as Kubernetes' name server does
// (github.com/kubernetes/dns, docs/specification.md), and those of its nodes. It
// has nobody to ask: whatever lies outside is refused at once.
package dns

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/native-routing/labctl/agent/api"
)

const (
	port = 53
	// Retries of what failed are doubled from retryFirst to retryLast.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
)

// Server answers on the pod gateway's address of the state that was set last.
// Its methods are safe for concurrent use.
type Server struct {
	zone    atomic.Pointer[zone]
	ready   atomic.Pointer[map[string]bool]
	queries [16]atomic.Uint64 // by the answer's code
	wake    chan struct{}

	mu      sync.Mutex
	at      netip.AddrPort // the zero value for nowhere
	set     uint64         // counts the states
	settled uint64         // the count at which object was found
	object  *api.Object
}

// New returns a server without names.
func New() *Server { return &Server{wake: make(chan struct{}, 1)} }

// Set gives the state to hold, which must not change any more, and returns
// at once. The same again means to retry now.
func (s *Server) Set(state api.State) {
	at, z := netip.AddrPort{}, (*zone)(nil)
	if state.Cluster != nil && state.Cluster.DNS.IsValid() {
		for _, n := range state.Cluster.Nodes {
			if n.Name == state.Node && n.Gateway.IsValid() {
				at, z = netip.AddrPortFrom(n.Gateway, port), compile(state.Cluster)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone.Store(z)
	s.set++
	switch {
	case z == nil:
		s.object = nil
	case s.object == nil || s.at != at:
		s.object = &api.Object{Kind: "dns", Name: at.String(), Owner: api.OwnerAgent, Condition: api.Pending}
	}
	s.at = at
	signal(s.wake)
}

// SetReady says which pods headless services lead to, by the pod's key. Until
// it was called they lead to all; later a pod that is not in it is not ready.
func (s *Server) SetReady(ready map[string]bool) {
	if ready == nil {
		ready = map[string]bool{}
	}
	s.ready.Store(&ready)
}

// Objects is how the server stands; there is none where the cluster has none.
func (s *Server) Objects() (objects []api.Object, settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	settled = s.settled == s.set
	if s.object != nil {
		objects = append(objects, *s.object)
		settled = settled && s.object.Condition == api.InPlace
	}
	return objects, settled
}

// Queries counts the answers given, by DNS's name of their code (NOERROR).
func (s *Server) Queries() map[string]uint64 {
	counts := make(map[string]uint64)
	for code := range s.queries {
		if n := s.queries[code].Load(); n > 0 {
			counts[dns.RcodeToString[code]] = n
		}
	}
	return counts
}

// Run answers until ctx ends, in the network namespace of the calling thread.
func (s *Server) Run(ctx context.Context) {
	var open *sockets
	defer func() { open.close() }()
	var wait time.Duration // before the next try; 0 without one
	for {
		s.mu.Lock()
		set, at := s.set, s.at
		s.mu.Unlock()
		if open != nil && open.at != at {
			open.close()
			open = nil
		}
		var err error
		if open == nil && at.IsValid() {
			open, err = bind(ctx, at, s)
		}
		if ctx.Err() != nil {
			return
		}
		s.publish(set, err)
		if wait = 2 * wait; err == nil {
			wait = 0
		} else {
			wait = min(max(wait, retryFirst), retryLast)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-after(wait):
		case err := <-open.failed():
			s.publish(set, err)
			open.close()
			open = nil
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryFirst):
			}
		}
	}
}

// after is time.After, and never where there is nothing to wait for.
func after(wait time.Duration) <-chan time.Time {
	if wait == 0 {
		return nil
	}
	return time.After(wait)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// publish says how the server stands, found when set states had been given.
func (s *Server) publish(set uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set != set {
		return
	}
	s.settled = set
	switch {
	case s.object == nil:
	case err != nil:
		s.object.Condition, s.object.Reason = api.Failed, err.Error()
	default:
		s.object.Condition, s.object.Reason = api.InPlace, ""
	}
}
