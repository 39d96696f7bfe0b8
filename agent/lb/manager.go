//go:build linux

package lb

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// Retries of what failed are doubled from retryFirst to retryLast.
const (
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
)

// Config is what a [Manager] works with. All but Node may be left out.
type Config struct {
	// Node is the name of the node, as the cluster has it.
	Node string
	// Report is told each error that no object bears. It must not block.
	Report func(error)
	Now    func() time.Time
	// OnAdded hears of addresses that became frontends, after they are in the
	// maps: UDP flows to them from before may be deleted. OnRemoved hears of
	// backends that are in the maps no more: sockets connected to them may be
	// destroyed. What was in the maps when they were opened is no news.
	OnAdded, OnRemoved func([]Address)
}

// Manager keeps the maps of one node in line with the cluster's services. Its
// methods are safe for concurrent use; Run does the work.
type Manager struct {
	config Config
	signal chan struct{}

	inbox struct {
		sync.Mutex
		state     *api.State
		version   uint64 // counts the states
		maps      *Maps
		readiness map[string]Readiness // all, if not nil
		changes   map[string]Readiness // some, after that
	}

	mu       sync.Mutex
	catalog  catalog
	maps     *Maps
	opened   bool // the engine knows what is in the maps
	adopted  bool // backends that departed before were looked for
	verify   bool // the maps are to be read again
	applied  uint64
	ops      operations
	duration time.Duration
}

// New makes a Manager that waits for maps and a state.
func New(config Config) *Manager {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Report == nil {
		config.Report = func(error) {}
	}
	if config.OnAdded == nil {
		config.OnAdded = func([]Address) {}
	}
	if config.OnRemoved == nil {
		config.OnRemoved = func([]Address) {}
	}
	m := &Manager{config: config, signal: make(chan struct{}, 1), ops: make(operations)}
	m.catalog.leaving = make(map[*service]struct{})
	return m
}

// Use gives the maps to write, new or the same again; what they hold is read,
// and taken over.
func (m *Manager) Use(maps Maps) {
	m.inbox.Lock()
	m.inbox.maps = &maps
	m.inbox.Unlock()
	m.Wake()
}

// Set gives the state to hold, and returns at once. The state may not change
// afterwards; slices of the last one that are in it again are known to be equal
// without a look. If nothing in it is new, the maps are read and compared.
func (m *Manager) Set(state api.State) {
	m.inbox.Lock()
	m.inbox.state = &state
	m.inbox.version++
	m.inbox.Unlock()
	m.Wake()
}

// SetReadiness says how all pods are; those that are absent are Unknown. The map
// is the Manager's from now on.
func (m *Manager) SetReadiness(all map[string]Readiness) {
	if all == nil {
		all = make(map[string]Readiness)
	}
	m.inbox.Lock()
	m.inbox.readiness, m.inbox.changes = all, nil
	m.inbox.Unlock()
	m.Wake()
}

// ChangeReadiness says how some pods are now. It costs less than SetReadiness
// where there are thousands.
func (m *Manager) ChangeReadiness(changes map[string]Readiness) {
	m.inbox.Lock()
	if m.inbox.changes == nil {
		m.inbox.changes = make(map[string]Readiness, len(changes))
	}
	maps.Copy(m.inbox.changes, changes)
	m.inbox.Unlock()
	m.Wake()
}

// Wake tries at once what failed.
func (m *Manager) Wake() {
	select {
	case m.signal <- struct{}{}:
	default:
	}
}

// Run works until ctx ends, and leaves everything in place.
func (m *Manager) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var retry time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.signal:
		case <-timer.C:
		}
		wait, healthy := m.pass()
		if healthy {
			retry = 0
		} else {
			retry = min(max(2*retry, retryFirst), retryLast)
			wait = min(cmp.Or(wait, retry), retry)
		}
		timer.Stop()
		if wait > 0 {
			timer.Reset(wait)
		}
	}
}

