//go:build linux

package bgp

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	gobgp "github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/route"
)

// port is BGP's (RFC 4271, section 8.2.1).
const port = 179

// session is a speaker that runs, with one configuration.
type session struct {
	config api.BGP
	server *server.BgpServer
	learn  func(route.Learned)
	cancel context.CancelFunc
	began  time.Time
	work   sync.WaitGroup

	// told wakes the one who tells what was learned.
	told chan struct{}

	mu     sync.Mutex
	heard  map[netip.Addr]bool // by peer: the end of its table was seen
	synced map[netip.Addr]bool // and what it taught was passed on
}

func start(config api.BGP, with Config) (*session, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{
		config: config, learn: with.OnLearned, cancel: cancel, began: time.Now(),
		server: server.NewBgpServer(server.LoggerOption(with.Log, nil)),
		told:   make(chan struct{}, 1), heard: map[netip.Addr]bool{}, synced: map[netip.Addr]bool{},
	}
	s.work.Go(s.server.Serve)
	if err := s.configure(ctx); err != nil {
		s.stop(false)
		return nil, err
	}
	s.work.Go(func() { s.tell(ctx) })
	return s, nil
}

// configure begins to speak.
func (s *session) configure(ctx context.Context) error {
	global := &gobgp.Global{Asn: s.config.ASN, RouterId: s.config.RouterID.String(), ListenPort: -1}
	for _, n := range s.config.Neighbors {
		if n.Passive && !slices.Contains(global.ListenAddresses, n.Local.String()) {
			global.ListenPort = port
			global.ListenAddresses = append(global.ListenAddresses, n.Local.String())
		}
	}
	if err := s.server.StartBgp(ctx, &gobgp.StartBgpRequest{Global: global}); err != nil {
		return fmt.Errorf("speak BGP: %w", err)
	}
	if err := s.server.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnBestPath:   func([]*apiutil.Path, time.Time) { s.wake() },
		OnPathEor:    func(end *apiutil.Path, _ time.Time) { s.hear(end.PeerAddress, true) },
		OnPeerUpdate: s.peerChanged,
	}, server.WatchBestPath(true), server.WatchEor(true), server.WatchPeer()); err != nil {
		return fmt.Errorf("watch BGP: %w", err)
	}
	for _, prefix := range s.config.Advertise {
		if err := s.originate(prefix); err != nil {
			return err
		}
	}
	for _, n := range s.config.Neighbors {
		if err := s.server.AddPeer(ctx, &gobgp.AddPeerRequest{Peer: peerOf(n)}); err != nil {
			return fmt.Errorf("add BGP neighbour %s (%s): %w", n.Name, n.Address, err)
		}
	}
	return nil
}

func peerOf(n api.BGPNeighbor) *gobgp.Peer {
	return &gobgp.Peer{
		Conf:      &gobgp.PeerConf{NeighborAddress: n.Address.String(), PeerAsn: n.ASN, Description: n.Name},
		Transport: &gobgp.Transport{LocalAddress: n.Local.String(), PassiveMode: n.Passive},
		Timers: &gobgp.Timers{Config: &gobgp.TimersConfig{
			ConnectRetry: 1, HoldTime: holdTime, KeepaliveInterval: holdTime / 3, IdleHoldTimeAfterReset: 1,
		}},
		GracefulRestart: &gobgp.GracefulRestart{Enabled: true, RestartTime: restartTime},
		AfiSafis: []*gobgp.AfiSafi{{
			Config:            &gobgp.AfiSafiConfig{Family: &gobgp.Family{Afi: gobgp.Family_AFI_IP, Safi: gobgp.Family_SAFI_UNICAST}, Enabled: true},
			MpGracefulRestart: &gobgp.MpGracefulRestart{Config: &gobgp.MpGracefulRestartConfig{Enabled: true}},
		}},
	}
}

// originate advertises a prefix of the node's own, with the node as next hop.
func (s *session) originate(prefix netip.Prefix) error {
	nlri, err := bgp.NewIPAddrPrefix(prefix)
	if err != nil {
		return fmt.Errorf("advertise %s: %w", prefix, err)
	}
	hop, err := bgp.NewPathAttributeNextHop(netip.IPv4Unspecified())
	if err != nil {
		return fmt.Errorf("advertise %s: %w", prefix, err)
	}
	_, err = s.server.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{{
		Family: bgp.RF_IPv4_UC, Nlri: nlri, Age: time.Now().Unix(),
		Attrs: []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP), hop},
	}}})
	if err != nil {
		return fmt.Errorf("advertise %s: %w", prefix, err)
	}
	return nil
}

// stop ends all sessions; with grace, neighbours take it for a restart. Without,
// they are told first: one that only finds its connection closed would keep the
// routes for restartTime.
func (s *session) stop(grace bool) {
	s.cancel()
	if !grace {
		s.takeLeave()
	}
	_ = s.server.StopBgp(context.Background(), &gobgp.StopBgpRequest{AllowGracefulRestart: grace}) // it fails only where nothing runs
	s.work.Wait()
}

