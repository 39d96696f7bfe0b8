//go:build linux

package lb

import (
	"math"
	"slices"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// grace is how long what a program may have read stays as it was: programs run
// for microseconds.
const grace = time.Second

// An engine knows what one set of maps holds and changes it. It is not safe for
// concurrent use.
type engine struct {
	maps Maps
	ops  operations

	backends  []backend // by id; the first stands for none
	byAddress map[Address]uint32
	ids       *numberSet // of backends
	used      int        // backends with an id
	unwritten []uint32   // backends whose entry must be written
	idle      []uint32   // backends that nobody may refer to any more

	frontends map[Key]*frontend
	numbers   *numberSet // of frontends
	entries   int        // frontends that are, or may be, in the map
	slots     *slotSpace
	work      []*frontend // those that are not as wanted
	limbo     []retired   // by due

	added   []Address // frontends that were not there before
	removed []Address // backends that are gone
	failure error     // of something that no frontend bears
}

// backend is one entry of the map of backends.
type backend struct {
	address Address
	refs    uint32 // slots, Maglev tables, affinity_match, services
	holders [states]uint32
	state   uint8 // that was written last, as the datapath has it
	live    bool  // the entry has the address, for certain
	sure    bool  // the entry is as the fields say
	queued  bool  // is in unwritten
}

// A frontend is one entry of the map of frontends, and what belongs to its id.
type frontend struct {
	key   Key
	id    uint16 // 0: none yet
	owner *service
	want  *goal // what the owner wants; nil: it is so
	mark  uint64

	current *placement // the entry, nil if there is none
	pending *placement // the entry may be this instead, if unsure
	next    *placement // to be written in this pass
	unsure  bool
	// mixed are backends that slots of current may have beyond its own, because
	// they were written in place.
	mixed []uint32

	// table and match are ids that the Maglev table and affinity_match may
	// hold; each is held for it. The table is table's if tableSure; all of match
	// is there if matchSure.
	table, match         []uint32
	hasTable             bool
	tableSure, matchSure bool

	queued  bool
	stop    bool  // no further step in this pass
	waiting bool  // for slots that others just left
	err     error // of the last pass
}

// A placement is a value of a frontend, and what its slots hold.
type placement struct {
	value    bpf.DatapathFrontend
	backends []uint32
}

func (p *placement) size() uint32 { return rangeSize(len(p.backends)) }

// A goal is what a frontend shall be.
type goal struct {
	flags    uint16
	maglev   bool
	affinity uint32 // ticks
	choice   *choice
	uncut    *choice // where there was no room for more than choice
}

// A choice is an ordered set of backends; frontends share it.
type choice struct {
	backends      []uint32
	count, active int
	table         []uint32 // Maglev's, made when first asked for
}

func (g *goal) value(first uint32, id uint16) bpf.DatapathFrontend {
	v := bpf.DatapathFrontend{
		First: first, Count: uint16(g.choice.count), Qcount: uint16(len(g.choice.backends) - g.choice.count),
		Id: id, Flags: g.flags, Affinity: g.affinity, Algorithm: uint8(bpf.DatapathAlgorithmALGORITHM_RANDOM),
	}
	if g.maglev {
		v.Algorithm = uint8(bpf.DatapathAlgorithmALGORITHM_MAGLEV)
	}
	return v
}

// tableFor are the backends that the Maglev table shall have, matchFor those
// that an affinity may lead to.
func (g *goal) tableFor() []uint32 {
	if !g.maglev {
		return nil
	}
	return g.choice.backends[:g.choice.count]
}

func (g *goal) matchFor() []uint32 {
	if g.flags&flagAffinity == 0 {
		return nil
	}
	return g.choice.backends[:g.choice.active]
}

// placed is whether the entry and its slots are for certain as g wants.
func (f *frontend) placed(g *goal) bool {
	return f.current != nil && !f.unsure && f.mixed == nil && f.id != 0 &&
		f.current.value == g.value(f.current.value.First, f.id) &&
		slices.Equal(f.current.backends, g.choice.backends)
}

// satisfied is whether nothing is to be done for g.
func (f *frontend) satisfied(g *goal) bool {
	if !f.placed(g) {
		return false
	}
	if table := g.tableFor(); len(table) > 0 {
		if !f.tableSure || !slices.Equal(f.table, table) {
			return false
		}
	} else if f.hasTable {
		return false
	}
	match := g.matchFor()
	return len(f.match) == len(match) && (len(match) == 0 || f.matchSure) && len(without(match, f.match)) == 0
}

// mayHaveTwoScopes is whether a program may be sent to the internal half.
func (f *frontend) mayHaveTwoScopes() bool {
	for _, p := range []*placement{f.current, f.pending} {
		if p != nil && p.value.Flags&flagTwoScopes != 0 {
			return true
		}
	}
	return false
}

// retired is what may be used again when it is due.
type retired struct {
	due         time.Time
	first, size uint32
	backends    []uint32 // to be released
	id          uint16   // of a frontend that is gone; 0 for none
}

// service is one service of the state.
type service struct {
	name      serviceName
	spec      *api.Service // nil: it left the state
	frontends []*frontend
	held      []held
	departed  []departed
	conflict  error
	err       error // what no frontend bears
	starved   bool  // a backend has no id
	dirty     bool
}

// held is a backend that a service keeps in the map.
type held struct {
	id    uint32
	state State
}

// newEngine has room for a number of backends before it grows.
func newEngine(maps Maps, room int) *engine {
	return &engine{
		maps:      maps,
		ops:       make(operations),
		byAddress: make(map[Address]uint32, room),
		backends:  make([]backend, 1, room+1),
		ids:       newNumberSet(uint32(max(maps.Backends.Capacity()-1, 0))),
		frontends: make(map[Key]*frontend),
		numbers:   newNumberSet(math.MaxUint16),
		slots:     newSlotSpace(uint32(maps.Slots.Capacity())),
	}
}

// acquire gives a backend its number.
func (e *engine) acquire(address Address) (uint32, bool) {
	if id, ok := e.byAddress[address]; ok {
		return id, true
	}
	id, ok := e.ids.take()
	if !ok {
		return 0, false
	}
	e.at(id).address = address
	e.byAddress[address] = id
	e.used++
	return id, true
}

// at is the record of an id, which may be new.
func (e *engine) at(id uint32) *backend {
	if grow := int(id) + 1 - len(e.backends); grow > 0 {
		e.backends = append(e.backends, make([]backend, grow)...)
	}
	return &e.backends[id]
}

func (e *engine) hold(ids []uint32) {
	for _, id := range ids {
		e.backends[id].refs++
	}
}

func (e *engine) release(ids []uint32) {
	for _, id := range ids {
		b := &e.backends[id]
		if b.refs--; b.refs == 0 {
			e.idle = append(e.idle, id)
		}
	}
}

// keep and unkeep are hold and release for services, which say the state too.
func (e *engine) keep(all []held) {
	for _, h := range all {
		e.backends[h.id].refs++
		e.backends[h.id].holders[h.state]++
		e.touch(h.id)
	}
}

func (e *engine) unkeep(all []held) {
	for _, h := range all {
		e.backends[h.id].holders[h.state]--
		e.release([]uint32{h.id})
		e.touch(h.id)
	}
}

// wanted is the state that a backend shall have: the most useful that a service
// gives it, or what it has if none does any more.
func (b *backend) wanted() uint8 {
	for state, holders := range b.holders {
		if holders > 0 {
			return State(state).wire()
		}
	}
	return b.state
}

// touch has the entry written if that is needed.
func (e *engine) touch(id uint32) {
	b := &e.backends[id]
	if !b.queued && (!b.sure || b.state != b.wanted()) {
		b.queued = true
		e.unwritten = append(e.unwritten, id)
	}
}

func (e *engine) queue(f *frontend) {
	if !f.queued {
		f.queued = true
		e.work = append(e.work, f)
	}
}

// retire puts away what programs may still use.
func (e *engine) retire(now time.Time, r retired) {
	if r.size > 0 || len(r.backends) > 0 || r.id != 0 {
		r.due = now.Add(grace)
		e.limbo = append(e.limbo, r)
	}
}

// retirePlacement puts away one placement of a frontend. Slots that the one which
// stays has too are not free.
func (e *engine) retirePlacement(now time.Time, p, stays *placement) {
	r := retired{first: p.value.First, size: p.size(), backends: p.backends}
	if stays != nil && stays.value.First == r.first {
		shared := min(r.size, stays.size())
		r.first, r.size = r.first+shared, r.size-shared
	}
	e.retire(now, r)
}

// moved puts away what a frontend had before its entry was written for certain.
func (e *engine) moved(now time.Time, f *frontend, from *placement) {
	if from != nil {
		e.retirePlacement(now, from, f.current)
	}
	e.retire(now, retired{backends: f.mixed})
	f.mixed = nil
}

// reclaim makes what is due free.
func (e *engine) reclaim(now time.Time) {
	n := 0
	for _, r := range e.limbo {
		if now.Before(r.due) {
			break
		}
		e.slots.give(r.first, r.size)
		e.release(r.backends)
		if r.id != 0 {
			e.numbers.give(uint32(r.id))
		}
		n++
	}
	if e.limbo = slices.Delete(e.limbo, 0, n); len(e.limbo) == 0 {
		e.limbo = nil
	}
}
