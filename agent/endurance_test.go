//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
	"github.com/native-routing/labctl/agent/tables"
)

func TestTenThousandPeers(t *testing.T) {
	s := newStudy(t)
	p := start(t, s.node, t.TempDir(), "")
	state := studyState()
	state.Pods.Peers = nil
	for i := range 10_000 {
		state.Pods.Peers = append(state.Pods.Peers, api.Peer{Name: "p" + strconv.Itoa(i), Address: addr("192.168.10.101"),
			CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + byte(i>>8), byte(i), 0}), 24)})
	}
	count := func() int { return strings.Count(s.node.IP("route show proto 108"), "\n") }
	begin := time.Now()
	p.settle(state)
	t.Logf("10,000 peers from PutState to settled: %v", time.Since(begin))
	if got := count(); got != 10_002 {
		t.Errorf("%d own routes, want 10002", got)
	}
	s.node.IP("route flush proto 108")
	begin = time.Now()
	for count() != 10_002 {
		if time.Since(begin) > patience {
			t.Fatal("a flush of 10,000 routes is not mended")
		}
	}
	t.Logf("mended after a flush: %v", time.Since(begin))
	state.Generation, state.Pods.Peers = "2", state.Pods.Peers[:1]
	p.settle(state)
	if got := count(); got != 3 {
		t.Errorf("%d own routes, want 3", got)
	}
}

// The agent comes and goes, killed or stopped, and the traffic does not notice.
func TestRestartKeepsTraffic(t *testing.T) {
	s := newStudy(t)
	dir := t.TempDir()
	p := start(t, s.node, dir, "")
	p.settle(studyState())
	s.node.Run("ping", "-c1", "-W2", "-I", "172.20.0.1", "172.20.1.1") // the neighbour is known from here on
	ping := s.node.Command(t.Context(), "ping", "-q", "-i", "0.01", "-c", "100", "-I", "172.20.0.1", "172.20.1.1")
	var out bytes.Buffer
	ping.Stdout = &out
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	for i, signal := range []os.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGKILL} {
		begin := time.Now()
		err := p.kill(signal)
		took := time.Since(begin)
		if signal != unix.SIGKILL {
			if err != nil {
				t.Errorf("%v: %v, want exit code 0\n%s", signal, err, p.logged())
			}
			if _, err := os.Stat(filepath.Join(dir, "agent.sock")); !os.IsNotExist(err) {
				t.Errorf("%v leaves the socket: %v", signal, err)
			}
			t.Logf("%v: ended in %v", signal, took)
		}
		if got := own(s.node); got != ownRoutes {
			t.Errorf("after %v:\n%s", signal, got)
		}
		if i == 2 {
			s.node.IP("route del 172.20.0.0/24") // while nobody watches
		}
		p = start(t, s.node, dir, "")
		p.until("settled", func(s api.Status) bool { return s.Settled && s.Generation == "1" })
		asSettled(t, p)
	}
	if err := ping.Wait(); err != nil || !strings.Contains(out.String(), " 0% packet loss") {
		t.Errorf("traffic: %v\n%s", err, &out)
	}
}

func TestConcurrentStates(t *testing.T) {
	s := newStudy(t)
	dir := t.TempDir()
	p := start(t, s.node, dir, "")
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			state := studyState()
			state.Generation = strconv.Itoa(i)
			state.Pods.Peers[0].CIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 21, byte(i), 0}), 24)
			p.put(state)
		})
	}
	group.Wait()
	p.until("settled", func(s api.Status) bool { return s.Settled })
	raw, err := os.ReadFile(filepath.Join(dir, "desired.json"))
	if err != nil {
		t.Fatal(err)
	}
	var kept api.State
	if err := json.Unmarshal(raw, &kept); err != nil {
		t.Fatal(err)
	}
	if got := p.status().Generation; got != kept.Generation {
		t.Errorf("generation %s, and %s on disk", got, kept.Generation)
	}
	want := fmt.Sprintf("172.21.%s.0/24 via 192.168.10.101 dev eth1 proto 108", kept.Generation)
	if got := own(s.node); strings.Count(got, "\n") != 3 || !strings.Contains(got, want) {
		t.Errorf("routes:\n%s\nwant %s", got, want)
	}
}

