//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"github.com/cilium/ebpf"
)

// entries are what a map holds, both key and value as the kernel has them.
type entries map[string]string

// openMap opens one that the agent has pinned.
func (n *node) openMap(name string) (*ebpf.Map, error) {
	return ebpf.LoadPinnedMap(filepath.Join(n.on.BPFDir(), "maps", name), nil)
}

// readBatch is how many entries are read at once.
const readBatch = 4096

// readAll reads a map; of an array what is not zero.
func readAll(m *ebpf.Map) (entries, error) {
	found := entries{}
	zero := make([]byte, m.ValueSize())
	keys, values := rawSlice(m.KeySize(), readBatch), rawSlice(m.ValueSize(), readBatch)
	var cursor ebpf.MapBatchCursor
	for {
		count, err := m.BatchLookup(&cursor, keys.Interface(), values.Interface(), nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		for i := range count {
			key, value := keys.Index(i).Bytes(), values.Index(i).Bytes()
			if m.Type() != ebpf.Array || !bytes.Equal(value, zero) {
				found[string(key)] = string(value)
			}
		}
		if err != nil || count == 0 {
			return found, nil
		}
	}
}

// rawSlice is a slice of arrays of bytes, as batches of a map take it.
func rawSlice(size uint32, count int) reflect.Value {
	slice := reflect.SliceOf(reflect.ArrayOf(int(size), reflect.TypeFor[byte]()))
	return reflect.MakeSlice(slice, count, count)
}

// keysBeyond are those that others do not have.
func (e entries) keysBeyond(others entries) [][]byte {
	var keys [][]byte
	for key := range e {
		if _, there := others[key]; !there {
			keys = append(keys, []byte(key))
		}
	}
	return keys
}

// changed is a key whose value is another; nil if there is none.
func (e entries) changed(before entries) []byte {
	for key, value := range e {
		if old, there := before[key]; there && old != value {
			return []byte(key)
		}
	}
	return nil
}

// mapCopy is all of one map, to be written into an empty one of its kind.
type mapCopy struct {
	spec         ebpf.MapSpec
	keys, values reflect.Value
}

type mapCopies []mapCopy

// copyMaps reads maps that the agent has pinned.
func (n *node) copyMaps(names ...string) (mapCopies, error) {
	var copies mapCopies
	for _, name := range names {
		m, err := n.openMap(name)
		if err != nil {
			return nil, err
		}
		all, err := readAll(m)
		info, infoErr := m.Info()
		m.Close()
		if err := errors.Join(err, infoErr); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		c := mapCopy{
			spec: ebpf.MapSpec{Type: info.Type, KeySize: info.KeySize, ValueSize: info.ValueSize, MaxEntries: info.MaxEntries, Flags: info.Flags},
			keys: rawSlice(info.KeySize, len(all)), values: rawSlice(info.ValueSize, len(all)),
		}
		i := 0
		for key, value := range all {
			reflect.Copy(c.keys.Index(i), reflect.ValueOf([]byte(key)))
			reflect.Copy(c.values.Index(i), reflect.ValueOf([]byte(value)))
			i++
		}
		copies = append(copies, c)
	}
	return copies, nil
}

// write fills new maps; making them is not in the time.
func (all mapCopies) write() (took time.Duration, err error) {
	for _, c := range all {
		m, err := ebpf.NewMap(&c.spec)
		if err != nil {
			return 0, err
		}
		start := time.Now()
		count, err := m.BatchUpdate(c.keys.Interface(), c.values.Interface(), nil)
		took += time.Since(start)
		m.Close()
		if err != nil || count != c.keys.Len() {
			return 0, fmt.Errorf("write %d entries: %d written: %w", c.keys.Len(), count, err)
		}
	}
	return took, nil
}
