//go:build linux

package peer

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/agent/api"
)

func wantStates(t *testing.T, when string, a agent, want map[string]State) {
	t.Helper()
	if diff := cmp.Diff(want, a.States()); diff != "" {
		t.Errorf("%s: states (-want +got):\n%s", when, diff)
	}
}

func wantObjects(t *testing.T, when string, a agent, wantSettled bool, want ...api.Object) {
	t.Helper()
	objects, settled := a.Objects()
	if diff := cmp.Diff(want, objects); diff != "" || settled != wantSettled {
		t.Errorf("%s: settled %v, want %v; objects (-want +got):\n%s", when, settled, wantSettled, diff)
	}
}

func socketObject(condition api.Condition, reason string) api.Object {
	return api.Object{Kind: "peer", Name: "192.168.0.100:4240", Owner: "agent", Condition: condition, Reason: reason}
}

func peerObject(name string, condition api.Condition, reason string) api.Object {
	return api.Object{Kind: "peer", Name: name, Owner: "lab", Condition: condition, Reason: reason}
}

// TestLifeOfAPod follows two pods from their plan to their end, seen from both nodes.
func TestLifeOfAPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		p0, p1 := pod("p0", "n0"), pod("p1", "n1")
		a, b := net.run(t, stateOf("n0", 2, p0, p1)), net.run(t, stateOf("n1", 2, p0, p1))
		defer a.stop()
		defer b.stop()
		both := func(when string, want map[string]State) {
			t.Helper()
			settle(100 * time.Millisecond)
			wantStates(t, when+" on n0", a, want)
			wantStates(t, when+" on n1", b, want)
		}
		both("nobody has a list", map[string]State{"default/p0": Unknown, "default/p1": Unknown})
		a.SetLocal(nil)
		b.SetLocal([]api.PodStatus{status(p1, "running")})
		both("p1 is made", map[string]State{"default/p0": NotReady, "default/p1": NotReady})
		a.SetLocal([]api.PodStatus{status(p0, "ready")})
		b.SetLocal([]api.PodStatus{status(p1, "ready")})
		both("both are ready", map[string]State{"default/p0": Ready, "default/p1": Ready})

		// A pod more is planned, and n1 hears of it first.
		p2 := pod("p2", "n1")
		b.Set(stateOf("n1", 2, p0, p1, p2))
		settle(100 * time.Millisecond)
		a.Set(stateOf("n0", 2, p0, p1, p2))
		both("p2 is planned", map[string]State{"default/p0": Ready, "default/p1": Ready, "default/p2": NotReady})
		// n0 hears of another one first: n1 cannot have said anything of it.
		p3 := pod("p3", "n1")
		a.Set(stateOf("n0", 2, p0, p1, p2, p3))
		settle(100 * time.Millisecond)
		wantStates(t, "p3 is planned", a, map[string]State{"default/p0": Ready, "default/p1": Ready, "default/p2": Unknown, "default/p3": Unknown})

		// All but p0 leave; p1 takes its time, p2 and p3 never were.
		a.Set(stateOf("n0", 2, p0))
		settle(100 * time.Millisecond)
		wantStates(t, "n1 does not know yet", a, map[string]State{"default/p0": Ready, "default/p1": Terminating, "default/p2": Gone, "default/p3": Gone})
		b.Set(stateOf("n1", 2, p0))
		b.SetLocal([]api.PodStatus{status(p1, "terminating")})
		settle(100 * time.Millisecond)
		wantStates(t, "p1 ends", a, map[string]State{"default/p0": Ready, "default/p1": Terminating, "default/p2": Gone, "default/p3": Gone})
		wantStates(t, "p1 ends", b, map[string]State{"default/p0": Ready, "default/p1": Terminating, "default/p2": Gone})
		b.SetLocal(nil)
		settle(100 * time.Millisecond)
		wantStates(t, "p1 has ended", a, map[string]State{"default/p0": Ready, "default/p1": Gone, "default/p2": Gone, "default/p3": Gone})
		settle(2 * time.Minute)
		both("p1 is forgotten", map[string]State{"default/p0": Ready})
		changes := *a.changes
		a.SetLocal([]api.PodStatus{status(p0, "ready")})
		a.Set(stateOf("n0", 2, p0))
		settle(time.Minute)
		if *a.changes != changes {
			t.Errorf("OnChange was called %d times, and nothing had changed", *a.changes-changes)
		}
	})
}

