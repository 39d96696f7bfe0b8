package topo

import (
	"fmt"
	"io"
	"os"
	"reflect"
)

// Load reads one topology, checks it as a whole and fills in what the file
// leaves to the defaults. The name is what mistakes call the file. An [Errors]
// holds every mistake of the file; any other error is one of reading.
//
// The file is YAML 1.2 in UTF-8, up to 1 MiB, with IPv4 addresses only.
func Load(name string, r io.Reader) (*Topology, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	s := newSource(name)
	root := s.parse(data)
	if root == nil {
		return nil, s.err()
	}
	t := new(Topology)
	d := &decoder{source: s}
	if d.value(root, reflect.ValueOf(t).Elem(), "") && !d.exhausted && !d.full {
		validate(s, t)
	}
	if err := s.err(); err != nil {
		return nil, err
	}
	t.applyDefaults()
	return t, nil
}

// LoadFile is [Load] for the file at path.
func LoadFile(path string) (*Topology, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the topology: %w", err)
	}
	defer f.Close()
	return Load(path, f)
}
