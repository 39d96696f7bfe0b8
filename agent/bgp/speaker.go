//go:build linux

// Package bgp lets a node speak BGP: it originates the node's prefixes, keeps
// the sessions with its neighbours, and tells which routes they taught it. The
// protocol is GoBGP's; what is learned goes into the kernel elsewhere.
package bgp

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/route"
)

const (
	// kind is that of the objects.
	kind = "bgp"
	// holdTime ends a session that is silent, in seconds; a third of it passes
	// between two signs of life. BGP's own 90 are too long for a lesson.
	holdTime = 9
	// restartTime is how long neighbours keep a speaker's routes while its agent
	// is exchanged, in seconds (graceful restart, RFC 4724).
	restartTime = 30
	// leaveTime bounds the farewell to neighbours, which takes milliseconds.
	leaveTime = time.Second
	leavePoll = 5 * time.Millisecond
	// retry is the pause after a speaker that could not be started.
	retry = 2 * time.Second
)

// Config is what a [Speaker] works with.
type Config struct {
	Log *slog.Logger
	// Report is told why the speaker could not be started, and of its return to
	// health as nil. It must not block.
	Report func(error)
	// OnLearned is called, one call at a time, whenever what was learned changes,
	// and with nothing when the node speaks BGP no more.
	OnLearned func(route.Learned)
}

// Speaker keeps a node's sessions in line with its state. Its methods are safe
// for concurrent use.
type Speaker struct {
	config Config
	wake   chan struct{}

	mu      sync.Mutex
	want    *api.BGP
	session *session // nil where none runs
	failed  error    // why none does
}

// New returns a speaker that is silent until [Speaker.Set].
func New(config Config) *Speaker {
	return &Speaker{config: config, wake: make(chan struct{}, 1)}
}

// Set gives the state to hold, and returns at once.
func (s *Speaker) Set(state api.State) {
	s.mu.Lock()
	s.want = state.BGP
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends. Neighbours are told nothing of the end, and keep
// what they learned until the speaker is back.
func (s *Speaker) Run(ctx context.Context) {
	for {
		pause := s.apply()
		select {
		case <-ctx.Done():
			s.end(true)
			return
		case <-s.wake:
		case <-pause:
		}
	}
}

// apply starts what is wanted in place of what runs. The channel says when to
// try again; it is nil where that is not needed.
func (s *Speaker) apply() <-chan time.Time {
	s.mu.Lock()
	want, running := s.want, s.session
	s.mu.Unlock()
	if running != nil && reflect.DeepEqual(want, &running.config) {
		return nil
	}
	s.end(false)
	if want == nil {
		s.config.OnLearned(route.Learned{Complete: true})
		return nil
	}
	started, err := start(*want, s.config)
	s.mu.Lock()
	s.session, s.failed = started, err
	s.mu.Unlock()
	s.config.Report(err)
	if err != nil {
		return time.After(retry)
	}
	return nil
}

// end stops the sessions; with grace, neighbours keep what they learned.
func (s *Speaker) end(grace bool) {
	s.mu.Lock()
	running := s.session
	s.session = nil
	s.mu.Unlock()
	if running != nil {
		running.stop(grace)
	}
}

// Status is nil where the node speaks no BGP.
func (s *Speaker) Status() *api.BGPStatus {
	s.mu.Lock()
	want, running := s.want, s.session
	s.mu.Unlock()
	if want == nil {
		return nil
	}
	status := &api.BGPStatus{ASN: want.ASN, RouterID: want.RouterID, Peers: []api.BGPPeer{}, Routes: []api.BGPRoute{}}
	if running == nil {
		return status
	}
	status.Peers = running.peers()
	status.Routes = running.routes()
	return status
}

// Objects has one for each neighbour. Settled means that all of them have told
// what they had.
func (s *Speaker) Objects() (objects []api.Object, settled bool) {
	s.mu.Lock()
	want, failed := s.want, s.failed
	s.mu.Unlock()
	if want == nil {
		return nil, true
	}
	status, settled := s.Status(), true
	for _, n := range want.Neighbors {
		o := api.Object{Kind: kind, Name: "session with " + n.Name + " (" + n.Address.String() + ")", Owner: api.OwnerAgent, Condition: api.Pending}
		i := slices.IndexFunc(status.Peers, func(p api.BGPPeer) bool { return p.Address == n.Address })
		switch {
		case failed != nil:
			o.Condition, o.Reason = api.Failed, failed.Error()
		case i < 0:
		case status.Peers[i].Synced:
			o.Condition = api.InPlace
		default:
			o.Reason = reason(status.Peers[i], n)
			if status.Peers[i].Reason != "" {
				o.Condition = api.Failed
			}
		}
		settled = settled && o.Condition == api.InPlace
		objects = append(objects, o)
	}
	return objects, settled
}

// reason says what a session waits for.
func reason(p api.BGPPeer, n api.BGPNeighbor) string {
	text := "it is " + p.State
	if p.State == "established" {
		text = "it is established, and " + n.Name + " has not told all its routes yet"
	} else if n.Passive {
		text += ": it waits for " + n.Name + " to call"
	}
	if p.Reason != "" {
		text += " (the last one ended: " + p.Reason + ")"
	}
	return text
}
