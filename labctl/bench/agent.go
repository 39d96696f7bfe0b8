//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/embedded"
	"github.com/native-routing/labctl/agent/rtnl"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/provision/netns"
)

// The goals for the agent.
const (
	readyGoal  = 0.030
	memoryGoal = 12.0
	mendGoal   = 1.0
	idleGoal   = 0.001 // none, but for an odd wake-up of the Go runtime
)

const (
	idleTime  = 3 * time.Second
	calmTime  = 500 * time.Millisecond // after up, for what it leaves to be done
	mendLimit = 5 * time.Second
	mendPause = 50 * time.Millisecond
	readyPoll = 200 * time.Microsecond
	// startLimit bounds the wait for an agent that does not come.
	startLimit = 5 * time.Second
)

// measureAgent looks at agents alone, and at those of the shipped lab.
func measureAgent(ctx context.Context, r *rig) ([]Row, error) {
	ready, floor, err := r.readyTimes(ctx)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	t, err := r.shipped()
	if err != nil {
		return nil, err
	}
	l, err := r.up(ctx, t, "", &steps{})
	if err != nil {
		return nil, err
	}
	pids, err := r.agentPIDs(t.Nodes.Names())
	if err != nil {
		return nil, err
	}
	settled, err := memory(pids)
	if err != nil {
		return nil, err
	}
	idle, err := idleCPU(ctx, pids)
	if err != nil {
		return nil, err
	}
	mended, err := r.mendTimes(ctx)
	if err != nil {
		return nil, fmt.Errorf("mend: %w", err)
	}
	used, err := r.usedMemory(ctx, l, pids)
	if err != nil {
		return nil, err
	}
	if err := r.down(ctx, l); err != nil {
		return nil, err
	}
	return []Row{
		timed("agent: exec to its first answer", ready).against(floor, "the same executable prints its usage").atMost(readyGoal),
		Row{What: "agent: RSS, settled (each of the lab's)", Unit: MiB, Ours: settled.spread()}.atMost(memoryGoal),
		Row{What: "agent: RSS, after verifications (each of the lab's)", Unit: MiB, Ours: used.spread()}.atMost(memoryGoal),
		timed("agent: CPU in 3 s idle (each of the lab's)", idle).atMost(idleGoal),
		timed("agent: a deleted direct route is back", mended).atMost(mendGoal),
	}, r.kernel.settle(ctx)
}

// readyTimes starts agents in a namespace that is empty, as on a new node, and
// waits for what up waits for. The floor is what exec and the Go runtime take.
func (r *rig) readyTimes(ctx context.Context) (ready, floor samples, err error) {
	dir := filepath.Join(r.base, "agent")
	data := filepath.Join(r.options.DataDir, "agent")
	binary, err := embedded.Binary(runtime.GOARCH)
	if err != nil {
		return nil, nil, fmt.Errorf("%w (make build)", err)
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(data, "agent")
	if err := os.WriteFile(path, binary, 0o700); err != nil {
		return nil, nil, err
	}
	for i := range r.rounds + 1 {
		start := time.Now()
		_ = exec.CommandContext(ctx, path, "--help").Run() // its exit code is that of wrong usage
		if i > 0 {
			floor.took(start)
		}
		took, err := firstAnswer(ctx, path, dir)
		if err != nil {
			return nil, nil, err
		}
		if i > 0 { // the first round reads the file from the disk
			ready = append(ready, took.Seconds())
		}
	}
	return ready, floor, errors.Join(os.RemoveAll(dir), os.RemoveAll(data))
}

// firstAnswer starts an agent, and ends it when it has answered.
func firstAnswer(ctx context.Context, path, dir string) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	cmd := exec.Command(path, "--run", filepath.Join(dir, "run"), "--data", filepath.Join(dir, "data"), "--bpf", filepath.Join(dir, "bpf"))
	var start time.Time
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		start = time.Now()
		return cmd.Start()
	})
	if err != nil {
		return 0, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}()
	socket := filepath.Join(dir, "run", "agent.sock")
	client := api.NewClient(func(ctx context.Context) (net.Conn, error) {
		for {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
			if err == nil || ctx.Err() != nil {
				return conn, err
			}
			time.Sleep(readyPoll)
		}
	})
	defer client.Close()
	_, err = api.GetVersion.Call(ctx, client, api.None{})
	return time.Since(start), err
}

