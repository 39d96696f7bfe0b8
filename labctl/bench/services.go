//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// The goals for services.
const (
	programGoal    = 0.050
	changeGoal     = 0.001
	manyMemoryGoal = 40.0
)

const (
	manyServices = 10000
	// graceTime is more than what the agent waits before what was removed is free.
	graceTime    = 1500 * time.Millisecond
	programLimit = 10 * time.Second
	programPoll  = 50 * time.Microsecond
)

// passMetric is how long the agent took to compile what changed, and to write it.
const passMetric = "labctl_balancer_pass_seconds"

// programTimes are what the rounds measure.
type programTimes struct {
	whole, pass, raw, encode, decode, store samples // all services
	change, changePass                      samples // one among them
	size                                    int     // of the JSON
}

// measureServices gives an agent many services, as one state and as a change of one.
func measureServices(ctx context.Context, r *rig) ([]Row, error) {
	n, err := r.newNode(ctx, false)
	if err != nil {
		return nil, err
	}
	defer n.close()
	var times programTimes
	if err := n.programRounds(ctx, r.fewer(5), &times); err != nil {
		return nil, err
	}
	if err := n.changeRounds(ctx, r.rounds, &times); err != nil {
		return nil, err
	}
	rss, private, err := r.agentMemory(ctx, []string{oneNode})
	if err != nil {
		return nil, err
	}
	rows := times.rows()
	more, err := balancerAlone(ctx)
	if err != nil {
		return nil, err
	}
	rows = append(rows, more...)
	rows = append(rows,
		Row{What: "agent: RSS with 10,000 services, after those changes", Unit: MiB, Ours: rss.spread()}.atMost(manyMemoryGoal),
		Row{What: "  of it private (the executable is shared by all agents and pods)", Unit: MiB, Ours: private.spread()})
	if err := r.down(ctx, n.lab); err != nil {
		return nil, err
	}
	return rows, r.kernel.settle(ctx)
}

func (t *programTimes) rows() []Row {
	const rawIs = "the same entries into the same kinds of maps, by batches"
	size := fmt.Sprintf("%.1f MiB", float64(t.size)/(1<<20))
	return []Row{
		timed("10,000 services x 3 backends, PutState until in the maps", t.whole).against(t.raw, rawIs).atMost(programGoal),
		timed("  of it decode "+size+" of JSON (the same here)", t.decode),
		timed("  of it encode it for the disk (the same here)", t.encode),
		timed("  of it write it to the disk, synced (the same here)", t.store),
		timed("  of it compile, and write the maps (the agent's own clock)", t.pass).against(t.raw, rawIs),
		timed("one service among 10,000, PutState until in the map", t.change),
		timed("  of it compare, compile and write the map (the agent's own clock)", t.changePass),
	}
}

// fill gives the agent more services, and waits until they are in the maps.
func (n *node) fill(ctx context.Context, services int) error {
	before, err := n.frontends()
	if err != nil {
		return err
	}
	state, err := json.Marshal(n.with("filled", services))
	if err != nil {
		return err
	}
	if err := n.put(ctx, state); err != nil {
		return err
	}
	_, err = n.await(ctx, len(before)+services)
	return err
}

// frontends are the entries of the agent's map.
func (n *node) frontends() (entries, error) {
	m, err := n.openMap("frontends")
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return readAll(m)
}

