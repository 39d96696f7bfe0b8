//go:build linux

package migrate

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"reflect"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// batch is how many entries cross in one system call.
const batch = 1024

// ErrTooSmall is a new map that does not hold what is in the old one, and may
// not forget any of it.
var ErrTooSmall = errors.New("the new map is too small")

// Copier fills a map from another. It remembers what it has copied, so that the
// last of several passes costs little.
type Copier struct {
	From, To *ebpf.Map
	Pair     Pair

	seed  maphash.Seed
	known map[uint64]struct{}
}

// NewCopier copies from one map to another, of the same type or of a similar one.
func NewCopier(from, to *ebpf.Map, pair Pair) *Copier {
	return &Copier{From: from, To: to, Pair: pair, seed: maphash.MakeSeed(), known: make(map[uint64]struct{})}
}

// Fill copies everything; overwrite says whether entries that are there already
// are replaced. A map that forgets (LRU) keeps the newest; of any other
// ErrTooSmall says that not everything fits.
func (c *Copier) Fill(overwrite bool) error {
	var err error
	switch kind := c.To.Type(); kind {
	case ebpf.RingBuf:
		return nil
	case ebpf.Array:
		err = c.array()
	case ebpf.PerCPUArray:
		err = c.perCPUArray()
	case ebpf.HashOfMaps:
		err = c.innerMaps()
	case ebpf.LPMTrie:
		err = c.oneByOne(overwrite)
	case ebpf.Hash, ebpf.LRUHash:
		err = c.hash(overwrite)
	default:
		err = fmt.Errorf("entries of a %v cannot be copied", kind)
	}
	if err != nil {
		return fmt.Errorf("copy %v to %v: %w", c.From, c.To, err)
	}
	return nil
}

// FillNew copies what came into the old map since the last Fill and is not in
// the new one. Arrays are left alone: what is there has always been there.
func (c *Copier) FillNew() error {
	switch c.To.Type() {
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie:
	default:
		return nil
	}
	err := c.each(func(key, value []byte) error {
		if _, ok := c.known[maphash.Bytes(c.seed, key)]; ok {
			return nil
		}
		return c.put(key, value, false)
	})
	if err != nil {
		return fmt.Errorf("copy what is new in %v to %v: %w", c.From, c.To, err)
	}
	return nil
}

// put enters one entry, given in the old layout.
func (c *Copier) put(key, value []byte, overwrite bool) error {
	newKey, newValue := make([]byte, c.Pair.Key.To), make([]byte, c.Pair.Value.To)
	c.Pair.Key.Apply(newKey, key)
	c.Pair.Value.Apply(newValue, value)
	flags := ebpf.UpdateAny
	if !overwrite {
		flags = ebpf.UpdateNoExist
	}
	err := c.To.Update(newKey, newValue, flags)
	switch {
	case errors.Is(err, ebpf.ErrKeyExist):
		return nil
	case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ENOSPC):
		return ErrTooSmall
	}
	return err
}

