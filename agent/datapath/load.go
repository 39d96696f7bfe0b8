//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/datapath/migrate"
	"github.com/native-routing/labctl/bpf"
)

// source is where programs come from: package bpf, but for tests.
type source struct {
	digest func(bpf.Options) (string, error)
	spec   func(bpf.Options) (*ebpf.CollectionSpec, error)
}

// loaded is a datapath in the kernel.
type loaded struct {
	maps     Maps
	programs map[string]*ebpf.Program
	digest   string
}

// loader puts the datapath into the kernel and its pins into a directory.
type loader struct {
	pins   pins
	source source
	hooks  *hooks
	// step is called between steps; an error ends the load there and then, as
	// the death of the process would.
	step func(string) error
	// turned says that programs were exchanged, or may have been: there is no
	// way back then, only on.
	turned bool
}

// isState says whether the programs write a map; the others are the agent's.
func isState(name string) bool {
	switch name {
	case bpf.Flows, bpf.MoreFlows, bpf.NATs, bpf.Fragments, bpf.Sockets, bpf.Affinities:
		return true
	default:
		return false
	}
}

// load makes the datapath for o: what is pinned is taken over, and replaced
// where it differs. Attached programs are replaced too, new ones not attached.
func (l *loader) load(o bpf.Options, programs []string) (*loaded, error) {
	digest, err := l.source.digest(o)
	if err != nil {
		return nil, err
	}
	if err := l.pins.make(); err != nil {
		return nil, err
	}
	now := &loaded{digest: digest, maps: Maps{ByName: map[string]*ebpf.Map{}, Clock: o.Features.Clock(), Options: o}}
	if l.reuse(now, programs) {
		l.turned = true
		if err := l.hooks.turn(now.programs, l.step); err != nil {
			return nil, err
		}
		return now, l.tidy(now)
	}
	spec, err := l.source.spec(o)
	if err != nil {
		return nil, err
	}
	for name := range spec.Programs {
		if !slices.Contains(programs, name) {
			delete(spec.Programs, name)
		}
	}
	plans, err := l.prepare(spec)
	if err != nil {
		return nil, err
	}
	for name, plan := range plans {
		now.maps.ByName[name] = plan.target
	}
	if err := l.replace(now, spec, plans); err != nil {
		return nil, err
	}
	return now, l.commit(now, plans)
}

// reuse opens what is pinned if it is all there, and just what would be loaded.
func (l *loader) reuse(now *loaded, programs []string) bool {
	names, err := l.pins.list(mapsDir)
	if err != nil || len(names) == 0 {
		return false
	}
	known := make(map[ebpf.MapID]bool)
	maps := make(map[string]*ebpf.Map)
	for _, name := range names {
		m, err := ebpf.LoadPinnedMap(l.pins.path(mapsDir, name), nil)
		if err != nil || strings.Contains(name, "~") {
			return false
		}
		id, ok := mapID(m)
		if !ok {
			return false
		}
		known[id] = true
		maps[name] = m
	}
	for _, name := range allMaps {
		if maps[name] == nil {
			return false
		}
	}
	found := make(map[string]*ebpf.Program)
	for _, name := range programs {
		program, err := ebpf.LoadPinnedProgram(l.pins.path(programsDir, name+"@"+now.digest), nil)
		if err != nil || !usesOnly(program, known) {
			return false
		}
		found[name] = program
	}
	now.maps.ByName, now.programs = maps, found
	return true
}

// allMaps are those without which a datapath is not whole.
var allMaps = []string{
	bpf.Frontends, bpf.Slots, bpf.Backends, bpf.Maglev, bpf.Affinities, bpf.AffinityMatch,
	bpf.Endpoints, bpf.Addresses, bpf.IPCache, bpf.Nonmasquerade, bpf.Devices, bpf.Flows,
	bpf.MoreFlows, bpf.Recents, bpf.Epochs, bpf.Handover, bpf.NATs, bpf.Fragments, bpf.Sockets, bpf.Metrics, bpf.Settings, bpf.Events,
}

func mapID(m *ebpf.Map) (ebpf.MapID, bool) {
	info, err := m.Info()
	if err != nil {
		return 0, false
	}
	return info.ID()
}

// usesOnly says whether a program has no maps but these, and its constants.
func usesOnly(program *ebpf.Program, known map[ebpf.MapID]bool) bool {
	info, err := program.Info()
	if err != nil {
		return false
	}
	ids, ok := info.MapIDs()
	others := 0
	for _, id := range ids {
		if !known[id] {
			others++
		}
	}
	return ok && others <= 1
}

