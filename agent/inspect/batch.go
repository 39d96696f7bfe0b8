//go:build linux

package inspect

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// batchSize is how many entries one system call reads at first.
const batchSize = 4096

// into reads a whole map into *found.
func into[Key comparable, Value any](m *Maps, name string, found *[]Entry[Key, Value]) error {
	opened, err := m.open(name)
	if err != nil {
		return err
	}
	defer opened.Close()
	if *found, err = dump[Key, Value](opened); err != nil {
		return fmt.Errorf("read the map %s: %w", name, err)
	}
	return nil
}

// dump reads a whole map, in batches where the kernel has them for its type.
func dump[Key comparable, Value any](m *ebpf.Map) ([]Entry[Key, Value], error) {
	found := []Entry[Key, Value]{}
	err := batches(m, func(key Key, value Value) bool {
		found = append(found, Entry[Key, Value]{key, value})
		return true
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return iterate[Key, Value](m)
	}
	return found, err
}

// batches gives every entry to visit until that answers false. A bucket of a
// hash map is read at one time, so no entry that stays is missed or seen twice,
// whatever is added and removed meanwhile.
func batches[Key, Value any](m *ebpf.Map, visit func(Key, Value) bool) error {
	size := min(batchSize, int(m.MaxEntries()))
	keys, values := make([]Key, size), make([]Value, size)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, unix.ENOSPC) { // a bucket holds more than fit
			size *= 2
			keys, values = make([]Key, size), make([]Value, size)
			continue
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for i := range n {
			if !visit(keys[i], values[i]) {
				return nil
			}
		}
		if err != nil {
			return nil // that was the last batch
		}
	}
}

// iterate reads key by key. If the key that was read last goes away meanwhile
// the kernel begins again, so entries are told apart by their keys.
func iterate[Key comparable, Value any](m *ebpf.Map) ([]Entry[Key, Value], error) {
	for range tries {
		seen := make(map[Key]Value)
		var key Key
		var value Value
		entries := m.Iterate()
		for entries.Next(&key, &value) {
			seen[key] = value
		}
		err := entries.Err()
		if errors.Is(err, ebpf.ErrIterationAborted) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found := make([]Entry[Key, Value], 0, len(seen))
		for key, value := range seen {
			found = append(found, Entry[Key, Value]{key, value})
		}
		return found, nil
	}
	return nil, fmt.Errorf("it changed while it was read, %d times in a row (try again)", tries)
}

// array gives the entries of an array below end to visit; of all where end is 0.
func array[Value any](m *Maps, name string, end uint32, visit func(uint32, Value)) error {
	opened, err := m.open(name)
	if err != nil {
		return err
	}
	defer opened.Close()
	end = min(end, opened.MaxEntries())
	if end == 0 {
		end = opened.MaxEntries()
	}
	err = batches(opened, func(index uint32, value Value) bool {
		if index >= end {
			return false
		}
		visit(index, value)
		return true
	})
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return wrapRead(name, err)
	}
	for index := range end {
		var value Value
		if err := opened.Lookup(index, &value); err != nil {
			return wrapRead(name, err)
		}
		visit(index, value)
	}
	return nil
}

func wrapRead(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read the map %s: %w", name, err)
}
