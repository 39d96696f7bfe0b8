//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The goals for one packet, in ratio to an empty program.
const (
	establishedGoal = 2.3
	newFlowGoal     = 13
	manyGoal        = 1.02
)

// measureDatapath runs the datapath's own benchmark, which the kernel repeats
// packets for: it takes turns with an empty program, and subtracts the wrapper
// that restores the packet.
func measureDatapath(ctx context.Context, r *rig) ([]Row, error) {
	var metrics []results
	for range r.fewer(3) {
		out, err := goBench(ctx, "Datapath", "./bpf", "-benchtime", "1x")
		if errors.Is(err, exec.ErrNotFound) {
			return []Row{absent("packets through tc", "there is no go (the benchmark of ./bpf is a test)")}, nil
		}
		if err != nil {
			return nil, err
		}
		found := parseBench(out)
		if len(found["established"]) == 0 {
			return nil, fmt.Errorf("the benchmark of ./bpf does not tell of established: %s", out)
		}
		metrics = append(metrics, found)
	}
	times := func(name string) (s samples) {
		for _, m := range metrics {
			s = append(s, m[name]...)
		}
		return s
	}
	net := func(name, wrapper string) (s samples) {
		for _, m := range metrics {
			s = append(s, m.first(name)-m.first(wrapper)+m.first("empty"))
		}
		return s
	}
	const is = "an empty tc program, repeated by the kernel"
	empty := times("empty")
	established, fresh := net("established", "wrapper"), net("new flow", "wrapper, new")
	return []Row{
		timed("tc: established packet to a service", established).against(empty, is).ratioAtMost(establishedGoal),
		timed("tc: established packet to a pod", net("no service", "wrapper")).against(empty, is),
		timed("tc: first packet of a flow to a service", fresh).against(empty, is).ratioAtMost(newFlowGoal),
		timed("tc: established, 10,000 services", net("established, 10,000", "wrapper")).against(established, "with one service").ratioAtMost(manyGoal),
		timed("tc: first packet, 10,000 services", net("new flow, 10,000", "wrapper, new")).against(fresh, "with one service").ratioAtMost(manyGoal),
	}, nil
}

// goBench runs benchmarks of a package of this module.
func goBench(ctx context.Context, pattern, pkg string, args ...string) ([]byte, error) {
	argv := append([]string{"test", "-run", "^$", "-bench", pattern}, append(args, pkg)...)
	cmd := exec.CommandContext(ctx, "go", argv...)
	// The test is go's child, and is to end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("go %s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return out, nil
}

// results are what benchmarks print, several values for one that ran more often.
// "BenchmarkX ns/op" is a result with its unit, and "empty", in seconds, a line
// "empty  26 ns" of a benchmark's log.
type results map[string]samples

func (r results) first(name string) float64 {
	if len(r[name]) == 0 {
		return 0
	}
	return r[name][0]
}

func parseBench(out []byte) results {
	found := results{}
	add := func(name, value string, unit float64) {
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			found[name] = append(found[name], v*unit)
		}
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		last := len(fields) - 1
		switch {
		case last < 2:
		case strings.Contains(fields[0], "_test.go:") && fields[last] == "ns":
			add(strings.Join(fields[1:last-1], " "), fields[last-1], 1e-9)
		case strings.HasPrefix(fields[0], "Benchmark"):
			name := fields[0]
			if at := strings.LastIndexByte(name, '-'); at > 0 { // the number of CPUs
				name = name[:at]
			}
			for i := 2; i < last; i += 2 {
				add(name+" "+fields[i+1], fields[i], 1)
			}
		}
	}
	return found
}