// takeLeave disables every peer, which sends it a notification, and waits until
// all are gone.
func (s *session) takeLeave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	for _, n := range s.config.Neighbors {
		_ = s.server.DisablePeer(ctx, &gobgp.DisablePeerRequest{Address: n.Address.String()}) // it fails for one that was never added
	}
	for ctx.Err() == nil && slices.ContainsFunc(s.peers(), func(p api.BGPPeer) bool { return p.State == "established" }) {
		time.Sleep(leavePoll)
	}
}

func (s *session) peerChanged(event *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
	if event.Peer.State.SessionState != bgp.BGP_FSM_ESTABLISHED {
		s.hear(event.Peer.State.NeighborAddress, false)
		return
	}
	s.wake()
}

// hear notes that a peer has told all that it had, or that it is gone.
func (s *session) hear(peer netip.Addr, all bool) {
	s.mu.Lock()
	s.heard[peer] = all
	s.mu.Unlock()
	s.wake()
}

func (s *session) wake() {
	select {
	case s.told <- struct{}{}:
	default:
	}
}

// tell passes on what was learned. What an agent before this one had learned
// stays meanwhile, for as long as neighbours keep ours.
func (s *session) tell(ctx context.Context) {
	patience := time.NewTimer(restartTime * time.Second)
	defer patience.Stop()
	complete := false // once so, for good: a peer that goes takes its routes with it
	for {
		select {
		case <-ctx.Done():
			return
		case <-patience.C:
		case <-s.told:
		}
		heard := s.hearing()
		complete = complete || s.all(heard) || time.Since(s.began) >= restartTime*time.Second
		learned := route.Learned{Complete: complete}
		for _, r := range s.routes() {
			if r.Best && r.Peer.IsValid() {
				learned.Routes = append(learned.Routes, route.LearnedRoute{Prefix: r.Prefix, NextHop: r.NextHop, Peer: s.name(r.Peer)})
			}
		}
		s.learn(learned)
		s.mu.Lock()
		s.synced = heard
		s.mu.Unlock()
	}
}

func (s *session) hearing() map[netip.Addr]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.heard)
}

func (s *session) all(heard map[netip.Addr]bool) bool {
	return !slices.ContainsFunc(s.config.Neighbors, func(n api.BGPNeighbor) bool { return !heard[n.Address] })
}

func (s *session) name(peer netip.Addr) string {
	for _, n := range s.config.Neighbors {
		if n.Address == peer {
			return n.Name
		}
	}
	return peer.String()
}

// peers are the sessions, in the order of the configuration.
func (s *session) peers() []api.BGPPeer {
	seen := map[string]*gobgp.Peer{}
	_ = s.server.ListPeer(context.Background(), &gobgp.ListPeerRequest{EnableAdvertised: true}, func(p *gobgp.Peer) {
		seen[p.GetState().GetNeighborAddress()] = p
	}) // it fails only while the speaker ends
	peers := make([]api.BGPPeer, 0, len(s.config.Neighbors))
	for _, n := range s.config.Neighbors {
		p := api.BGPPeer{Name: n.Name, Address: n.Address, ASN: n.ASN, State: "idle"}
		if found := seen[n.Address.String()]; found != nil {
			state := found.GetState()
			p.State = strings.ToLower(strings.TrimPrefix(state.GetSessionState().String(), "SESSION_STATE_"))
			p.Reason = state.GetDisconnectMessage()
			if up := found.GetTimers().GetState().GetUptime(); p.State == "established" && up.GetSeconds() > 0 {
				p.Since, p.Reason = up.AsTime(), ""
			}
			for _, family := range found.GetAfiSafis() {
				p.Received += int(family.GetState().GetReceived())
				p.Advertised += int(family.GetState().GetAdvertised())
			}
		}
		s.mu.Lock()
		p.Synced = p.State == "established" && s.synced[n.Address]
		s.mu.Unlock()
		peers = append(peers, p)
	}
	return peers
}

// routes are all paths, by prefix, the best of each first.
func (s *session) routes() []api.BGPRoute {
	routes := []api.BGPRoute{}
	_ = s.server.ListPath(apiutil.ListPathRequest{TableType: gobgp.TableType_TABLE_TYPE_GLOBAL, Family: bgp.RF_IPv4_UC},
		func(nlri bgp.NLRI, paths []*apiutil.Path) {
			prefix, err := netip.ParsePrefix(nlri.String())
			if err != nil {
				return // no IPv4 unicast prefix
			}
			for _, p := range paths {
				routes = append(routes, routeOf(prefix, p))
			}
		}) // it fails only while the speaker ends
	slices.SortStableFunc(routes, func(a, b api.BGPRoute) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return routes
}

func routeOf(prefix netip.Prefix, p *apiutil.Path) api.BGPRoute {
	r := api.BGPRoute{Prefix: prefix, Best: p.Best, Since: time.Unix(p.Age, 0).UTC()}
	for _, attribute := range p.Attrs {
		switch a := attribute.(type) {
		case *bgp.PathAttributeNextHop:
			if !a.Value.IsUnspecified() {
				r.NextHop = a.Value
			}
		case *bgp.PathAttributeAsPath:
			for _, segment := range a.Value {
				r.Path = append(r.Path, segment.GetAS()...)
			}
		}
	}
	if r.NextHop.IsValid() {
		r.Peer = p.PeerAddress
	}
	return r
}
