//go:build linux

package lb

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/native-routing/labctl/bpf"
)

// Table is one map. A call that fails may have had its effect, all of it or a
// part, beyond what it says was done.
type Table[K comparable, V any] interface {
	// Name is the map's, and Capacity how many entries it can have; an array has
	// them all, from 0.
	Name() string
	Capacity() int
	// Lookup fails with ErrAbsent where there is no entry.
	Lookup(key K) (V, error)
	// Update writes entries in order. The first done are written for certain. A
	// new entry that finds no room fails with ErrFull.
	Update(keys []K, values []V) (done int, err error)
	// Delete removes entries; one that is absent already is no error. Arrays
	// cannot.
	Delete(keys []K) (done int, err error)
	// Dump calls yield for every entry, in the order of keys for an array, until
	// it returns false.
	Dump(yield func(K, V) bool) error
}

var (
	// ErrAbsent is that of a Lookup that finds nothing.
	ErrAbsent = ebpf.ErrKeyNotExist
	// ErrFull is that of an Update that finds no room.
	ErrFull = errors.New("map is full")
)

// Maps are the maps of one datapath, and how it tells time. A table in Maglev
// has MaglevSize entries.
type Maps struct {
	Frontends     Table[bpf.DatapathFrontendKey, bpf.DatapathFrontend]
	Slots         Table[uint32, bpf.DatapathSlot]
	Backends      Table[uint32, bpf.DatapathBackend]
	Maglev        Table[uint32, []uint32]
	AffinityMatch Table[bpf.DatapathAffinityMatchKey, uint8]
	Clock         bpf.Clock
	MaglevSize    uint32
}

// FullError is ErrFull for one map, and says what to do.
type FullError struct {
	Map     string
	Entries int
	// Setting is the key of the topology that makes it larger.
	Setting string
}

// Error names the map and the setting.
func (e *FullError) Error() string {
	return fmt.Sprintf("map %s is full (%d entries): raise %s in the topology", e.Map, e.Entries, e.Setting)
}

// Is matches ErrFull.
func (e *FullError) Is(target error) bool { return target == ErrFull }

func full(name string, entries int) error {
	setting := "cluster.mapSizes.services"
	switch name {
	case bpf.Backends:
		setting = "cluster.mapSizes.backends"
		entries-- // entry 0 stands for none
	case bpf.AffinityMatch:
		setting = "cluster.mapSizes.backends"
	}
	return &FullError{Map: name, Entries: entries, Setting: setting}
}

// Operation is what was done to a map; Outcome is success or fail.
type Operation struct{ Map, Operation, Outcome string }

// operations counts entries.
type operations map[Operation]uint64

func (o operations) add(table, operation string, done int, err error) {
	if done > 0 {
		o[Operation{table, operation, "success"}] += uint64(done)
	}
	if err != nil {
		o[Operation{table, operation, "fail"}]++
	}
}

// maxFaults is how many entries of one batch may fail before the rest is left
// for the next time.
const maxFaults = 16

// each applies call to entries in order, past those that fail: call takes what
// begins at an index, and says how many it did. failed hears of each entry that
// was not done for certain.
func each(count int, call func(from int) (int, error), failed func(i int, err error)) {
	for from, faults := 0, 0; from < count; {
		done, err := call(from)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrFull) { // others may be there already, and fit
			faults++
		}
		from += min(done, count-from-1)
		failed(from, err)
		from++
		if faults == maxFaults {
			for ; from < count; from++ {
				failed(from, err)
			}
		}
	}
}

// update writes keys and values in as few calls as possible.
func update[K comparable, V any](ops operations, t Table[K, V], keys []K, values []V, failed func(i int, err error)) {
	each(len(keys), func(from int) (int, error) {
		done, err := t.Update(keys[from:], values[from:])
		if err == nil {
			done = len(keys) - from
		}
		ops.add(t.Name(), "update", done, err)
		if errors.Is(err, ErrFull) {
			err = full(t.Name(), t.Capacity())
		}
		return done, err
	}, failed)
}

// remove deletes keys in as few calls as possible.
func remove[K comparable, V any](ops operations, t Table[K, V], keys []K, failed func(i int, err error)) {
	each(len(keys), func(from int) (int, error) {
		done, err := t.Delete(keys[from:])
		if err == nil {
			done = len(keys) - from
		}
		ops.add(t.Name(), "delete", done, err)
		return done, err
	}, failed)
}

// union adds to a what only b has.
func union(a, b []uint32) (all, added []uint32) {
	for _, id := range b {
		if !slices.Contains(a, id) {
			added = append(added, id)
		}
	}
	return append(a, added...), added
}

// without is what of a is not in b.
func without(a, b []uint32) []uint32 {
	var left []uint32
	for _, id := range a {
		if !slices.Contains(b, id) {
			left = append(left, id)
		}
	}
	return left
}
