//go:build linux

package lb

import (
	"fmt"
	"slices"
	"time"

	"github.com/native-routing/labctl/bpf"
)

// removeEntries deletes frontends of one scope that nobody wants.
func (e *engine) removeEntries(now time.Time, work []*frontend, internal bool) {
	var todo []*frontend
	var keys []bpf.DatapathFrontendKey
	for _, f := range work {
		if f.owner != nil || f.stop || f.current == nil || f.key.Internal() != internal {
			continue
		}
		if external := e.frontends[f.key.Address().scoped(scopeExternal)]; internal && external != nil && external.mayHaveTwoScopes() {
			f.stop, f.waiting = true, true
			continue
		}
		f.unsure = true
		todo = append(todo, f)
		keys = append(keys, f.key.wire())
	}
	remove(e.ops, e.maps.Frontends, keys, func(i int, err error) { todo[i].fail("delete", err) })
	for _, f := range todo {
		if f.stop {
			continue
		}
		from := f.current
		e.entries--
		f.current, f.unsure = nil, false
		e.moved(now, f, from)
	}
}

// stale is whether what a frontend has beyond what it wants can go: no program
// that begins now reads it.
func (f *frontend) stale() bool {
	if f.stop || f.unsure {
		return false
	}
	return f.owner == nil && f.current == nil || f.want != nil && f.placed(f.want)
}

func (e *engine) cleanMatches(now time.Time, work []*frontend) {
	var owners []*frontend
	var keys []bpf.DatapathAffinityMatchKey
	for _, f := range work {
		if !f.stale() {
			continue
		}
		var keep []uint32
		if f.want != nil {
			keep = f.want.matchFor()
		}
		for _, id := range without(f.match, keep) {
			owners = append(owners, f)
			keys = append(keys, bpf.DatapathAffinityMatchKey{Backend: id, Service: f.id})
		}
	}
	kept := make([]bool, len(keys))
	remove(e.ops, e.maps.AffinityMatch, keys, func(i int, err error) {
		kept[i], owners[i].matchSure = true, false
		owners[i].err = fmt.Errorf("delete affinity_match of %v: %w", owners[i].key, err)
	})
	for i, f := range owners {
		if !kept[i] {
			gone := []uint32{keys[i].Backend}
			f.match = without(f.match, gone)
			e.retire(now, retired{backends: gone})
		}
	}
}

func (e *engine) cleanTables(now time.Time, work []*frontend) {
	for _, f := range work {
		if !f.hasTable || !f.stale() || f.want != nil && len(f.want.tableFor()) > 0 {
			continue
		}
		f.tableSure = false
		var failure error
		remove(e.ops, e.maps.Maglev, []uint32{uint32(f.id)}, func(_ int, err error) { failure = err })
		if failure != nil {
			f.err = fmt.Errorf("delete the Maglev table of %v: %w", f.key, failure)
			continue
		}
		e.retire(now, retired{backends: f.table})
		f.table, f.hasTable = nil, false
	}
}

// finish forgets a frontend that is gone, and what was wanted of one that is so
// now. The others stay in work.
func (e *engine) finish(now time.Time, f *frontend) {
	switch {
	case f.owner != nil && f.want == nil:
	case f.owner != nil && f.want.uncut == nil && f.satisfied(f.want):
		f.want.choice.table = nil
		f.want, f.err = nil, nil
	case f.owner == nil && f.current == nil && !f.unsure && len(f.match) == 0 && !f.hasTable:
		delete(e.frontends, f.key)
		e.retire(now, retired{id: f.id, backends: f.mixed})
	default:
		e.queue(f)
	}
}

// zero removes backends that nothing refers to any more.
func (e *engine) zero() {
	var ids []uint32
	for _, id := range e.idle {
		if b := &e.backends[id]; b.refs == 0 && b.address != 0 {
			ids = append(ids, id)
			b.live, b.sure = false, false
		}
	}
	e.idle = nil
	if len(ids) == 0 {
		return
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	kept := make([]bool, len(ids))
	update(e.ops, e.maps.Backends, ids, make([]bpf.DatapathBackend, len(ids)), func(i int, err error) {
		kept[i] = true
		e.failure = fmt.Errorf("remove backend %v: %w", e.backends[ids[i]].address, err)
	})
	for i, id := range ids {
		if kept[i] {
			e.idle = append(e.idle, id)
			continue
		}
		b := &e.backends[id]
		if e.byAddress[b.address] == id {
			delete(e.byAddress, b.address)
			e.removed = append(e.removed, b.address)
		}
		*b = backend{queued: b.queued}
		e.ids.give(id)
		e.used--
	}
}
