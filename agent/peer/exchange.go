//go:build linux

// Package peer tells the agents of a lab's other nodes which pods of this one
// are ready, and hears the same from them, by signed datagrams. Each carries
// all pods of its node, so whatever is lost is made good by the next.
package peer

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// Port takes the datagrams.
	Port = 4240
	// interval is between two datagrams to a peer when nothing happens, a tenth
	// more or less, so that nodes do not speak in step.
	interval = 2 * time.Second
	// After a change a datagram goes out at once, and again after these.
	firstRepeat  = 300 * time.Millisecond
	secondRepeat = 600 * time.Millisecond
	// A row of changes is told in one datagram each gap.
	gap = 50 * time.Millisecond
	// answerGap bounds how often one peer that does not know us yet is answered.
	answerGap = 200 * time.Millisecond
	// patience is how long a node that was never heard is waited for.
	patience = 3 * time.Second
	// silence is how long a node that was heard may say nothing: three datagrams.
	silence = 7 * time.Second
)

// Config is what an [Exchange] works on.
type Config struct {
	// Report is told each error that no object bears. It must not block.
	Report func(error)
	// OnChange is called after States has changed, never twice at once.
	OnChange func()
}

// Stats count datagrams.
type Stats struct {
	Sent, Received uint64
	// Dropped are those that were received and not used, by why.
	Dropped map[string]uint64
}

// Exchange speaks for one node. Its methods are safe for concurrent use.
type Exchange struct {
	config Config
	wake   chan struct{}
	listen listener

	mu       sync.Mutex
	node     string
	key      []byte
	own      netip.AddrPort // the zero value where there is nobody to speak to
	peers    map[string]*peer
	planned  []planned
	digests  map[string]uint64 // by node, of what is planned there
	leaving  map[string]leaver // by key
	local    *list             // nil before the first SetLocal
	parts    [][]byte          // local, as it is sent
	start    uint64
	sequence uint64
	version  uint64
	stats    Stats

	dirty  bool // states is of before the last event
	states map[string]State
	again  time.Time // when states may change by themselves

	set     uint64 // counts the states
	settled uint64 // the count at which failure was found
	failure error  // why nothing is sent or heard
}

// peer is another node.
type peer struct {
	name    string
	address netip.AddrPort
	since   time.Time // it is a peer
	heard   time.Time // last
	list    *list

	start, sequence uint64 // of the last datagram
	collecting      collection

	next, last time.Time // to send, and sent
	repeats    int       // to come after a change
	failure    error     // of the last datagram sent
}

// collection is a list of which not all parts have come.
type collection struct {
	start, version uint64
	parts          [][]entry
	have           int
}

// New returns an exchange that knows of no node.
func New(config Config) *Exchange {
	return &Exchange{
		config:  config,
		wake:    make(chan struct{}, 1),
		listen:  listenUDP,
		peers:   map[string]*peer{},
		leaving: map[string]leaver{},
		states:  map[string]State{},
		start:   uint64(time.Now().UnixNano()),
		stats:   Stats{Dropped: map[string]uint64{}},
	}
}