// mapPlan is how one map comes to be.
type mapPlan struct {
	target *ebpf.Map
	pin    string // the name it is pinned by
	fresh  bool   // made just now
	from   []*migrate.Copier
	stale  []string // pins to remove in the end
}

// prepare finds or makes every map, and pins those that are new.
func (l *loader) prepare(spec *ebpf.CollectionSpec) (map[string]*mapPlan, error) {
	pinned, err := l.pins.list(mapsDir)
	if err != nil {
		return nil, err
	}
	used, err := l.hooks.mapsInUse()
	if err != nil {
		return nil, err
	}
	if err := l.step("prepare"); err != nil {
		return nil, err
	}
	plans := make(map[string]*mapPlan)
	for name, wanted := range spec.Maps {
		if strings.HasPrefix(name, ".") { // constants: part of the programs
			continue
		}
		plan, err := l.prepareMap(name, wanted, pinned, used)
		if err != nil {
			return nil, err
		}
		plans[name] = plan
		if plan.fresh && len(plan.from) > 0 {
			if err := l.step("successor " + name); err != nil {
				return nil, err
			}
		}
	}
	return plans, nil
}

// candidate is a pinned map that may be taken over or copied.
type candidate struct {
	name string
	m    *ebpf.Map
	pair migrate.Pair
}

func (l *loader) prepareMap(name string, wanted *ebpf.MapSpec, pinned []string, used map[ebpf.MapID]bool) (*mapPlan, error) {
	candidates, last, err := l.candidates(name, wanted, pinned, used)
	if err != nil {
		return nil, err
	}
	plan := &mapPlan{}
	for i, c := range candidates {
		if takeable(wanted, c) {
			plan.target, plan.pin = c.m, c.name
			candidates = slices.Delete(candidates, i, i+1)
			break
		}
	}
	if plan.target == nil {
		plan.fresh, plan.pin = true, name
		if len(candidates) > 0 {
			plan.pin = name + "~" + strconv.Itoa(last+1)
		}
		if plan.target, err = ebpf.NewMap(wanted); err != nil {
			return nil, fmt.Errorf("make map %s: %w", name, err)
		}
		if err := l.pins.put(mapsDir, plan.pin, plan.target); err != nil {
			return nil, err
		}
	}
	for _, c := range candidates {
		if name != bpf.Recents { // copies, which may be void by the time they arrive
			plan.from = append(plan.from, migrate.NewCopier(c.m, plan.target, c.pair))
		}
		if c.name != name {
			plan.stale = append(plan.stale, c.name)
		}
	}
	return plan, nil
}

// candidates are the pins of a map, newest first: successors in use, then the
// map itself. Successors that nobody uses are removed. last is the highest
// number of a successor that is left.
func (l *loader) candidates(name string, wanted *ebpf.MapSpec, pinned []string, used map[ebpf.MapID]bool) (found []candidate, last int, err error) {
	numbers := make(map[string]int)
	for _, pin := range pinned {
		base, number, successor := strings.Cut(pin, "~")
		if base != name {
			continue
		}
		numbers[pin] = 0
		m, err := ebpf.LoadPinnedMap(l.pins.path(mapsDir, pin), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, 0, fmt.Errorf("open map %s: %w", pin, err)
		}
		if successor {
			numbers[pin], _ = strconv.Atoi(number)
			if id, ok := mapID(m); ok && !used[id] {
				if err := l.pins.remove(mapsDir, pin); err != nil {
					return nil, 0, err
				}
				continue
			}
		}
		pair, err := migrate.NewPair(m, wanted)
		if err != nil {
			return nil, 0, err
		}
		last = max(last, numbers[pin])
		found = append(found, candidate{pin, m, pair})
	}
	slices.SortFunc(found, func(a, b candidate) int { return numbers[b.name] - numbers[a.name] })
	return found, last, nil
}

// takeable says whether a pinned map is just what is wanted.
func takeable(wanted *ebpf.MapSpec, c candidate) bool {
	if wanted.Compatible(c.m) != nil || !c.pair.Same() {
		return false
	}
	if wanted.InnerMap == nil {
		return true
	}
	// Only by trying it can be told what maps a map of maps takes.
	inner, err := ebpf.NewMap(wanted.InnerMap)
	if err != nil {
		return false
	}
	defer inner.Close()
	key := uint32(math.MaxUint32)
	err = c.m.Put(key, inner)
	if err == nil {
		err = c.m.Delete(key)
	}
	return !errors.Is(err, unix.EINVAL)
}