// each visits the entries of the old map, one by one for tries.
func (c *Copier) each(visit func(key, value []byte) error) error {
	if c.From.Type() == ebpf.LPMTrie {
		return c.eachOne(visit)
	}
	return c.chunks(func(keys, values []byte, n int) error {
		for i := range n {
			k, v := i*c.Pair.Key.From, i*c.Pair.Value.From
			if err := visit(keys[k:k+c.Pair.Key.From], values[v:v+c.Pair.Value.From]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *Copier) eachOne(visit func(key, value []byte) error) error {
	key, value := make([]byte, c.Pair.Key.From), make([]byte, c.Pair.Value.From)
	each := c.From.Iterate()
	for each.Next(&key, &value) {
		if err := visit(key, value); err != nil {
			return err
		}
	}
	return each.Err()
}

// block is n elements of a size that is known only now, as one piece of memory
// and as the slice that the batch calls want.
func block(n, size int) (raw []byte, elements any) {
	value := reflect.MakeSlice(reflect.SliceOf(reflect.ArrayOf(size, reflect.TypeFor[byte]())), n, n)
	return bytesOf(value, n*size), value.Interface()
}

func bytesOf(slice reflect.Value, length int) []byte {
	if length == 0 {
		return nil
	}
	return reflect.NewAt(reflect.ArrayOf(length, reflect.TypeFor[byte]()), slice.UnsafePointer()).Elem().Slice(0, length).Bytes()
}

// chunks reads the old map, many entries at a time.
func (c *Copier) chunks(visit func(keys, values []byte, n int) error) error {
	size := batch
	keys, keyBlock := block(size, c.Pair.Key.From)
	values, valueBlock := block(size, c.Pair.Value.From)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := c.From.BatchLookup(&cursor, keyBlock, valueBlock, nil)
		if errors.Is(err, unix.ENOSPC) && size < 1<<20 { // a bucket that is fuller than that
			size *= 2
			keys, keyBlock = block(size, c.Pair.Key.From)
			values, valueBlock = block(size, c.Pair.Value.From)
			continue
		}
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return err
		}
		if err := visit(keys, values, n); err != nil || last {
			return err
		}
	}
}

// hash copies in batches, and spreads them over the processors: an LRU map with
// a list for each takes only its share from one.
func (c *Copier) hash(overwrite bool) error {
	clear(c.known)
	if c.To.Type() == ebpf.LRUHash && c.From.MaxEntries() > c.To.MaxEntries() {
		return c.newest(overwrite)
	}
	return spread(func(next func()) error {
		return c.chunks(func(keys, values []byte, n int) error {
			next()
			return c.write(keys, values, n, overwrite)
		})
	})
}

// write enters n entries, given in the old layout.
func (c *Copier) write(keys, values []byte, n int, overwrite bool) error {
	for i := range n {
		c.known[maphash.Bytes(c.seed, keys[i*c.Pair.Key.From:(i+1)*c.Pair.Key.From])] = struct{}{}
	}
	if n == 0 {
		return nil
	}
	if overwrite {
		newKeys, keyBlock := block(n, c.Pair.Key.To)
		newValues, valueBlock := block(n, c.Pair.Value.To)
		for i := range n {
			c.Pair.Key.Apply(newKeys[i*c.Pair.Key.To:(i+1)*c.Pair.Key.To], keys[i*c.Pair.Key.From:(i+1)*c.Pair.Key.From])
			c.Pair.Value.Apply(newValues[i*c.Pair.Value.To:(i+1)*c.Pair.Value.To], values[i*c.Pair.Value.From:(i+1)*c.Pair.Value.From])
		}
		if _, err := c.To.BatchUpdate(keyBlock, valueBlock, nil); err == nil {
			return nil
		}
		// One of them was refused: find out which, and why.
	}
	for i := range n {
		err := c.put(keys[i*c.Pair.Key.From:(i+1)*c.Pair.Key.From], values[i*c.Pair.Value.From:(i+1)*c.Pair.Value.From], overwrite)
		if err != nil {
			return err
		}
	}
	return nil
}

// newest copies as many as fit, those last that were seen last.
func (c *Copier) newest(overwrite bool) error {
	type entry struct{ key, value []byte }
	var all []entry
	err := c.chunks(func(keys, values []byte, n int) error {
		for i := range n {
			all = append(all, entry{
				bytes.Clone(keys[i*c.Pair.Key.From : (i+1)*c.Pair.Key.From]),
				bytes.Clone(values[i*c.Pair.Value.From : (i+1)*c.Pair.Value.From]),
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if at := c.Pair.Seen; at >= 0 && len(all) > 0 {
		seen := func(e entry) uint32 { return binary.LittleEndian.Uint32(e.value[at:]) }
		first := seen(all[0]) // ticks wrap: compare by distance
		slices.SortStableFunc(all, func(a, b entry) int {
			return cmp.Compare(int32(seen(a)-first), int32(seen(b)-first))
		})
	}
	if surplus := len(all) - int(c.To.MaxEntries()); surplus > 0 {
		all = all[surplus:]
	}
	return spread(func(next func()) error {
		for _, e := range all {
			next()
			if err := c.write(e.key, e.value, 1, overwrite); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *Copier) oneByOne(overwrite bool) error {
	clear(c.known)
	return c.each(func(key, value []byte) error {
		c.known[maphash.Bytes(c.seed, key)] = struct{}{}
		return c.put(key, value, overwrite)
	})
}

// array copies index by index; an entry of zeros is one that is free.
func (c *Copier) array() error {
	limit := c.To.MaxEntries()
	return c.each(func(key, value []byte) error {
		if len(bytes.Trim(value, "\x00")) == 0 {
			return nil
		}
		if binary.NativeEndian.Uint32(key) >= limit {
			return ErrTooSmall
		}
		return c.put(key, value, true)
	})
}

func (c *Copier) perCPUArray() error {
	for index := range min(c.From.MaxEntries(), c.To.MaxEntries()) {
		old := reflect.New(reflect.SliceOf(reflect.ArrayOf(c.Pair.Value.From, reflect.TypeFor[byte]())))
		if err := c.From.Lookup(index, old.Interface()); err != nil {
			return err
		}
		n := old.Elem().Len()
		raw, values := block(n, c.Pair.Value.To)
		for i, was := range bytesEach(old.Elem(), n, c.Pair.Value.From) {
			c.Pair.Value.Apply(raw[i*c.Pair.Value.To:(i+1)*c.Pair.Value.To], was)
		}
		if err := c.To.Put(index, values); err != nil {
			return err
		}
	}
	return nil
}

func bytesEach(slice reflect.Value, n, size int) [][]byte {
	raw := bytesOf(slice, n*size)
	all := make([][]byte, n)
	for i := range all {
		all[i] = raw[i*size : (i+1)*size]
	}
	return all
}

// innerMaps enters the inner maps themselves. One that the new outer map does
// not take is left out: its owner makes it anew.
func (c *Copier) innerMaps() error {
	key := make([]byte, c.Pair.Key.From)
	var id uint32
	each := c.From.Iterate()
	for each.Next(&key, &id) {
		inner, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			continue // replaced meanwhile
		}
		newKey := make([]byte, c.Pair.Key.To)
		c.Pair.Key.Apply(newKey, key)
		err = c.To.Put(newKey, inner)
		_ = inner.Close()
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return each.Err()
}

// spread runs work on one thread that moves to another processor with each call
// of next.
func spread(work func(next func()) error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its affinity
		var all, one unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil || all.Count() < 2 {
			done <- work(func() {})
			return
		}
		cpu := -1
		done <- work(func() {
			for {
				cpu = (cpu + 1) % (len(all) * 64)
				if all.IsSet(cpu) {
					break
				}
			}
			one.Zero()
			one.Set(cpu)
			_ = unix.SchedSetaffinity(0, &one) // stays where it is: one share of the map fills more
		})
	}()
	return <-done
}