// pass looks once. It returns how long until something is due, 0 for never, and
// whether all went well.
func (m *Manager) pass() (wait time.Duration, healthy bool) {
	m.mu.Lock()
	now, begun := m.config.Now(), time.Now()
	m.receive(now)
	if m.maps == nil || m.catalog.cluster == nil {
		m.mu.Unlock()
		return 0, true
	}
	if err := m.open(now); err != nil {
		m.mu.Unlock()
		m.config.Report(err)
		return 0, false
	}
	e := m.catalog.engine
	m.catalog.expire(now)
	m.catalog.forget(now)
	e.reclaim(now)
	m.catalog.plan()
	m.adoptionEnds()
	e.program(now)
	added, removed, failure := e.added, e.removed, e.failure
	e.added, e.removed = nil, nil
	wait, healthy = m.due(now)
	m.duration = time.Since(begun)
	m.mu.Unlock()

	if failure != nil {
		m.config.Report(failure)
	}
	if len(added) > 0 {
		slices.Sort(added)
		m.config.OnAdded(slices.Compact(added))
	}
	if len(removed) > 0 {
		m.config.OnRemoved(removed)
	}
	return wait, healthy
}

// receive takes what was set since the last pass.
func (m *Manager) receive(now time.Time) {
	in := &m.inbox
	in.Lock()
	state, version, maps, readiness, changes := in.state, in.version, in.maps, in.readiness, in.changes
	in.state, in.maps, in.readiness, in.changes = nil, nil, nil, nil
	in.Unlock()
	if readiness != nil {
		m.catalog.hear(readiness)
	}
	if changes != nil {
		m.catalog.hearSome(changes)
	}
	if maps != nil {
		m.maps, m.opened = maps, false
	}
	if state != nil {
		changed := m.catalog.take(cmp.Or(m.config.Node, state.Node), state.Cluster, now)
		m.verify = m.verify || !changed
		m.applied = version
	}
}

// open reads the maps, if they are new or to be verified. While something that
// was just left waits to be free nothing is read: maps do not say when that was.
func (m *Manager) open(now time.Time) error {
	c := &m.catalog
	if m.opened && (!m.verify || len(c.limbo) > 0) {
		return nil
	}
	e, err := restore(*m.maps, backendsOf(c.cluster))
	if err != nil {
		return err
	}
	e.ops = m.ops
	c.engine, c.contested, c.starved = e, make(map[Key][]*service), nil
	for _, s := range append(slices.Clone(c.dirty), c.services...) { // those that left are in dirty
		s.frontends, s.held = nil, nil
		c.soil(s)
	}
	if !m.adopted {
		c.adopting, c.allPods, c.until = true, c.cluster.Pods, now.Add(adoptFor)
		if before := e.taking(); len(before) > 0 {
			c.view.before = before
		}
	}
	m.opened, m.verify = true, false
	return nil
}

// adoptionEnds notes who has backends that departed before the agent began.
func (m *Manager) adoptionEnds() {
	if m.adopted {
		return
	}
	m.adopted = true
	m.catalog.adopting, m.catalog.allPods, m.catalog.pods = false, nil, nil
	for _, s := range m.catalog.services {
		if len(s.departed) > 0 {
			m.catalog.leaving[s] = struct{}{}
		}
	}
}

// due is when to look again, and whether nothing failed.
func (m *Manager) due(now time.Time) (wait time.Duration, healthy bool) {
	e := m.catalog.engine
	healthy = e.failure == nil
	sooner := func(at time.Time) {
		if in := max(at.Sub(now), time.Millisecond); wait == 0 || in < wait {
			wait = in
		}
	}
	if len(e.limbo) > 0 {
		sooner(e.limbo[0].due)
	}
	for _, f := range e.work {
		healthy = healthy && f.err == nil && len(e.limbo) > 0
	}
	if m.catalog.view.before != nil {
		sooner(m.catalog.until)
	}
	for s := range m.catalog.leaving {
		for _, d := range s.departed {
			sooner(d.until)
		}
	}
	return wait, healthy
}

// refused is whether an error stays until the topology or the cluster changes.
func refused(err error) bool { return errors.Is(err, ErrFull) || errors.Is(err, errTooMany) }
