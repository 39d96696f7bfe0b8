//go:build linux

package lb

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/bpf"
)

// KernelMaps are the maps of a loaded datapath, by their names in package bpf.
// They stay the caller's, who closes them when they are used no more.
func KernelMaps(maps map[string]*ebpf.Map, clock bpf.Clock) (Maps, error) {
	for _, name := range []string{bpf.Frontends, bpf.Slots, bpf.Backends, bpf.Maglev, bpf.AffinityMatch} {
		if maps[name] == nil {
			return Maps{}, fmt.Errorf("the datapath has no map %s", name)
		}
	}
	return Maps{
		Frontends:     newKernelTable[bpf.DatapathFrontendKey, bpf.DatapathFrontend](bpf.Frontends, maps),
		Slots:         newKernelTable[uint32, bpf.DatapathSlot](bpf.Slots, maps),
		Backends:      newKernelTable[uint32, bpf.DatapathBackend](bpf.Backends, maps),
		Maglev:        &maglevTables{kernel: maps[bpf.Maglev], size: bpf.DefaultMaglevSize},
		AffinityMatch: newKernelTable[bpf.DatapathAffinityMatchKey, uint8](bpf.AffinityMatch, maps),
		Clock:         clock,
		MaglevSize:    bpf.DefaultMaglevSize,
	}, nil
}

// kernelTable is a map of plain keys and values. K and V are laid out as the
// map has them.
type kernelTable[K comparable, V any] struct {
	name   string
	kernel *ebpf.Map
}

func newKernelTable[K comparable, V any](name string, maps map[string]*ebpf.Map) *kernelTable[K, V] {
	return &kernelTable[K, V]{name: name, kernel: maps[name]}
}

func (t *kernelTable[K, V]) Name() string  { return t.name }
func (t *kernelTable[K, V]) Capacity() int { return int(t.kernel.MaxEntries()) }

func (t *kernelTable[K, V]) Lookup(key K) (value V, err error) {
	err = t.kernel.Lookup(&key, &value)
	return value, err
}

func (t *kernelTable[K, V]) Update(keys []K, values []V) (int, error) {
	done, err := 0, ebpf.ErrNotSupported
	if len(keys) > 1 {
		done, err = t.kernel.BatchUpdate(keys, values, nil)
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		done, err = singly(len(keys), func(i int) error { return t.kernel.Put(&keys[i], &values[i]) })
	}
	return outcome(done, len(keys), err)
}

func (t *kernelTable[K, V]) Delete(keys []K) (int, error) {
	done := 0
	for done < len(keys) {
		n, err := t.delete(keys[done:])
		if n, err = outcome(n, len(keys)-done, err); err == nil {
			return len(keys), nil
		}
		done += n
		if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return done, err
		}
		done++ // this one is absent
	}
	return done, nil
}

func (t *kernelTable[K, V]) delete(keys []K) (int, error) {
	if len(keys) > 1 {
		if n, err := t.kernel.BatchDelete(keys, nil); !errors.Is(err, ebpf.ErrNotSupported) {
			return n, err
		}
	}
	return singly(len(keys), func(i int) error { return t.kernel.Delete(&keys[i]) })
}

// singly is a batch for kernels and maps that have none.
func singly(count int, do func(i int) error) (int, error) {
	for i := range count {
		if err := do(i); err != nil {
			return i, err
		}
	}
	return count, nil
}

// outcome turns the kernel's answer into a Table's. A call that failed before it
// began leaves the count as it was given.
func outcome(done, count int, err error) (int, error) {
	if err == nil {
		return count, nil
	}
	if done >= count {
		done = 0
	}
	if errors.Is(err, unix.E2BIG) {
		err = ErrFull
	}
	return done, err
}

// dumpBatch is how many entries are read at once; more than any bucket of a
// hash has.
const dumpBatch = 4096

func (t *kernelTable[K, V]) Dump(yield func(K, V) bool) error {
	keys, values := make([]K, dumpBatch), make([]V, dumpBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := t.kernel.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			return t.dumpSingly(yield)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for i := range n {
			if !yield(keys[i], values[i]) {
				return nil
			}
		}
		if err != nil || n == 0 {
			return nil
		}
	}
}

func (t *kernelTable[K, V]) dumpSingly(yield func(K, V) bool) error {
	var key K
	var value V
	entries := t.kernel.Iterate()
	for entries.Next(&key, &value) {
		if !yield(key, value) {
			return nil
		}
	}
	return entries.Err()
}

// maglevTables is the map of Maglev tables: each is a map of its own.
type maglevTables struct {
	kernel *ebpf.Map
	size   uint32
}

func (t *maglevTables) Name() string  { return bpf.Maglev }
func (t *maglevTables) Capacity() int { return int(t.kernel.MaxEntries()) }

func (t *maglevTables) Lookup(key uint32) ([]uint32, error) {
	var inner *ebpf.Map
	if err := t.kernel.Lookup(&key, &inner); err != nil {
		return nil, err
	}
	defer inner.Close()
	values := make([]uint32, 0, t.size)
	table := &kernelTable[uint32, uint32]{kernel: inner}
	err := table.Dump(func(_, backend uint32) bool {
		values = append(values, backend)
		return true
	})
	return values, err
}

func (t *maglevTables) Update(keys []uint32, values [][]uint32) (int, error) {
	done, err := singly(len(keys), func(i int) error { return t.put(keys[i], values[i]) })
	return outcome(done, len(keys), err)
}

// put makes a whole table before anybody sees it.
func (t *maglevTables) put(key uint32, values []uint32) error {
	inner, err := ebpf.NewMap(bpf.MaglevTable(t.size))
	if err != nil {
		return err
	}
	defer inner.Close()
	indices := make([]uint32, len(values))
	for i := range indices {
		indices[i] = uint32(i)
	}
	table := &kernelTable[uint32, uint32]{kernel: inner}
	if _, err := table.Update(indices, values); err != nil {
		return err
	}
	return t.kernel.Put(&key, inner)
}

func (t *maglevTables) Delete(keys []uint32) (int, error) {
	return singly(len(keys), func(i int) error {
		if err := t.kernel.Delete(&keys[i]); !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		return nil
	})
}

func (t *maglevTables) Dump(yield func(uint32, []uint32) bool) error {
	var ids []uint32
	var id, inner uint32
	entries := t.kernel.Iterate()
	for entries.Next(&id, &inner) {
		ids = append(ids, id)
	}
	if err := entries.Err(); err != nil {
		return err
	}
	for _, id := range ids {
		values, err := t.Lookup(id)
		if err != nil {
			return err
		}
		if !yield(id, values) {
			return nil
		}
	}
	return nil
}