// TestSameNameAgain has a later pod under the name of one that still ends.
func TestSameNameAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		old, young := pod("p", "n1"), pod("p", "n1")
		young.UID = "another"
		a, b := net.run(t, stateOf("n0", 2, old)), net.run(t, stateOf("n1", 2, old))
		defer a.stop()
		defer b.stop()
		a.SetLocal(nil)
		b.SetLocal([]api.PodStatus{status(old, "ready")})
		settle(time.Second)
		wantStates(t, "the first", a, map[string]State{"default/p": Ready})
		a.Set(stateOf("n0", 2, young))
		settle(time.Second)
		wantStates(t, "its node does not know yet", a, map[string]State{"default/p": Unknown})
		b.Set(stateOf("n1", 2, young))
		b.SetLocal([]api.PodStatus{status(old, "terminating")})
		settle(time.Second)
		wantStates(t, "the first ends", a, map[string]State{"default/p": NotReady})
		b.SetLocal([]api.PodStatus{status(old, "terminating"), status(young, "ready")})
		settle(time.Second)
		wantStates(t, "the second", a, map[string]State{"default/p": Ready})
	})
}

// TestSilence has a node that is never heard, and one that falls silent.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		p1, p2 := pod("p1", "n1"), pod("p2", "n2")
		a, b := net.run(t, stateOf("n0", 3, p1, p2)), net.run(t, stateOf("n1", 3, p1, p2))
		defer a.stop()
		b.SetLocal([]api.PodStatus{status(p1, "running")})
		settle(500 * time.Millisecond)
		wantStates(t, "n2 is not there", a, map[string]State{"default/p1": NotReady, "default/p2": Unknown})
		wantObjects(t, "n2 is not there", a, false, socketObject(api.InPlace, ""),
			peerObject("n1", api.InPlace, "heard 0 s ago"), peerObject("n2", api.Pending, "not heard yet"))
		settle(2600 * time.Millisecond)
		wantStates(t, "n2 was waited for", a, map[string]State{"default/p1": NotReady, "default/p2": Ready})
		wantObjects(t, "n2 was waited for", a, true, socketObject(api.InPlace, ""), peerObject("n1", api.InPlace, "heard 0 s ago"),
			peerObject("n2", api.Drifted, "not heard yet: does its agent run, and do UDP datagrams to 192.168.2.100:4240 pass both ways?"))
		b.stop()
		settle(time.Minute)
		wantStates(t, "n1's last word stays", a, map[string]State{"default/p1": NotReady, "default/p2": Ready})
		objects, settled := a.Objects()
		if !settled || objects[1].Condition != api.Drifted || !strings.HasPrefix(objects[1].Reason, "silent for 6") {
			t.Errorf("n1 is silent: settled %v, %+v", settled, objects[1])
		}
	})
}

// TestRestart has the agent of n1 end and begin anew, which knows nothing then,
// in the same second and with its clock set back.
func TestRestart(t *testing.T) {
	for _, clock := range []time.Duration{0, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			net := newNetwork()
			p0, p1 := pod("p0", "n0"), pod("p1", "n1")
			a, b := net.run(t, stateOf("n0", 2, p0, p1)), net.run(t, stateOf("n1", 2, p0, p1))
			defer a.stop()
			a.SetLocal([]api.PodStatus{status(p0, "ready")})
			b.SetLocal([]api.PodStatus{status(p1, "ready")})
			settle(time.Second)
			b.stop()
			settle(time.Second)

			c := net.run(t, stateOf("n1", 2, p0, p1))
			defer c.stop()
			c.mu.Lock()
			c.start = uint64(time.Now().Add(clock).UnixNano())
			c.mu.Unlock()
			settle(500 * time.Millisecond) // asked and answered, long before the interval ends
			wantStates(t, fmt.Sprint(clock, " n1 again"), c, map[string]State{"default/p0": Ready, "default/p1": Unknown})
			wantStates(t, fmt.Sprint(clock, " n1 has no list yet"), a, map[string]State{"default/p0": Ready, "default/p1": Ready})
			c.SetLocal([]api.PodStatus{status(p1, "running")})
			settle(time.Second)
			wantStates(t, fmt.Sprint(clock, " n1 is heard"), a, map[string]State{"default/p0": Ready, "default/p1": NotReady})
		})
	}
}