// agentPIDs reads the locks that running agents hold.
func (r *rig) agentPIDs(nodes []string) ([]int, error) {
	var pids []int
	for _, node := range nodes {
		text, err := os.ReadFile(filepath.Join(r.options.RunDir, r.name, "nodes", node, "agent.lock"))
		if err != nil {
			return nil, err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, fmt.Errorf("the agent's lock of %s: %w", node, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// memory is each process's VmRSS in MiB.
func memory(pids []int) (samples, error) { return memoryOf("VmRSS", pids) }

// memoryOf is a field of each process's status in MiB (proc_pid_status(5)).
func memoryOf(field string, pids []int) (samples, error) {
	var all samples
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return nil, err
		}
		_, rest, _ := strings.Cut(string(text), "\n"+field+":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return nil, fmt.Errorf("process %d has no %s", pid, field)
		}
		kib, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return nil, fmt.Errorf("%s of process %d: %w", field, pid, err)
		}
		all = append(all, kib/1024)
	}
	return all, nil
}

// usedMemory is the memory after the agents have probed.
func (r *rig) usedMemory(ctx context.Context, l *lab.Lab, pids []int) (samples, error) {
	for range 2 {
		if _, err := r.verified(ctx, l); err != nil {
			return nil, err
		}
	}
	return memory(pids)
}

// idleCPU is the CPU time that each process takes while nothing happens.
func idleCPU(ctx context.Context, pids []int) (samples, error) {
	if err := pause(ctx, calmTime); err != nil {
		return nil, err
	}
	before, err := cpuTimes(pids)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, idleTime); err != nil {
		return nil, err
	}
	after, err := cpuTimes(pids)
	if err != nil {
		return nil, err
	}
	for i := range after {
		after[i] -= before[i]
	}
	return after, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// cpuTimes are the seconds that the threads of each process ran: the first
// number of their schedstat, in nanoseconds. The clock ticks of stat would hide
// what is less than ten milliseconds.
func cpuTimes(pids []int) (samples, error) {
	all := make(samples, len(pids))
	for i, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(threads) == 0 {
			return nil, fmt.Errorf("process %d is gone", pid)
		}
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if err != nil {
				return nil, err
			}
			first, _, _ := strings.Cut(string(text), " ")
			ran, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", thread, err)
			}
			all[i] += time.Duration(ran).Seconds()
		}
	}
	return all, nil
}

// mendTimes deletes the direct route to k8s-w1's pods on k8s-ctr, and asks the
// FIB until it leads there again.
func (r *rig) mendTimes(ctx context.Context) (samples, error) {
	node, err := netns.New(r.options).OpenNode(ctx, r.name, "k8s-ctr")
	if err != nil {
		return nil, err
	}
	defer node.Close()
	ns, err := vnetns.GetFromPath(filepath.Join(r.options.RunDir, r.name, "ns", "k8s-ctr.net"))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	conn, err := rtnl.Open(ns)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var all samples
	for range r.rounds {
		took, err := mend(ctx, conn)
		if err != nil {
			return nil, err
		}
		all = append(all, took.Seconds())
		// A row of faults without a pause makes the agent slow down on purpose.
		if err := pause(ctx, mendPause); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func mend(ctx context.Context, conn *rtnl.Conn) (time.Duration, error) {
	pods, peer := netip.MustParsePrefix("172.20.1.0/24"), netip.MustParseAddr("192.168.10.101")
	query := []rtnl.Query{{To: pods.Addr().Next()}}
	start := time.Now()
	errs, err := conn.Change([]rtnl.Change{{Verb: rtnl.Delete, Route: rtnl.Route{To: pods, Protocol: rtnl.RouteProtocol}}})
	if err := errors.Join(err, errs[0]); err != nil {
		return 0, fmt.Errorf("delete the route %s: %w", pods, err)
	}
	for {
		found, err := conn.Lookup(query)
		if err != nil {
			return 0, err
		}
		took := time.Since(start)
		switch {
		case found[0].Via == peer:
			return took, nil
		case took > mendLimit:
			return 0, fmt.Errorf("the route %s is not back after %s", pods, mendLimit)
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
		time.Sleep(readyPoll)
	}
}
