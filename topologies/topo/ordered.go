package topo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
)

// Map is a mapping of the file that keeps the file's order. In JSON it is an
// object with its keys in that order.
type Map[V any] []Entry[V]

// Entry is one key and its value.
type Entry[V any] struct {
	Name  string
	Value V
}

// Get returns the value of name, and whether there is one.
func (m Map[V]) Get(name string) (V, bool) {
	for _, e := range m {
		if e.Name == name {
			return e.Value, true
		}
	}
	var zero V
	return zero, false
}

// All yields the entries in the file's order.
func (m Map[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, e := range m {
			if !yield(e.Name, e.Value) {
				return
			}
		}
	}
}

// Names returns the keys in the file's order.
func (m Map[V]) Names() []string {
	names := make([]string, len(m))
	for i, e := range m {
		names[i] = e.Name
	}
	return names
}

// MarshalJSON writes an object whose keys keep their order.
func (m Map[V]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(e.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(e.Value)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads an object and keeps the order of its keys.
func (m *Map[V]) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	start, err := dec.Token()
	if err != nil {
		return err
	}
	if start == nil {
		return nil
	}
	if start != json.Delim('{') {
		return fmt.Errorf("want an object, found %v", start)
	}
	*m = nil
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		e := Entry[V]{Name: key.(string)}
		if err := dec.Decode(&e.Value); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		*m = append(*m, e)
	}
	_, err = dec.Token()
	return err
}
