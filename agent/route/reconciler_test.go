//go:build linux

package route

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
	"github.com/native-routing/labctl/agent/rtnl"
)

// sysctls are those of a namespace that the test's own threads are not in.
type sysctls struct {
	ns   *nstest.Namespace
	mu   sync.Mutex
	fail bool
}

func (s *sysctls) Read(name string) (value string, err error) {
	s.ns.Do(func() { value, err = rtnl.ProcSys{}.Read(name) })
	return value, err
}

func (s *sysctls) Write(name, value string) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		return errors.New("the disk of /proc is full")
	}
	s.ns.Do(func() { err = rtnl.ProcSys{}.Write(name, value) })
	return err
}

func (s *sysctls) setFailing(fail bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// node is a namespace with eth1 as k8s-ctr has it.
func node(t testing.TB) *nstest.Namespace {
	ns := nstest.New(t)
	ns.IP("link add eth1 type veth peer name port")
	ns.IP("addr add 192.168.10.100/24 dev eth1")
	ns.IP("link set eth1 up")
	ns.IP("link set port up")
	return ns
}

// start runs a reconciler on ns for as long as the test.
func start(t testing.TB, ns *nstest.Namespace, s Sysctls) *Reconciler {
	t.Helper()
	r, err := New(Config{Namespace: ns.Handle, Sysctls: s, Report: func(err error) {
		if err != nil {
			t.Errorf("reported: %v", err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done; r.Close() })
	return r
}

func stateWith(peers int) api.State {
	state := api.State{Generation: fmt.Sprint(peers), Lab: "study", Node: "k8s-ctr", Pods: &api.PodNetwork{
		CIDR: netip.MustParsePrefix("172.20.0.0/24"), Gateway: netip.MustParseAddr("172.20.0.1"), MTU: 1500, DirectRoutes: true,
	}}
	for i := range peers {
		state.Pods.Peers = append(state.Pods.Peers, api.Peer{
			Name:    fmt.Sprintf("peer%d", i),
			Address: netip.AddrFrom4([4]byte{192, 168, 10, byte(101 + i%100)}),
			CIDR:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
		})
	}
	return state
}

// testPatience is for a machine that other tests keep busy: how fast things are is
// measured elsewhere.
const testPatience = 20 * time.Second

// until waits for the status to be as ok wants it.
func until(t testing.TB, r *Reconciler, what string, ok func(api.Status) bool) {
	t.Helper()
	for end := time.Now().Add(testPatience); ; time.Sleep(2 * time.Millisecond) {
		s := r.Status()
		if ok(s) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v: %+v", what, testPatience, s)
		}
	}
}

func settled(s api.Status) bool { return s.Settled }

func find(s api.Status, name string) api.Object {
	for _, o := range s.Objects {
		if o.Name == name {
			return o
		}
	}
	return api.Object{}
}

// What the kernel refuses is told in its own words, and tried again.
func TestFailedIsTriedAgain(t *testing.T) {
	ns := node(t)
	s := &sysctls{ns: ns}
	s.setFailing(true)
	r := start(t, ns, s)
	state := stateWith(0)
	state.Sysctls = []api.Sysctl{{Name: "net/ipv4/ip_forward", Value: "1"}}
	state.Pods.MTU = 40 // less than the kernel takes; the agent's own check is above this package
	r.Set(state)
	until(t, r, "failed", func(s api.Status) bool {
		link, sysctl := find(s, GatewayDevice), find(s, "net/ipv4/ip_forward")
		return !s.Settled && link.Condition == api.Failed && strings.HasSuffix(link.Reason, "numerical result out of range") ||
			strings.HasSuffix(link.Reason, "invalid argument") && sysctl.Condition == api.Failed && sysctl.Reason == "the disk of /proc is full"
	})
	s.setFailing(false)
	until(t, r, "the sysctl is written", func(s api.Status) bool {
		return find(s, "net/ipv4/ip_forward").Condition == api.InPlace
	})
	r.Set(stateWith(3))
	until(t, r, "settled", settled)
}

// Somebody who undoes the agent's work as fast as it is done must not keep the
// machine busy, and the agent has the last word.
func TestFight(t *testing.T) {
	ns := node(t)
	r := start(t, ns, &sysctls{ns: ns})
	r.Set(stateWith(1))
	until(t, r, "settled", settled)
	fight, stop := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer stop()
	_ = ns.Command(fight, "sh", "-c", "while :; do ip route flush proto 108; done").Run()
	stopped := time.Now()
	until(t, r, "settled after the fight", func(s api.Status) bool {
		return s.Settled && strings.Count(ns.IP("route show proto 108"), "\n") == 3
	})
	mended := find(r.Status(), "10.0.0.0/24 via 192.168.10.101").Mended
	t.Logf("mended %d times in 1.5 s; in place %v after the last", mended, time.Since(stopped))
	if mended < 3 || mended > 50 {
		t.Errorf("mended %d times, want a few", mended)
	}
}

// BenchmarkSettle is a new state with n peers, from Set to settled.
func BenchmarkSettle(b *testing.B) {
	for _, n := range []int{3, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ns := node(b)
			r := start(b, ns, rtnl.ProcSys{})
			for b.Loop() {
				r.Set(stateWith(n))
				until(b, r, "settled", settled)
				b.StopTimer()
				r.Set(stateWith(0))
				until(b, r, "settled", settled)
				b.StartTimer()
			}
		})
	}
}
