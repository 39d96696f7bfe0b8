//go:build linux

package migrate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

func integer(size uint32, signed bool) *btf.Int {
	i := &btf.Int{Name: map[uint32]string{1: "u8", 2: "u16", 4: "u32", 8: "u64"}[size], Size: size}
	if signed {
		i.Encoding, i.Name = btf.Signed, "s"+i.Name[1:]
	}
	return i
}

type field struct {
	name string
	kind btf.Type
}

// structure lays fields out one after the other, without padding.
func structure(fields ...field) *btf.Struct {
	s := &btf.Struct{Name: "entry"}
	for _, f := range fields {
		size, err := btf.Sizeof(f.kind)
		if err != nil {
			panic(err)
		}
		s.Members = append(s.Members, btf.Member{Name: f.name, Type: f.kind, Offset: btf.Bits(s.Size * 8)})
		s.Size += uint32(size)
	}
	return s
}

func TestConversion(t *testing.T) {
	u8, u16, u32, s16, s32 := integer(1, false), integer(2, false), integer(4, false), integer(2, true), integer(4, true)
	bytes6 := &btf.Array{Type: u8, Index: u32, Nelems: 6}
	bytes4 := &btf.Array{Type: u8, Index: u32, Nelems: 4}
	enum1 := &btf.Enum{Name: "e", Size: 1, Values: []btf.EnumValue{{Name: "A", Value: 1}}}
	for _, c := range []struct {
		name     string
		from, to btf.Type
		in, out  []byte
		same     bool
		fails    bool
	}{
		{"nothing changed", structure(field{"a", u32}, field{"b", u16}), structure(field{"a", u32}, field{"b", u16}),
			[]byte{1, 2, 3, 4, 5, 6}, []byte{1, 2, 3, 4, 5, 6}, true, false},
		{"a typedef is no change", u32, &btf.Typedef{Name: "be32", Type: u32}, []byte{1, 2, 3, 4}, []byte{1, 2, 3, 4}, true, false},
		{"places changed", structure(field{"a", u32}, field{"b", u16}), structure(field{"b", u16}, field{"a", u32}),
			[]byte{1, 2, 3, 4, 5, 6}, []byte{5, 6, 1, 2, 3, 4}, false, false},
		{"one more", structure(field{"a", u16}), structure(field{"new", u16}, field{"a", u16}),
			[]byte{1, 2}, []byte{0, 0, 1, 2}, false, false},
		{"one less", structure(field{"a", u16}, field{"old", u16}), structure(field{"a", u16}),
			[]byte{1, 2, 3, 4}, []byte{1, 2}, false, false},
		{"another name", structure(field{"pad", u16}), structure(field{"flags", u16}), []byte{9, 9}, []byte{0, 0}, false, false},
		{"wider", structure(field{"a", u16}, field{"b", enum1}), structure(field{"a", u32}, field{"b", u16}),
			[]byte{1, 0xff, 7}, []byte{1, 0xff, 0, 0, 7, 0}, false, false},
		{"wider with a sign", structure(field{"a", s16}), structure(field{"a", s32}),
			[]byte{0xfe, 0xff}, []byte{0xfe, 0xff, 0xff, 0xff}, false, false},
		{"narrower", structure(field{"a", u32}), structure(field{"a", u16}), nil, nil, false, true},
		{"another kind", structure(field{"a", u32}), structure(field{"a", bytes4}), nil, nil, false, true},
		{"arrays", structure(field{"mac", bytes6}, field{"x", u8}), structure(field{"x", u8}, field{"mac", bytes6}),
			[]byte{1, 2, 3, 4, 5, 6, 7}, []byte{7, 1, 2, 3, 4, 5, 6}, false, false},
		{"a longer array", structure(field{"a", bytes4}), structure(field{"a", bytes6}),
			[]byte{1, 2, 3, 4}, []byte{1, 2, 3, 4, 0, 0}, false, false},
		{"inside", structure(field{"in", structure(field{"a", u8}, field{"b", u8})}), structure(field{"in", structure(field{"b", u8}, field{"a", u8})}),
			[]byte{1, 2}, []byte{2, 1}, false, false},
		{"padding of another shape", structure(field{"a", u16}, field{"pad", bytes4}), structure(field{"a", u16}, field{"pad", u8}, field{"b", u8}),
			[]byte{1, 2, 9, 9, 9, 9}, []byte{1, 2, 0, 0}, false, false},
		{"no types", nil, nil, []byte{1, 2}, []byte{1, 2}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			size := func(typ btf.Type, of []byte) int {
				if typ == nil {
					return len(of)
				}
				n, err := btf.Sizeof(typ)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			conversion, err := NewConversion(c.from, c.to, size(c.from, c.in), size(c.to, c.out))
			if c.fails {
				if !errors.Is(err, ErrLayout) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			out := bytes.Repeat([]byte{0xaa}, len(c.out))
			conversion.Apply(out, c.in)
			if !bytes.Equal(out, c.out) || conversion.Same() != c.same {
				t.Errorf("got %v (same: %t), want %v (same: %t)", out, conversion.Same(), c.out, c.same)
			}
		})
	}
	if _, err := NewConversion(nil, u32, 2, 4); !errors.Is(err, ErrLayout) {
		t.Errorf("sizes differ and there are no types: %v", err)
	}
}

func newMap(t *testing.T, spec *ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	m, err := ebpf.NewMap(spec)
	if err != nil {
		t.Fatalf("%v (this test needs root)", err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func entryOf(fields ...uint32) []byte {
	var b []byte
	for _, f := range fields {
		b = binary.LittleEndian.AppendUint32(b, f)
	}
	return b
}

var (
	oldValue = structure(field{"data", integer(4, false)}, field{"seen", integer(4, false)})
	newValue = structure(field{"extra", integer(4, false)}, field{"seen", integer(4, false)}, field{"data", integer(4, false)})
)

const noCommonLRU = 2

func specs(kind ebpf.MapType, flags, oldSize, newSize uint32) (from, to *ebpf.MapSpec) {
	key := integer(4, false)
	return &ebpf.MapSpec{Name: "m", Type: kind, Flags: flags, KeySize: 4, ValueSize: 8, MaxEntries: oldSize, Key: key, Value: oldValue},
		&ebpf.MapSpec{Name: "m", Type: kind, Flags: flags, KeySize: 4, ValueSize: 12, MaxEntries: newSize, Key: key, Value: newValue}
}

func newTestCopier(t *testing.T, from, to *ebpf.MapSpec) *Copier {
	t.Helper()
	old, next := newMap(t, from), newMap(t, to)
	pair, err := NewPair(old, to)
	if err != nil {
		t.Fatal(err)
	}
	if pair.Same() {
		t.Error("the kernel's types are the same as the new ones")
	}
	return NewCopier(old, next, pair)
}

// TestFill carries many entries over, by each type of map, and what comes later.
func TestFill(t *testing.T) {
	const n = 5000
	for _, c := range []struct {
		name  string
		kind  ebpf.MapType
		flags uint32
	}{{"hash", ebpf.Hash, 0}, {"LRU", ebpf.LRUHash, 0}, {"LRU by processor", ebpf.LRUHash, noCommonLRU}, {"array", ebpf.Array, 0}} {
		t.Run(c.name, func(t *testing.T) {
			copier := newTestCopier(t, first(specs(c.kind, c.flags, 3*n, 3*n)), second(specs(c.kind, c.flags, 3*n, 3*n)))
			err := spread(func(next func()) error {
				for i := range uint32(n) {
					if i%100 == 0 {
						next()
					}
					if err := copier.From.Put(i, entryOf(i+1, 7)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := copier.Fill(true); err != nil {
				t.Fatal(err)
			}
			check := func(key uint32, want ...uint32) {
				t.Helper()
				value, err := copier.To.LookupBytes(key)
				if err != nil || !bytes.Equal(value, entryOf(want...)) {
					t.Errorf("%d: %v, %v; want %v", key, value, err, want)
				}
			}
			for i := range uint32(n) {
				check(i, 0, 7, i+1)
			}
			if c.kind == ebpf.Array {
				return
			}
			// The new map is in use: it has one of its own, the old one two more.
			for m, entries := range map[*ebpf.Map]map[uint32][]byte{
				copier.To:   {n: entryOf(5, 5, 5), 3: entryOf(6, 6, 6)},
				copier.From: {n: entryOf(1, 1), n + 1: entryOf(2, 2), 3: entryOf(9, 9)},
			} {
				for key, value := range entries {
					if err := m.Put(key, value); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := copier.FillNew(); err != nil {
				t.Fatal(err)
			}
			check(n, 5, 5, 5)
			check(n+1, 0, 2, 2)
			check(3, 6, 6, 6)
			if err := copier.Fill(true); err != nil {
				t.Fatal(err)
			}
			check(3, 0, 9, 9)
		})
	}
}

func first[T any](a, _ T) T  { return a }
func second[T any](_, b T) T { return b }

// TestShrink: a map that forgets keeps the newest, any other says that it is too
// small.
func TestShrink(t *testing.T) {
	const n = 4096
	for _, flags := range []uint32{0, noCommonLRU} {
		copier := newTestCopier(t, first(specs(ebpf.LRUHash, flags, 4*n, n)), second(specs(ebpf.LRUHash, flags, 4*n, n)))
		for i := range uint32(2 * n) {
			// The ticks wrap half way.
			if err := copier.From.Put(i, entryOf(i, i*2654435761%(2*n)-n)); err != nil {
				t.Fatal(err)
			}
		}
		held := 0
		for i := range uint32(2 * n) {
			if value, _ := copier.From.LookupBytes(i); value != nil {
				held++
			}
		}
		if err := copier.Fill(true); err != nil {
			t.Fatal(err)
		}
		newest, oldest := 0, 0
		for i := range uint32(2 * n) {
			value, err := copier.To.LookupBytes(i)
			if err != nil {
				t.Fatal(err)
			}
			if value == nil {
				continue
			}
			if int32(binary.LittleEndian.Uint32(value[4:])) >= 0 {
				newest++
			} else {
				oldest++
			}
		}
		t.Logf("flags %d: of %d in the old map %d newer ones are kept, and %d older", flags, held, newest, oldest)
		if newest < n*9/10 || oldest > n/10 {
			t.Errorf("flags %d: %d of the newer half and %d of the older are left", flags, newest, oldest)
		}
	}
	for _, kind := range []ebpf.MapType{ebpf.Hash, ebpf.Array} {
		copier := newTestCopier(t, first(specs(kind, 0, 200, 100)), second(specs(kind, 0, 200, 100)))
		for i := range uint32(100) {
			if err := copier.From.Put(i+50, entryOf(1, 1)); err != nil {
				t.Fatal(err)
			}
		}
		err := copier.Fill(true)
		if kind == ebpf.Array && !errors.Is(err, ErrTooSmall) {
			t.Errorf("array: %v", err)
		}
		if kind == ebpf.Hash && err != nil {
			t.Errorf("hash: %v", err)
		}
		if kind == ebpf.Array {
			continue
		}
		if err := copier.From.Put(uint32(7), entryOf(1, 1)); err != nil {
			t.Fatal(err)
		}
		if err := copier.Fill(true); !errors.Is(err, ErrTooSmall) {
			t.Errorf("hash: %v", err)
		}
	}
}

// TestOtherKinds: tries, counters by processor, and maps of maps.
func TestOtherKinds(t *testing.T) {
	trieKey := structure(field{"bits", integer(4, false)}, field{"addr", integer(4, false)})
	trie := func(value *btf.Struct) *ebpf.MapSpec {
		return &ebpf.MapSpec{Name: "t", Type: ebpf.LPMTrie, Flags: 1, KeySize: 8, ValueSize: value.Size, MaxEntries: 10, Key: trieKey, Value: value}
	}
	copier := newTestCopier(t, trie(oldValue), trie(newValue))
	if err := copier.From.Put(entryOf(24, 0x00ffff), entryOf(3, 4)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(copier.Fill(true), copier.FillNew()); err != nil {
		t.Fatal(err)
	}
	if value, err := copier.To.LookupBytes(entryOf(24, 0x00ffff)); err != nil || !bytes.Equal(value, entryOf(0, 4, 3)) {
		t.Errorf("trie: %v, %v", value, err)
	}

	counters := func(value *btf.Struct, size uint32) *ebpf.MapSpec {
		return &ebpf.MapSpec{Name: "c", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: value.Size, MaxEntries: size, Key: integer(4, false), Value: value}
	}
	copier = newTestCopier(t, counters(oldValue, 2), counters(newValue, 3))
	per := make([][8]byte, ebpf.MustPossibleCPU())
	for i := range per {
		per[i] = [8]byte(entryOf(uint32(i+1), 9))
	}
	if err := copier.From.Put(uint32(1), per); err != nil {
		t.Fatal(err)
	}
	if err := copier.Fill(true); err != nil {
		t.Fatal(err)
	}
	var now [][12]byte
	if err := copier.To.Lookup(uint32(1), &now); err != nil {
		t.Fatal(err)
	}
	for i := range now {
		if !bytes.Equal(now[i][:], entryOf(0, 9, uint32(i+1))) {
			t.Errorf("counters of processor %d: %v", i, now[i])
		}
	}

	outer := &ebpf.MapSpec{Name: "o", Type: ebpf.HashOfMaps, KeySize: 4, MaxEntries: 4, Key: integer(4, false),
		InnerMap: &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 8}}
	old, next := newMap(t, outer), newMap(t, outer)
	pair, err := NewPair(old, outer)
	if err != nil {
		t.Fatal(err)
	}
	inner := newMap(t, outer.InnerMap)
	if err := errors.Join(inner.Put(uint32(1), uint32(77)), old.Put(uint32(5), inner)); err != nil {
		t.Fatal(err)
	}
	if err := NewCopier(old, next, pair).Fill(true); err != nil {
		t.Fatal(err)
	}
	var found *ebpf.Map
	var value uint32
	if err := next.Lookup(uint32(5), &found); err != nil || found.Lookup(uint32(1), &value) != nil || value != 77 {
		t.Errorf("inner map: %v, %v, %d", found, err, value)
	}
}