// TestAnotherKey has a node that signs with another key, until it gets ours.
func TestAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		p1 := pod("p1", "n1")
		other := stateOf("n1", 2, p1)
		other.Cluster.Key = []byte("another key, as long as ours is.")
		a, b := net.run(t, stateOf("n0", 2, p1)), net.run(t, other)
		defer a.stop()
		defer b.stop()
		b.SetLocal([]api.PodStatus{status(p1, "running")})
		settle(2500 * time.Millisecond)
		wantStates(t, "another key", a, map[string]State{"default/p1": Unknown})
		if got := a.Stats().Dropped["signed with another key"]; got < 2 {
			t.Errorf("dropped %d datagrams", got)
		}
		b.Set(stateOf("n1", 2, p1))
		settle(2500 * time.Millisecond)
		wantStates(t, "our key", a, map[string]State{"default/p1": NotReady})

		short := stateOf("n0", 2, p1)
		short.Cluster.Key = testKey[:5]
		a.Set(short)
		settle(time.Second)
		objects, settled := a.Objects()
		want := socketObject(api.Failed, "the key of the cluster has 5 bytes and not 32: run labctl up, which gives one")
		if settled || objects[0] != want {
			t.Errorf("no key: settled %v, %+v", settled, objects[0])
		}
		a.Set(stateOf("n0", 2, p1))
		settle(time.Second)
		if _, settled := a.Objects(); !settled {
			t.Error("a key again, and not settled")
		}
		a.Set(api.State{Node: "n0"})
		settle(time.Second)
		wantObjects(t, "no cluster", a, true)
		wantStates(t, "no cluster", a, map[string]State{"default/p1": Gone})
	})
}

// crowd is n pods of a node, with names as long as they may be. They run and are
// not ready, which nobody takes for granted.
func crowd(n int, node string) (pods []api.Pod, running []api.PodStatus) {
	for i := range n {
		p := pod(fmt.Sprintf("%s-%05d-%s", strings.Repeat("n", 120), i, strings.Repeat("x", 126)), node)
		p.Namespace = strings.Repeat("s", 63)
		p.UID = fmt.Sprint("uid-", i)
		pods = append(pods, p)
		running = append(running, status(p, "running"))
	}
	return pods, running
}

// TestLoss has three nodes with a thousand pods each, and a network that loses
// every second datagram.
func TestLoss(t *testing.T) {
	for _, pods := range []int{3, 1000} {
		synctest.Test(t, func(t *testing.T) {
			net := newNetwork()
			net.lose = func(n int) bool { return n%2 == 0 }
			var all []api.Pod
			var running [3][]api.PodStatus
			for i := range running {
				var of []api.Pod
				of, running[i] = crowd(pods, fmt.Sprintf("n%d", i))
				all = append(all, of...)
				for j := range of {
					all[i*pods+j].Name = fmt.Sprint(i) + of[j].Name[1:]
					running[i][j].Name = all[i*pods+j].Name
				}
			}
			want := map[string]State{}
			for _, p := range all {
				want[p.Key()] = NotReady
			}
			agents := make([]agent, 3)
			for i := range agents {
				agents[i] = net.run(t, stateOf(fmt.Sprintf("n%d", i), 3, all...))
				defer agents[i].stop()
			}
			for i := range agents {
				agents[i].SetLocal(running[i])
			}
			begin := time.Now()
			for {
				settle(100 * time.Millisecond)
				done := true
				for _, a := range agents {
					done = done && maps.Equal(want, a.States())
				}
				if done {
					break
				}
				if time.Since(begin) > time.Minute { // by luck alone: one in a million
					t.Fatalf("%d pods: not told after %s", pods, time.Since(begin))
				}
			}
			t.Logf("%d pods a node: told after %s", pods, time.Since(begin))
		})
	}
}

