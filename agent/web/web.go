//go:build linux

// Package web serves the page of a node over HTTP, as the web server outside
// the cluster that the lab's router plays.
package web

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/listen"
)

const (
	port = 80
	// A client that is slower than this is cut off.
	patience = 10 * time.Second
	// idle is how long a connection is kept for a next request.
	idle = 30 * time.Second
	// connections at once; more wait in the kernel's queue.
	connections = 256
	maxHeader   = 16 << 10 // bytes
	// Retries of what failed are doubled from retryFirst to retryLast.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
)

// everywhere is all IPv4 addresses of the node, those that come later included.
var everywhere = netip.AddrPortFrom(netip.IPv4Unspecified(), port)

// Server serves the page of the state that was set last. Its methods are safe
// for concurrent use.
type Server struct {
	page atomic.Pointer[string] // with its newline
	wake chan struct{}

	mu      sync.Mutex
	set     uint64 // counts the states
	settled uint64 // the count at which object was found
	object  *api.Object
}

// New returns a server without a page.
func New() *Server { return &Server{wake: make(chan struct{}, 1)} }

// Set gives the state to hold, and returns at once. The same again means to
// retry now.
func (s *Server) Set(state api.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set++
	if state.Page == "" {
		s.page.Store(nil)
		s.object = nil
	} else {
		page := state.Page + "\n"
		s.page.Store(&page)
		if s.object == nil {
			s.object = &api.Object{Kind: "page", Name: everywhere.String(), Owner: api.OwnerAgent, Condition: api.Pending}
		}
	}
	signal(s.wake)
}

// Objects is how the page stands; there is none where there is no page.
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

// Run serves until ctx ends, in the network namespace of the calling thread.
func (s *Server) Run(ctx context.Context) {
	var serving *http.Server
	ended := make(chan error, 1) // how serving ended, if not by our will
	defer func() { stop(serving) }()
	var wait time.Duration // before the next try; 0 without one
	for {
		s.mu.Lock()
		set := s.set
		wanted := s.page.Load() != nil
		s.mu.Unlock()
		var err error
		switch {
		case !wanted:
			stop(serving)
			serving = nil
		case serving == nil:
			serving, err = s.serve(ctx, ended)
		}
		if ctx.Err() != nil {
			return
		}
		s.publish(set, err)
		wait = next(wait, err)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-after(wait):
		case err := <-ended:
			s.publish(set, err)
			stop(serving)
			serving, wait = nil, retryFirst
			if !pause(ctx, wait) {
				return
			}
		}
	}
}

// next is how long to wait for another try after one that took wait.
func next(wait time.Duration, err error) time.Duration {
	if err == nil {
		return 0
	}
	return min(max(2*wait, retryFirst), retryLast)
}

// after is time.After, and never where there is nothing to wait for.
func after(wait time.Duration) <-chan time.Time {
	if wait == 0 {
		return nil
	}
	return time.After(wait)
}

func pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// publish says how the page stands, found when set states had been given.
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

func stop(server *http.Server) {
	if server != nil {
		_ = server.Close()
	}
}

// serve begins to serve, and tells ended if it ends by itself.
func (s *Server) serve(ctx context.Context, ended chan<- error) (*http.Server, error) {
	listener, err := listen.TCP(ctx, everywhere)
	if err != nil {
		return nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler:                      http.HandlerFunc(s.answer),
		DisableGeneralOptionsHandler: true,
		Protocols:                    protocols,
		ReadTimeout:                  patience,
		WriteTimeout:                 patience,
		IdleTimeout:                  idle,
		MaxHeaderBytes:               maxHeader,
		ErrorLog:                     log.New(io.Discard, "", 0), // what clients do wrong is theirs to know
	}
	go func() {
		err := server.Serve(netutil.LimitListener(net.Listener(listener), connections))
		if !errors.Is(err, http.ErrServerClosed) {
			ended <- err
		}
	}()
	return server, nil
}

// answer gives the page for every path, and tells the client in RemoteAddr from
// which address it was seen to come.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	w.Header()["RemoteAddr"] = []string{r.RemoteAddr} // Set would spell it Remoteaddr
	page := s.page.Load()
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
	case page == nil: // it was taken away while the request was read
		http.Error(w, "no page", http.StatusServiceUnavailable)
	default:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(*page)))
		_, _ = io.WriteString(w, *page)
	}
}
