//go:build linux

package explain

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/tables"
	"github.com/native-routing/labctl/topologies/path"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "try this one random topology, and tell all of it")
	countFlag = flag.Int("topologies", 0, "how many random topologies to try; 0 for as many of a thousand as fit into a quarter of a minute")
)

// On random small networks with random faults, what is predicted of a packet is
// what happens to it: whether it arrives, and every device that it passes.
// `go test ./labctl/explain -run Property -args -seed N` tries one again, and
// `make fuzz` tries all thousand.
func TestPropertyPredictedIsObserved(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	seeds := make(chan uint64)
	go func() {
		defer close(seeds)
		if *seedFlag != 0 {
			seeds <- *seedFlag
			return
		}
		until := time.Now().Add(15 * time.Second)
		for i := range cmp.Or(*countFlag, 1000) {
			if *countFlag == 0 && time.Now().After(until) {
				return
			}
			seeds <- uint64(i) + 1
		}
	}()
	var failures atomic.Int32
	var mu sync.Mutex
	ends := map[string]int{}
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for seed := range seeds {
				if failures.Load() > 8 {
					continue
				}
				fate, err := tryOne(seed, *seedFlag != 0, t.Logf)
				if err != nil {
					failures.Add(1)
					t.Errorf("seed %d: %v", seed, err)
				}
				mu.Lock()
				ends[fate]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	t.Logf("fates: %v", ends)
}

// tryOne makes the seed's network, predicts, sends, and compares.
func tryOne(seed uint64, loud bool, logf func(string, ...any)) (fate string, err error) {
	r := rand.New(rand.NewPCG(seed, 0))
	net, err := newNetwork()
	if err != nil {
		return "", err
	}
	defer net.close()
	plan := draw(r)
	if err := net.build(plan); err != nil {
		return "", fmt.Errorf("build %s: %w", plan, err)
	}
	w, err := net.look()
	if err != nil {
		return "", err
	}
	q := Question{From: Place{Node: plan.from}, Packet: Packet{To: plan.to, Protocol: ICMP, Size: plan.size, DontFragment: plan.dontFragment}}
	way, err := net.predict(w, q)
	if err != nil {
		return "", err
	}
	_, end := way.End()
	fate = string(end.Cause)
	if way.Arrives() {
		fate = "arrives"
	}
	var seen observed
	for try := range 3 {
		if seen, err = net.send(q, way, try); err != nil {
			return fate, err
		}
		if err = compare(way, seen); err == nil {
			break
		}
	}
	// The tables alone must say what the kernels' answers say, but for the choice
	// among several next hops.
	if alone, _ := follow(w.clone(), q, 0); err == nil && !plan.multipath() && describe(alone) != describe(way) {
		err = fmt.Errorf("with the kernels' answers: %s\nby the tables alone: %s", describe(way), describe(alone))
	}
	if err != nil || loud {
		text := fmt.Sprintf("%s\npredicted: %s\nobserved: %s", plan, describe(way), seen)
		if err == nil {
			logf("%s", text)
			return fate, nil
		}
		return fate, fmt.Errorf("%w\n%s", err, text)
	}
	return fate, nil
}

func describe(w Way) string {
	var b strings.Builder
	for _, p := range []*Path{&w.Request, w.Reply} {
		if p == nil {
			continue
		}
		fmt.Fprintf(&b, "%s %v", p.Leg, p.Passes)
		if !p.End.Arrived {
			fmt.Fprintf(&b, " lost: %s at %s %s", p.End.Cause, p.End.Name(), p.End.Device)
		}
		b.WriteString("; ")
	}
	return b.String()
}

func (s Sighting) String() string {
	way := "in"
	if s.Outgoing {
		way = "out"
	}
	return s.Name() + "/" + s.Device + "/" + way
}

// observed is what was seen of one echo and its reply.
type observed struct {
	answered       bool
	request, reply []Sighting
}

func (o observed) String() string {
	return fmt.Sprintf("request %v reply %v answered %v", o.request, o.reply, o.answered)
}

// compare wants the very devices, in the very order. Of a packet that goes
// round only the first of them are told, and that it goes on.
func compare(w Way, seen observed) error {
	if w.Arrives() != seen.answered {
		return fmt.Errorf("predicted to arrive: %v, answered: %v", w.Arrives(), seen.answered)
	}
	for _, leg := range []struct {
		path *Path
		seen []Sighting
	}{{&w.Request, seen.request}, {w.Reply, seen.reply}} {
		var want []Sighting
		if leg.path != nil {
			want = leg.path.Passes
		}
		got := leg.seen
		if leg.path != nil && leg.path.Loops && len(got) > len(want) {
			got = got[:len(want)]
		}
		if !slices.Equal(want, got) {
			return fmt.Errorf("predicted sightings %v, seen %v", want, got)
		}
	}
	return nil
}

// predict answers what the prediction asks with the kernels' answers.
func (n *network) predict(w *World, q Question) (Way, error) {
	w.Answers = map[Ask]api.PathDecision{}
	for range 100 {
		ways, open := Predict(w, q)
		if len(open) == 0 {
			return ways[0], nil
		}
		for _, ask := range open {
			r, err := tables.Open(n.nodes[ask.Node].handle)
			if err != nil {
				return Way{}, err
			}
			d, err := r.Paths([]api.PathQuery{ask.Query})
			r.Close()
			if err != nil {
				return Way{}, err
			}
			w.Answers[ask] = d[0]
		}
	}
	return Way{}, fmt.Errorf("the questions do not end")
}

// look reads all nodes, as their agents do.
func (n *network) look() (*World, error) {
	w := &World{Wires: map[path.Port]string{}}
	for _, name := range n.order {
		s, err := tables.ReadSpace(n.nodes[name].handle)
		if err != nil {
			return nil, err
		}
		w.Nodes = append(w.Nodes, Node{Name: name, Snapshot: api.Snapshot{Space: s}})
	}
	for port, wire := range n.wires {
		w.Wires[port] = wire
	}
	return w, nil
}