// TestIdle counts what goes over the network when nothing happens.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		p0, p1 := pod("webpod-697b545f57-9w2jv", "n0"), pod("webpod-697b545f57-x7k2p", "n1")
		a, b := net.run(t, stateOf("n0", 2, p0, p1)), net.run(t, stateOf("n1", 2, p0, p1))
		defer a.stop()
		defer b.stop()
		a.SetLocal([]api.PodStatus{status(p0, "ready")})
		b.SetLocal([]api.PodStatus{status(p1, "ready")})
		settle(time.Minute)
		net.take()
		settle(10 * time.Minute)
		datagrams, bytes := net.take()
		if datagrams < 540 || datagrams > 670 {
			t.Errorf("two nodes sent %d datagrams in ten minutes, want about 600", datagrams)
		}
		t.Logf("%d datagrams of %d bytes", datagrams, bytes/datagrams)
		// A storm of changes is told in bounded time, not each by each.
		for i := range 1000 {
			a.SetLocal([]api.PodStatus{status(p0, []string{"running", "ready"}[i%2])})
			settle(time.Millisecond)
		}
		if datagrams, _ := net.take(); datagrams > 30 {
			t.Errorf("a thousand changes in a second took %d datagrams", datagrams)
		}
		settle(100 * time.Millisecond)
		wantStates(t, "after the storm", b, map[string]State{"default/webpod-697b545f57-9w2jv": Ready, "default/webpod-697b545f57-x7k2p": Ready})
	})
}

// TestReplay hands datagrams to n0 by hand.
func TestReplay(t *testing.T) {
	p1 := pod("p1", "n1")
	x, begin := New(Config{}), time.Now()
	x.Set(stateOf("n0", 2, p1))
	send := func(start, sequence, version uint64, state State, change func(*message)) []byte {
		m := message{from: "n1", to: "n0", start: start, sequence: sequence, version: version, digest: x.digests["n1"], parts: 1}
		if change != nil {
			change(&m)
		}
		return m.seal(split([]entry{{idOf("default/p1", p1.UID), state}}, 1000)[0], testKey)
	}
	first := send(10, 1, 1, Ready, nil)
	for _, step := range []struct {
		name     string
		datagram []byte
		want     State
		dropped  string
	}{
		{"first", first, Ready, ""},
		{"second", send(10, 5, 2, NotReady, nil), NotReady, ""},
		{"repeated", first, NotReady, "late or repeated"},
		{"late", send(10, 4, 1, Ready, nil), NotReady, "late or repeated"},
		{"same list again", send(10, 6, 2, Ready, nil), NotReady, ""},
		{"later process", send(11, 1, 1, Terminating, nil), Terminating, ""},
		{"process before", send(10, 7, 3, Ready, nil), Terminating, "of a process before the last"},
		{"for another", send(11, 2, 2, Ready, func(m *message) { m.to = "n2" }), Terminating, "not between nodes of this cluster"},
		{"from a stranger", send(11, 2, 2, Ready, func(m *message) { m.from = "n9" }), Terminating, "not between nodes of this cluster"},
		{"no parts of it", send(11, 3, 2, Ready, func(m *message) { m.part = 1 }), Terminating, "malformed"},
		{"tampered", append([]byte("LCP1x"), send(11, 4, 2, Ready, nil)[5:]...), Terminating, "signed with another key"},
		{"cut", send(11, 4, 2, Ready, nil)[:60], Terminating, "not a message of an agent"},
		{"good again", send(11, 5, 2, Ready, nil), Ready, ""},
	} {
		before := x.Stats().Dropped
		x.receive(step.datagram, begin)
		if got := x.States()["default/p1"]; got != step.want {
			t.Errorf("%s: the pod is %s, want %s", step.name, got, step.want)
		}
		if step.dropped != "" {
			before[step.dropped]++
		}
		if diff := cmp.Diff(before, x.Stats().Dropped); diff != "" {
			t.Errorf("%s: dropped (-want +got):\n%s", step.name, diff)
		}
	}
}