// Set gives the state to hold, and returns at once. The same again means to
// retry now.
func (x *Exchange) Set(state api.State) {
	now := time.Now()
	cluster := api.Cluster{}
	if state.Cluster != nil {
		cluster = *state.Cluster
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.node, x.key = state.Node, slices.Clone(cluster.Key)
	x.setPeers(cluster.Nodes, now)
	x.setPlanned(cluster.Pods, now)
	x.set++
	x.dirty = true
	signal(x.wake)
}

func (x *Exchange) setPeers(nodes []api.Node, now time.Time) {
	own, peers := netip.AddrPort{}, make(map[string]*peer, len(nodes))
	for _, n := range nodes {
		address := netip.AddrPortFrom(n.Address, Port)
		if n.Name == x.node {
			own = address
			continue
		}
		p := x.peers[n.Name]
		if p == nil {
			p = &peer{name: n.Name, since: now, next: now}
		}
		if p.address != address {
			p.address, p.next = address, now
		}
		peers[n.Name] = p
	}
	if len(peers) == 0 {
		own = netip.AddrPort{}
	}
	x.own, x.peers = own, peers
}

func (x *Exchange) setPlanned(pods []api.Pod, now time.Time) {
	before := make(map[string]planned, len(x.planned))
	for _, p := range x.planned {
		before[p.id.key] = p
	}
	x.planned, x.digests = make([]planned, 0, len(pods)), map[string]uint64{}
	for _, p := range pods {
		key := p.Key()
		delete(before, key)
		x.planned = append(x.planned, planned{idOf(key, p.UID), p.Node, p.Grace})
		x.digests[p.Node] += sum(key, p.UID) // in whatever order they come
	}
	for key, p := range before {
		x.leaving[key] = leaver{p, now.Add(p.grace + forget)}
	}
	if x.local != nil && x.local.digest != x.digests[x.node] {
		x.relist(x.local.pods, now)
	}
}

// SetLocal gives the pods that are on this node, and returns at once.
func (x *Exchange) SetLocal(pods []api.PodStatus) {
	listed := make(map[id]State, len(pods))
	for _, p := range pods {
		listed[idOf(p.Key(), p.UID)] = localState(p)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.local != nil && maps.Equal(x.local.pods, listed) {
		return
	}
	x.relist(listed, time.Now())
	x.dirty = true
	signal(x.wake)
}

// relist makes pods the list that is told from now on.
func (x *Exchange) relist(pods map[id]State, now time.Time) {
	x.version++
	x.local = &list{x.start, x.version, x.digests[x.node], pods}
	entries := make([]entry, 0, len(pods))
	for pod, state := range pods {
		entries = append(entries, entry{pod, state})
	}
	sortEntries(entries)
	x.parts = split(entries, maxPayload-overhead("", "")-roomForNames)
	for _, p := range x.peers {
		p.repeats = 2
		p.next = latest(now, p.last.Add(gap))
	}
}

// States is how each pod stands, by its key: those of the state, those that
// have left it until a while after they are gone, and what other nodes have
// beside. It must not be changed.
func (x *Exchange) States() map[string]State {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.refresh(time.Now())
}

func (x *Exchange) refresh(now time.Time) map[string]State {
	if x.dirty || !x.again.IsZero() && !now.Before(x.again) {
		x.states, x.again = x.compute(now)
		x.dirty = false
	}
	return x.states
}

// Stats are counted since the exchange was made.
func (x *Exchange) Stats() Stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	stats := x.stats
	stats.Dropped = maps.Clone(x.stats.Dropped)
	return stats
}

// datagram is one to be sent.
type datagram struct {
	to    *peer
	at    netip.AddrPort
	bytes []byte
}

// due takes what is to be sent at now, and says when there will be more.
func (x *Exchange) due(now time.Time) (out []datagram, next time.Time) {
	for _, p := range x.peers {
		if !p.next.After(now) {
			out = append(out, x.tell(p)...)
			p.last, p.next = now, now.Add(x.pauseAfter(p))
		}
		next = earliest(next, p.next)
	}
	return out, next
}

func (x *Exchange) pauseAfter(p *peer) time.Duration {
	p.repeats--
	switch p.repeats {
	case 1:
		return firstRepeat
	case 0:
		return secondRepeat
	}
	p.repeats = 0
	return interval - interval/10 + rand.N(interval/5)
}

// tell writes the own list to p, beginning with any part: a loss that keeps
// step with us must not always hit the same.
func (x *Exchange) tell(p *peer) []datagram {
	m := message{from: x.node, to: p.name, start: x.start, heard: p.start, version: x.version, digest: x.digests[x.node]}
	if x.local == nil {
		x.sequence++
		m.sequence = x.sequence
		return []datagram{{p, p.address, m.seal(nil, x.key)}}
	}
	m.parts = uint16(len(x.parts))
	out := make([]datagram, 0, len(x.parts))
	first := rand.IntN(len(x.parts))
	for i := range x.parts {
		x.sequence++
		m.sequence, m.part = x.sequence, uint16((first+i)%len(x.parts))
		out = append(out, datagram{p, p.address, m.seal(x.parts[m.part], x.key)})
	}
	return out
}

// receive takes in one datagram.
func (x *Exchange) receive(b []byte, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stats.Received++
	if why := x.accept(b, now); why != "" {
		x.stats.Dropped[why]++
	}
}

// accept says why it does not use a datagram.
func (x *Exchange) accept(b []byte, now time.Time) (why string) {
	m, pods, err := open(b, x.key)
	if err != nil {
		return err.Error()
	}
	p := x.peers[m.from]
	if p == nil || m.to != x.node {
		return "not between nodes of this cluster"
	}
	if m.start < p.start {
		x.answer(p, now) // so that it hears of the later start that was its own
		return "of a process before the last"
	}
	if m.start == p.start && m.sequence <= p.sequence {
		return "late or repeated"
	}
	p.start, p.sequence, p.heard = m.start, m.sequence, now
	switch {
	case m.heard > x.start && m.heard+1 > m.heard:
		// The clock was set back since the process before this one.
		x.start = m.heard + 1
		x.answer(p, now)
	case m.heard < x.start:
		x.answer(p, now)
	}
	if m.parts > 0 && p.collect(m, pods) {
		x.dirty = true
		signal(x.wake)
	}
	return ""
}

// answer lets p be told soon.
func (x *Exchange) answer(p *peer, now time.Time) {
	if soon := latest(now, p.last.Add(answerGap)); soon.Before(p.next) {
		p.next = soon
		signal(x.wake)
	}
}

// collect takes in one part, and says whether the list is new with it.
func (p *peer) collect(m message, pods []byte) bool {
	if p.list != nil && p.list.start == m.start && p.list.version == m.version {
		return false
	}
	c := &p.collecting
	if c.start != m.start || c.version != m.version || len(c.parts) != int(m.parts) {
		*c = collection{m.start, m.version, make([][]entry, m.parts), 0}
	}
	if c.parts[m.part] != nil {
		return false
	}
	entries, err := entriesOf(pods)
	if err != nil {
		return false
	}
	if entries == nil {
		entries = []entry{}
	}
	c.parts[m.part] = entries
	if c.have++; c.have < len(c.parts) {
		return false
	}
	l := &list{m.start, m.version, m.digest, map[id]State{}}
	for _, part := range c.parts {
		for _, e := range part {
			l.pods[e.id] = e.state
		}
	}
	p.list, p.collecting = l, collection{}
	return true
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
