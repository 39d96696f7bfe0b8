//go:build linux

package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// ErrNoDatapath means that no maps are pinned where they were looked for.
var ErrNoDatapath = errors.New("no datapath is loaded on this node")

// tries bounds how often what changed while it was read is read again.
const tries = 8

// Maps are a node's pinned maps. It reads only, and may be used by many at once.
type Maps struct {
	dir string
	// clock is learnt once: that takes some milliseconds.
	clock func() (bpf.Clock, error)
}

// Open finds the maps below pinDir/maps. The error is [ErrNoDatapath] where
// there are none. A map is opened when it is read and closed at once, so an
// upgrade of the datapath is seen by the next read.
func Open(pinDir string) (*Maps, error) {
	m := &Maps{dir: filepath.Join(pinDir, "maps"), clock: sync.OnceValues(learnClock)}
	frontends, err := m.open(bpf.Frontends)
	if err != nil {
		return nil, err
	}
	return m, frontends.Close()
}

func (m *Maps) open(name string) (*ebpf.Map, error) {
	opened, err := ebpf.LoadPinnedMap(filepath.Join(m.dir, name), &ebpf.LoadPinOptions{ReadOnly: true})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w (no map %s)", ErrNoDatapath, filepath.Join(m.dir, name))
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("open %s: %w (reading the kernel's maps needs root)", filepath.Join(m.dir, name), fs.ErrPermission)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", filepath.Join(m.dir, name), err)
	}
	return opened, nil
}

// ServiceTable reads the frontends for the agent's API. Names are services' keys
// by frontend id; they may be nil.
func (m *Maps) ServiceTable(names map[uint16]string) (api.ServiceTable, error) {
	d := new(Dump)
	if err := m.readServices(d); err != nil {
		return api.ServiceTable{}, err
	}
	return d.ServiceTable(names), nil
}

// Read reads maps by their names in package bpf. Slots and Backends come with
// Frontends, at one time: no service is seen in the middle of a change. Read
// without names reads all.
func (m *Maps) Read(names ...string) (*Dump, error) {
	d := new(Dump)
	readers := m.readers(d)
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(readers))
	}
	for _, name := range names {
		read, ok := readers[name]
		if !ok {
			return nil, fmt.Errorf("read the map %s: there is none of that name", name)
		}
		if err := read(); err != nil {
			return nil, err
		}
	}
	if timed(names) {
		var err error
		if d.Time, err = m.now(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// timed says whether any of the maps holds ticks.
func timed(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return name == bpf.Flows || name == bpf.NATs || name == bpf.Frontends
	})
}

func learnClock() (bpf.Clock, error) {
	features, err := bpf.Probe()
	if err != nil {
		return bpf.Clock{}, fmt.Errorf("learn the datapath's clock: %w", err)
	}
	return features.Clock(), nil
}

func (m *Maps) now() (Time, error) {
	clock, err := m.clock()
	if err != nil {
		return Time{}, err
	}
	t := Time{Clock: clock}
	if t.Tick, err = t.Clock.Now(); err != nil {
		return Time{}, err
	}
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &since); err != nil {
		return Time{}, fmt.Errorf("read CLOCK_MONOTONIC: %w", err)
	}
	t.Since = time.Duration(since.Nano())
	return t, nil
}

func (m *Maps) readers(d *Dump) map[string]func() error {
	return map[string]func() error{
		bpf.Frontends:     func() error { return m.readServices(d) },
		bpf.Backends:      func() (err error) { d.Backends, err = m.readBackends(); return },
		bpf.Endpoints:     func() (err error) { d.Endpoints, err = m.readEndpoints(); return },
		bpf.Maglev:        func() (err error) { d.Maglev, err = m.readKeys(bpf.Maglev); return },
		bpf.Affinities:    func() error { return into(m, bpf.Affinities, &d.Affinities) },
		bpf.AffinityMatch: func() error { return into(m, bpf.AffinityMatch, &d.AffinityMatch) },
		bpf.IPCache:       func() error { return into(m, bpf.IPCache, &d.IPCache) },
		bpf.Nonmasquerade: func() error { return into(m, bpf.Nonmasquerade, &d.Nonmasquerade) },
		bpf.Devices:       func() error { return into(m, bpf.Devices, &d.Devices) },
		bpf.Flows:         func() error { return errors.Join(into(m, bpf.Flows, &d.Flows), into(m, bpf.MoreFlows, &d.MoreFlows)) },
		bpf.NATs:          func() error { return into(m, bpf.NATs, &d.NATs) },
		bpf.Fragments:     func() error { return into(m, bpf.Fragments, &d.Fragments) },
		bpf.Sockets:       func() error { return into(m, bpf.Sockets, &d.Sockets) },
		bpf.Metrics:       func() (err error) { d.Metrics, err = m.readMetrics(); return },
	}
}

// ReadSizes is how many entries each map can hold, sorted by name.
func (m *Maps) ReadSizes() ([]Size, error) {
	var sizes []Size
	for name, shown := range ciliumNames {
		opened, err := m.open(name)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, Size{Name: shown, Size: opened.MaxEntries()})
		if err := opened.Close(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(sizes, func(a, b Size) int { return cmp.Compare(a.Name, b.Name) })
	return sizes, nil
}

func (m *Maps) readBackends() (map[uint32]bpf.DatapathBackend, error) {
	backends := make(map[uint32]bpf.DatapathBackend)
	err := array(m, bpf.Backends, 0, func(id uint32, b bpf.DatapathBackend) {
		if id != 0 && b.Addr != 0 {
			backends[id] = b
		}
	})
	return backends, err
}

func (m *Maps) readEndpoints() (map[uint32]bpf.DatapathEndpoint, error) {
	endpoints := make(map[uint32]bpf.DatapathEndpoint)
	err := array(m, bpf.Endpoints, 0, func(id uint32, e bpf.DatapathEndpoint) {
		if id != 0 && e.Addr != 0 {
			endpoints[id] = e
		}
	})
	return endpoints, err
}

func (m *Maps) readMetrics() ([]Entry[uint32, bpf.DatapathMetric], error) {
	opened, err := m.open(bpf.Metrics)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	var found []Entry[uint32, bpf.DatapathMetric]
	for index := range opened.MaxEntries() {
		var perCPU []bpf.DatapathMetric
		if err := opened.Lookup(index, &perCPU); err != nil {
			return nil, fmt.Errorf("read the map %s: %w", bpf.Metrics, err)
		}
		var sum bpf.DatapathMetric
		for _, value := range perCPU {
			sum.Packets += value.Packets
			sum.Bytes += value.Bytes
		}
		if sum.Packets != 0 {
			found = append(found, Entry[uint32, bpf.DatapathMetric]{Key: index, Value: sum})
		}
	}
	return found, nil
}

// readKeys reads the keys of a map whose values are maps.
func (m *Maps) readKeys(name string) ([]uint32, error) {
	opened, err := m.open(name)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	found := make(map[uint32]struct{})
	var key, next uint32
	var from any
	for range opened.MaxEntries() {
		err := opened.NextKey(from, &next)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the map %s: %w", name, err)
		}
		found[next] = struct{}{}
		key = next
		from = &key
	}
	return slices.Sorted(maps.Keys(found)), nil
}