// A storm of others' routes: the agent sees it through, mends its own meanwhile,
// and rests after it.
func TestStorm(t *testing.T) {
	s := newStudy(t)
	p := start(t, s.node, t.TempDir(), "")
	p.settle(studyState())
	reader, err := tables.Open(s.node.Handle)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	storm := make([]rtnl.Change, 4_000)
	for i := range storm {
		storm[i].Route = rtnl.Route{To: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24),
			NextHops: []rtnl.NextHop{{Via: addr("192.168.10.200")}}, Protocol: 186}
	}
	written := 0
	for begin := time.Now(); time.Since(begin) < 1500*time.Millisecond; {
		for _, verb := range []rtnl.Verb{rtnl.Replace, rtnl.Delete} {
			for i := range storm {
				storm[i].Verb = verb
			}
			if _, err := reader.Conn.Change(storm); err != nil {
				t.Fatal(err)
			}
			written += len(storm)
		}
		if written == 5*2*len(storm) {
			s.node.IP("route flush proto 108")
			took := p.until("mended in the storm", func(st api.Status) bool {
				return own(s.node) == ownRoutes
			})
			t.Logf("mended in the storm in %v", took)
		}
	}
	t.Logf("%d changes", written)
	p.until("settled", func(s api.Status) bool { return s.Settled })
	asSettled(t, p)
	time.Sleep(300 * time.Millisecond)
	p.atRest(time.Second)
}

// atRest wants no CPU time used in d, but for the one tick that may just be full.
// What was asked of the agent before may have an end that comes late on a busy
// machine: what does not rest does not rest the next time either.
func (p *process) atRest(d time.Duration) {
	p.t.Helper()
	used := 0
	for range 5 {
		before := p.ticks()
		time.Sleep(d)
		if used = p.ticks() - before; used <= 1 {
			return
		}
	}
	p.t.Errorf("%d ticks of CPU in %v of idleness", used, d)
}

// ticks is the CPU time that the process has used (proc_pid_stat(5)).
func (p *process) ticks() int {
	p.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')'):]))
	user, _ := strconv.Atoi(fields[12])
	system, _ := strconv.Atoi(fields[13])
	return user + system
}

// memory is what an agent may have of its own, in KiB.
const memory = 12 << 10

func TestFootprint(t *testing.T) {
	executable := filepath.Join(t.TempDir(), "agent")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", executable, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	s := newStudy(t)
	p := start(t, s.node, t.TempDir(), executable)
	p.settle(studyState())
	for range 20 {
		if _, err := api.GetTables.Call(t.Context(), p.Client, api.None{}); err != nil {
			t.Fatal(err)
		}
		p.status()
	}
	p.probe()
	p.atRest(2 * time.Second)
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if name, value, _ := strings.Cut(line, ":"); name == "RssAnon" {
			kib, _ := strconv.Atoi(strings.Fields(value)[0])
			t.Logf("%d KiB of its own", kib)
			if kib > memory {
				t.Errorf("it has %d KiB of its own, want at most %d", kib, memory)
			}
		}
	}
}

// probe sends what `verify routes` sends, and must get it back.
func (p *process) probe() {
	p.t.Helper()
	ctx := p.t.Context()
	session := api.WitnessRequest{Session: 7, Lifetime: 5 * time.Second}
	if _, err := api.StartWitness.Call(ctx, p.Client, session); err != nil {
		p.t.Fatal(err)
	}
	ping := api.PingTarget{To: addr("172.20.1.1"), From: addr("172.20.0.1"), Count: 3, Interval: 10 * time.Millisecond, Timeout: time.Second, Size: 56, Session: 7, Probe: 1}
	pong, err := api.Ping.Call(ctx, p.Client, api.PingRequest{Targets: []api.PingTarget{ping}})
	if err != nil || pong.Results[0].Received != 3 {
		p.t.Errorf("ping: %+v, %v", pong, err)
	}
	seen, err := api.StopWitness.Call(ctx, p.Client, session)
	if err != nil || len(seen.Sightings) != 6 {
		p.t.Errorf("witness: %+v, %v, want 3 requests and 3 replies", seen, err)
	}
	trace := api.TraceTarget{To: addr("192.168.10.200"), MaxHops: 5, Timeout: time.Second, Tries: 3, Size: 1500}
	path, err := api.Trace.Call(ctx, p.Client, api.TraceRequest{Targets: []api.TraceTarget{trace}})
	if err != nil || !path.Results[0].Reached {
		p.t.Errorf("trace: %+v, %v", path, err)
	}
}
