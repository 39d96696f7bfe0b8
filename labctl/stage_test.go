//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/labctl/lab"
)

// stages is where the lab is, and what stages it has.
func (l killLab) stages() lab.StageList {
	l.t.Helper()
	var list lab.StageList
	if err := json.Unmarshal([]byte(l.must("stage", "-o", "json")), &list); err != nil {
		l.t.Fatal(err)
	}
	return list
}

// TestEveryStageFromEveryOther enters each stage from each other one. The agents
// say then that nothing is missing and nothing is left over; when it is entered
// first, a stage is verified whole.
func TestEveryStageFromEveryOther(t *testing.T) {
	t.Parallel() // most of it is waiting, for sessions and for packets that are lost
	l := newKillLab(t)
	l.must(l.up()...)
	list := l.stages()
	if len(list.Stages) < 5 || list.Stage != "baseline" {
		t.Fatalf("the lab has %d stages and is in %s", len(list.Stages), list.Stage)
	}
	seen := map[string]bool{list.Stage: true} // verified by other tests
	for _, name := range tour(list) {
		args := []string{"stage", name}
		if seen[name] {
			args = append(args, "--no-verify")
		}
		seen[name] = true
		l.must(args...)
		if out, err := l.command("status").CombinedOutput(); err != nil {
			t.Fatalf("in %s: %v\n%s", name, err, out)
		}
	}
	if left := l.stages(); left.Stage != list.Stage {
		t.Errorf("the tour ends in %s", left.Stage)
	}
	l.goes()
}

// tour goes from the stage that the lab is in over each pair of stages in either
// direction once, and back: a walk that never takes an edge twice cannot get
// stuck, but where it began.
func tour(list lab.StageList) []string {
	edges := map[string][]string{}
	for _, from := range list.Stages {
		for _, to := range list.Stages {
			if from.Name != to.Name {
				edges[from.Name] = append(edges[from.Name], to.Name)
			}
		}
	}
	var walk func(at string) []string
	walk = func(at string) []string { // Hierholzer's
		var path []string
		for len(edges[at]) > 0 {
			next := edges[at][0]
			edges[at] = edges[at][1:]
			path = append(append([]string{}, walk(next)...), path...)
		}
		return append([]string{at}, path...)
	}
	return walk(list.Stage)[1:]
}

func TestTour(t *testing.T) {
	list := lab.StageList{Stage: "b"}
	for _, name := range []string{"a", "b", "c", "d"} {
		list.Stages = append(list.Stages, lab.StageInfo{Name: name})
	}
	path := append([]string{"b"}, tour(list)...)
	steps := map[string]bool{}
	for i := 1; i < len(path); i++ {
		steps[path[i-1]+path[i]] = path[i-1] != path[i]
	}
	if len(path) != 4*3+1 || len(steps) != 4*3 || path[len(path)-1] != "b" {
		t.Errorf("the tour is %v", path)
	}
}

// TestStageKilled: killed anywhere, the lab is in the old stage or in the new
// one, and up finishes it.
func TestStageKilled(t *testing.T) {
	t.Parallel()
	l := newKillLab(t)
	l.must(l.up()...)
	finished := func(from, to string) {
		t.Helper()
		now := l.stages().Stage
		if now != from && now != to {
			t.Fatalf("killed between %s and %s, the lab is in %s", from, to, now)
		}
		l.must("up")
		if after := l.stages().Stage; after != now {
			t.Errorf("the lab was in %s, and up leads to %s", now, after)
		}
		l.must("verify", "--check", "interfaces,forwarding,routes,fib,maps")
	}
	ways := [][2]string{{"baseline", "static-routes"}, {"static-routes", "no-masquerade"}, {"no-masquerade", "baseline"}}
	for i, step := range []string{"links", "state", "settle"} {
		from, to := ways[i][0], ways[i][1]
		if !l.killAtStep(step, "stage", to) {
			t.Fatalf("stage did not tell of its step %s", step)
		}
		finished(from, to)
		if now := l.stages().Stage; now != to {
			t.Errorf("killed after %s, the lab is in %s", step, now)
		}
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	for range 4 {
		from := l.stages().Stage
		for range 3 {
			i := slices.IndexFunc(ways, func(w [2]string) bool { return w[0] == from })
			args := []string{"stage", ways[i][1]}
			to := ways[i][1]
			if h := l.stages().History; random.IntN(3) == 0 && len(h) > 0 {
				args, to = []string{"stage", "--undo"}, h[len(h)-1]
			}
			l.killAfter(time.Duration(random.Int64N(int64(400*time.Millisecond))), args...)
			now := l.stages().Stage
			if now != from && now != to {
				t.Fatalf("labctl %s killed in %s: the lab is in %s", strings.Join(args, " "), from, now)
			}
			from = now
		}
		finished(from, from)
	}
	l.goes()
}

// TestWatchOnTerminal: the view is drawn anew when a hand changes something, and
// Ctrl-C ends it well.
func TestWatchOnTerminal(t *testing.T) {
	t.Parallel()
	l := newKillLab(t)
	l.must(l.up()...)
	s := onTerminal(t, l.command("status", "--watch", "--interval", "100ms"))
	s.expect(`All is as the stage has it`)
	l.must("exec", "router", "--", "ip", "route", "add", "blackhole", "172.20.2.0/24")
	s.expect(`router: route blackhole 172\.20\.2\.0/24 .*is drifted`)
	s.expect(`labctl reset undoes`)
	l.must("reset", "router")
	s.expect(`All is as the stage has it`)
	s.send("\x03")
	if code := s.exit(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
	if out := fmt.Sprint(s.seen.String()); strings.Contains(out, "interrupted") {
		t.Errorf("it ends with %q", out)
	}
	l.goes()
}