// replace loads the programs with the maps and puts them in place of those that
// are attached.
func (l *loader) replace(now *loaded, spec *ebpf.CollectionSpec, plans map[string]*mapPlan) error {
	if err := l.fill(plans, true); err != nil {
		return err
	}
	if err := l.step("filled"); err != nil {
		return err
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: now.maps.ByName})
	if err != nil {
		return fmt.Errorf("load the programs: %w", err)
	}
	for _, m := range collection.Maps { // clones, and the constants
		_ = m.Close()
	}
	now.programs = collection.Programs
	for name, program := range now.programs {
		if err := l.pins.put(programsDir, name+"@"+now.digest, program); err != nil {
			return err
		}
	}
	if err := l.step("loaded"); err != nil {
		return err
	}
	if err := l.fill(plans, false); err != nil {
		return err
	}
	if err := fillNew(plans); err != nil { // so that as little as can be is on its way
		return err
	}
	if err := now.handOver(plans, handoverTime); err != nil {
		return err
	}
	if err := l.step("handover"); err != nil {
		return err
	}
	l.turned = true
	if err := l.hooks.turn(now.programs, l.step); err != nil {
		return err
	}
	if err := l.step("turned"); err != nil {
		return err
	}
	if err := fillNew(plans); err != nil {
		return err
	}
	if err := now.handOver(plans, 0); err != nil {
		return err
	}
	return l.step("copied")
}

// handoverTime is more than it takes to turn all links of a busy node. It counts
// only where the agent dies at it.
const handoverTime = 5 * time.Second

// handOver has programs wait with connections that they do not know, where those
// before them keep them in other maps: for at most that long, 0 ends it.
func (now *loaded) handOver(plans map[string]*mapPlan, most time.Duration) error {
	moves := false
	for name, plan := range plans {
		moves = moves || isState(name) && len(plan.from) > 0
	}
	if !moves {
		return nil
	}
	var until uint32
	if most > 0 {
		tick, err := now.maps.Clock.Now()
		if err != nil {
			return err
		}
		until = tick + now.maps.Clock.Ticks(most)
	}
	if err := now.maps.Map(bpf.Handover).Put(uint32(0), until); err != nil {
		return fmt.Errorf("tell the programs of their exchange: %w", err)
	}
	return nil
}

// fillNew copies what came into the maps that lose their place since the last
// fill.
func fillNew(plans map[string]*mapPlan) error {
	for name, plan := range plans {
		for _, copier := range plan.from {
			if err := copier.FillNew(); err != nil {
				return tooSmall(name, plan, err)
			}
		}
	}
	return nil
}

// fill copies into the maps that take another's place. The first time that is
// all; the second time what has changed, and in maps that nobody uses yet.
func (l *loader) fill(plans map[string]*mapPlan, first bool) error {
	for name, plan := range plans {
		if !first && !plan.fresh {
			continue
		}
		overwrite := plan.fresh || !isState(name)
		from := slices.Clone(plan.from) // newest first
		if overwrite {
			slices.Reverse(from) // the last one wins
		}
		for _, copier := range from {
			if err := copier.Fill(overwrite); err != nil {
				return tooSmall(name, plan, err)
			}
		}
	}
	return nil
}

func tooSmall(name string, plan *mapPlan, err error) error {
	if errors.Is(err, migrate.ErrTooSmall) {
		return &mapError{name, full(name, plan.target.MaxEntries())}
	}
	return &mapError{name, err}
}

// mapError is one that concerns a map.
type mapError struct {
	name string
	err  error
}

func (e *mapError) Error() string { return e.err.Error() }
func (e *mapError) Unwrap() error { return e.err }

// commit gives successors their names, and removes what nothing needs.
func (l *loader) commit(now *loaded, plans map[string]*mapPlan) error {
	for name, plan := range plans {
		if plan.pin != name {
			if err := os.Rename(l.pins.path(mapsDir, plan.pin), l.pins.path(mapsDir, name)); err != nil {
				return fmt.Errorf("put map %s in place: %w", name, err)
			}
			if err := l.step("renamed " + name); err != nil {
				return err
			}
		}
		for _, pin := range plan.stale {
			if err := l.pins.remove(mapsDir, pin); err != nil {
				return err
			}
		}
		plan.from = nil
	}
	return l.tidy(now)
}

// tidy removes the pins of programs that are not these.
func (l *loader) tidy(now *loaded) error {
	names, err := l.pins.list(programsDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		program, digest, _ := strings.Cut(name, "@")
		if digest == now.digest && now.programs[program] != nil {
			continue
		}
		if err := l.pins.remove(programsDir, name); err != nil {
			return err
		}
	}
	return nil
}