// await waits until the map of frontends has just that many entries.
func (n *node) await(ctx context.Context, want int) (entries, error) {
	found := entries{}
	for start := time.Now(); time.Since(start) < programLimit; {
		var err error
		if found, err = n.frontends(); err != nil {
			return nil, err
		}
		if len(found) == want {
			return found, nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the map of frontends has %d entries after %s, want %d", len(found), programLimit, want)
}

func (n *node) programRounds(ctx context.Context, rounds int, times *programTimes) error {
	none, err := json.Marshal(n.with("none", 0))
	if err != nil {
		return err
	}
	many, err := json.Marshal(n.with("many", manyServices))
	if err != nil {
		return err
	}
	times.size = len(many)
	before, err := n.frontends()
	if err != nil {
		return err
	}
	// The first round shows which keys are to come; it does not count.
	if err := n.put(ctx, many); err != nil {
		return err
	}
	after, err := n.await(ctx, len(before)+manyServices)
	if err != nil {
		return err
	}
	keys := after.keysBeyond(before)
	raw, err := n.copyMaps("backends", "slots", "frontends")
	if err != nil {
		return err
	}
	for range rounds {
		if err := n.put(ctx, none); err != nil {
			return err
		}
		if _, err := n.await(ctx, len(before)); err != nil {
			return err
		}
		if err := pause(ctx, graceTime); err != nil {
			return err
		}
		if err := shares(filepath.Join(n.on.Dir(), "bench"), many, times); err != nil {
			return err
		}
		took, err := raw.write()
		if err != nil {
			return err
		}
		times.raw = append(times.raw, took.Seconds())
		if err := n.programRound(ctx, many, keys, times); err != nil {
			return err
		}
		if _, err := n.await(ctx, len(after)); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) programRound(ctx context.Context, state []byte, keys [][]byte, times *programTimes) error {
	took, err := n.programmed(ctx, state, keys)
	if err != nil {
		return err
	}
	times.whole = append(times.whole, took.Seconds())
	pass, err := n.metric(ctx, passMetric)
	times.pass = append(times.pass, pass)
	return err
}

// programmed is the time from a state that is sent to the last of its frontends,
// and to the agent's answer.
func (n *node) programmed(ctx context.Context, state []byte, keys [][]byte) (time.Duration, error) {
	m, err := n.openMap("frontends")
	if err != nil {
		return 0, err
	}
	defer m.Close()
	answered := make(chan error, 1)
	runtime.GC()
	start := time.Now()
	go func() { answered <- n.put(ctx, state) }()
	value := make([]byte, m.ValueSize())
	for _, key := range sample(keys) {
		for m.Lookup(key, value) != nil {
			if time.Since(start) > programLimit {
				return 0, errors.Join(fmt.Errorf("a frontend is not there after %s", programLimit), ctx.Err())
			}
			time.Sleep(programPoll)
		}
	}
	there := time.Since(start)
	if err := <-answered; err != nil {
		return 0, err
	}
	return max(there, time.Since(start)), nil
}

// sample takes some of many, the first and the last among them: to look up all
// would take longer than to write them.
func sample(keys [][]byte) [][]byte {
	const size = 256
	some := [][]byte{keys[len(keys)-1]}
	for i := 0; i < len(keys); i += max(len(keys)/size, 1) {
		some = append(some, keys[i])
	}
	return some
}

// shares does what the agent does with a state before it looks at it.
func shares(path string, text []byte, times *programTimes) error {
	var state api.State
	start := time.Now()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&state); err != nil {
		return err
	}
	times.decode.took(start)
	start = time.Now()
	again, err := json.Marshal(state)
	if err != nil {
		return err
	}
	times.encode.took(start)
	start = time.Now()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(again)
	err = errors.Join(err, f.Sync(), f.Close())
	times.store.took(start)
	return errors.Join(err, os.Remove(path))
}

// changeRounds takes a backend from one service, and gives it back.
func (n *node) changeRounds(ctx context.Context, rounds int, times *programTimes) error {
	var states [2][]byte
	for i := range states {
		state := n.with(strconv.Itoa(i), manyServices)
		if s := &state.Cluster.Services[len(state.Cluster.Services)-manyServices/2]; i > 0 {
			s.Backends = s.Backends[:serversPerLane-1]
		}
		var err error
		if states[i], err = json.Marshal(state); err != nil {
			return err
		}
	}
	before, err := n.frontends()
	if err != nil {
		return err
	}
	if err := n.put(ctx, states[1]); err != nil {
		return err
	}
	if err := pause(ctx, graceTime); err != nil {
		return err
	}
	after, err := n.frontends()
	if err != nil {
		return err
	}
	key := after.changed(before)
	if key == nil {
		return errors.New("no frontend has changed with its backends")
	}
	for i := range rounds {
		if err := n.changed(ctx, states[i%2], key, times); err != nil {
			return err
		}
		if err := pause(ctx, graceTime); err != nil { // what is removed for good is removed meanwhile
			return err
		}
	}
	return nil
}

func (n *node) changed(ctx context.Context, state, key []byte, times *programTimes) error {
	m, err := n.openMap("frontends")
	if err != nil {
		return err
	}
	defer m.Close()
	old, value := make([]byte, m.ValueSize()), make([]byte, m.ValueSize())
	if err := m.Lookup(key, old); err != nil {
		return err
	}
	answered := make(chan error, 1)
	runtime.GC()
	start := time.Now()
	go func() { answered <- n.put(ctx, state) }()
	for {
		if err := m.Lookup(key, value); err != nil {
			return err
		}
		if !bytes.Equal(old, value) {
			break
		}
		if time.Since(start) > programLimit {
			return fmt.Errorf("a frontend has not changed after %s", programLimit)
		}
		time.Sleep(programPoll)
	}
	err = <-answered
	times.change.took(start)
	if err != nil {
		return err
	}
	pass, err := n.metric(ctx, passMetric)
	times.changePass = append(times.changePass, pass)
	return err
}

// balancerAlone is the part of the agent that programs services, by its own
// benchmarks: one change among 10,000 services, from when it is told until the
// maps are written.
func balancerAlone(ctx context.Context) ([]Row, error) {
	const what = "one change among 10,000 services, agent/lb alone"
	out, err := goBench(ctx, "BenchmarkChange", "./agent/lb", "-benchtime", "0.3s", "-count", "3")
	if errors.Is(err, exec.ErrNotFound) {
		return []Row{absent(what, "there is no go (the benchmark of ./agent/lb is a test)")}, nil
	}
	if err != nil {
		return nil, err
	}
	found := parseBench(out)
	var rows []Row
	for _, c := range []struct{ name, told string }{
		{"readiness", "a pod's readiness"}, {"all-readiness", "the readiness of all pods"}, {"service", "a service"},
		{"service-decoded", "a service, the others decoded anew"},
	} {
		all := found["BenchmarkChange/"+c.name+" ns/op"]
		if len(all) == 0 {
			return nil, fmt.Errorf("the benchmark of ./agent/lb does not tell %s: %s", c.name, out)
		}
		for i := range all {
			all[i] /= 1e9
		}
		rows = append(rows, timed(what+": "+c.told, all).atMost(changeGoal))
	}
	return rows, nil
}
