//go:build linux

// Package migrate copies the entries of one eBPF map into another whose entries
// may be laid out differently, by the names of their members.
package migrate

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// ErrLayout is a pair of types that entries cannot be carried over between.
var ErrLayout = errors.New("layouts do not match")

// Conversion turns keys or values of one layout into another: what has the same
// name in both is copied, what is new is 0. Integers and enums may become wider.
type Conversion struct {
	From, To int // sizes in bytes
	steps    []step
	moved    bool
}

// step copies length bytes, and fills the rest of width with the sign or zeros.
type step struct {
	from, to      int
	length, width int
	signed        bool
}

// NewConversion compares two types; either may be nil where a map has none, and
// then sizes must agree.
func NewConversion(from, to btf.Type, fromSize, toSize int) (*Conversion, error) {
	c := &Conversion{From: fromSize, To: toSize}
	if from == nil || to == nil {
		if fromSize != toSize {
			return nil, fmt.Errorf("%d bytes to %d, and no types to go by: %w", fromSize, toSize, ErrLayout)
		}
		c.steps = []step{{length: fromSize, width: fromSize}}
		return c, nil
	}
	if err := c.add(from, to, 0, 0, ""); err != nil {
		return nil, err
	}
	c.moved = c.moved || fromSize != toSize
	return c, nil
}

// Same says that both layouts are one: nothing moved, and nothing is new.
func (c *Conversion) Same() bool { return !c.moved }

// Apply converts in, From bytes, to To bytes in out.
func (c *Conversion) Apply(out, in []byte) {
	clear(out)
	for _, s := range c.steps {
		copy(out[s.to:s.to+s.length], in[s.from:s.from+s.length])
		if s.signed && s.width > s.length && in[s.from+s.length-1]&0x80 != 0 {
			for i := s.to + s.length; i < s.to+s.width; i++ {
				out[i] = 0xff // the objects are little-endian
			}
		}
	}
}

func (c *Conversion) add(from, to btf.Type, fromAt, toAt int, name string) error {
	from, to = btf.UnderlyingType(from), btf.UnderlyingType(to)
	c.moved = c.moved || fromAt != toAt
	switch to := to.(type) {
	case *btf.Struct:
		if from, ok := from.(*btf.Struct); ok {
			return c.addMembers(from, to, fromAt, toAt, name)
		}
	case *btf.Array:
		if from, ok := from.(*btf.Array); ok {
			return c.addElements(from, to, fromAt, toAt, name)
		}
	default:
		fromSize, signed, ok := scalar(from)
		toSize, _, wanted := scalar(to)
		if ok && wanted {
			if fromSize > toSize {
				return fmt.Errorf("%s shrinks from %d bytes to %d: %w", name, fromSize, toSize, ErrLayout)
			}
			c.moved = c.moved || fromSize != toSize
			c.steps = append(c.steps, step{fromAt, toAt, fromSize, toSize, signed})
			return nil
		}
	}
	return fmt.Errorf("%s changes from %v to %v: %w", name, from, to, ErrLayout)
}

// padding is the name of members that hold nothing. They are 0 whatever they
// were, and may change their shape.
const padding = "pad"

// samePlace says whether two members take the same bytes of their structures.
func samePlace(a, b btf.Member) bool {
	sizeA, errA := btf.Sizeof(a.Type)
	sizeB, errB := btf.Sizeof(b.Type)
	return errA == nil && errB == nil && a.Offset == b.Offset && sizeA == sizeB
}

func (c *Conversion) addMembers(from, to *btf.Struct, fromAt, toAt int, name string) error {
	old := make(map[string]btf.Member, len(from.Members))
	for _, m := range from.Members {
		old[m.Name] = m
	}
	found := 0
	for _, m := range to.Members {
		was, ok := old[m.Name]
		if !ok || m.Name == padding && !samePlace(was, m) {
			c.moved = true
			continue
		}
		if m.Name == padding {
			found++
			continue
		}
		if m.BitfieldSize != 0 || was.BitfieldSize != 0 {
			return fmt.Errorf("%s.%s is a bit field: %w", name, m.Name, ErrLayout)
		}
		found++
		err := c.add(was.Type, m.Type, fromAt+int(was.Offset.Bytes()), toAt+int(m.Offset.Bytes()), name+"."+m.Name)
		if err != nil {
			return err
		}
	}
	c.moved = c.moved || found < len(from.Members)
	return nil
}

func (c *Conversion) addElements(from, to *btf.Array, fromAt, toAt int, name string) error {
	fromSize, err := btf.Sizeof(from.Type)
	if err != nil {
		return err
	}
	toSize, err := btf.Sizeof(to.Type)
	if err != nil {
		return err
	}
	c.moved = c.moved || from.Nelems != to.Nelems
	for i := range int(min(from.Nelems, to.Nelems)) {
		if err := c.add(from.Type, to.Type, fromAt+i*fromSize, toAt+i*toSize, name); err != nil {
			return err
		}
	}
	return nil
}

// scalar is the size of what is copied as one piece.
func scalar(t btf.Type) (size int, signed, ok bool) {
	switch t := t.(type) {
	case *btf.Int:
		return int(t.Size), t.Encoding == btf.Signed, true
	case *btf.Enum:
		return int(t.Size), t.Signed, true
	case *btf.Union:
		return int(t.Size), false, true
	case *btf.Float:
		return int(t.Size), false, true
	default:
		return 0, false, false
	}
}

// Pair converts whole entries.
type Pair struct {
	Key, Value *Conversion
	// Seen is where in an old value a u32 named seen is, by which entries are
	// told from newer ones; -1 if there is none.
	Seen int
}

// Same says that entries need no conversion.
func (p Pair) Same() bool { return p.Key.Same() && p.Value.Same() }

// NewPair compares a map with what is wanted in its place.
func NewPair(old *ebpf.Map, spec *ebpf.MapSpec) (Pair, error) {
	key, value, err := Types(old)
	if err != nil {
		return Pair{}, err
	}
	p := Pair{Seen: -1}
	if p.Key, err = NewConversion(key, spec.Key, int(old.KeySize()), int(spec.KeySize)); err != nil {
		return Pair{}, fmt.Errorf("key of map %s: %w", spec.Name, err)
	}
	size := spec.ValueSize
	if spec.Type == ebpf.HashOfMaps || spec.Type == ebpf.ArrayOfMaps {
		value, size = nil, 4
		p.Value, err = NewConversion(nil, nil, int(old.ValueSize()), int(size))
	} else {
		p.Value, err = NewConversion(value, spec.Value, int(old.ValueSize()), int(size))
	}
	if err != nil {
		return Pair{}, fmt.Errorf("value of map %s: %w", spec.Name, err)
	}
	if s, ok := btf.UnderlyingType(value).(*btf.Struct); ok {
		for _, m := range s.Members {
			if size, err := btf.Sizeof(m.Type); m.Name == "seen" && err == nil && size == 4 {
				p.Seen = int(m.Offset.Bytes())
			}
		}
	}
	return p, nil
}
