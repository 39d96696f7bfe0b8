//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/embedded"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/topologies/topo"
)

// quiet is a story that nobody reads.
type quiet struct{}

func (quiet) Start(string) lab.Step { return quiet{} }
func (quiet) Note(string)           {}
func (quiet) Update(string)         {}
func (quiet) Done(string)           {}
func (quiet) Fail(error)            {}

// buildAgent builds an agent that calls itself by a version of its own.
func buildAgent(t *testing.T, version string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", file, "../agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build an agent: %v\n%s", err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// upWith is labctl up by a labctl that carries another agent, and with other
// sizes of maps in the file.
func (l *loadLab) upWith(ctx context.Context, agent func(arch string) ([]byte, error), sizes topo.MapSizes) error {
	l.t.Helper()
	text, err := os.ReadFile(l.file)
	if err != nil {
		l.t.Fatal(err)
	}
	wanted := lab.Wanted{Source: l.file}
	if wanted.Topology, err = topo.Load(l.file, bytes.NewReader(text)); err != nil {
		l.t.Fatal(err)
	}
	wanted.Topology.Cluster.MapSizes = sizes
	var files []manifest.Objects
	for _, name := range wanted.Topology.Workloads {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(l.file), name))
		if err != nil {
			l.t.Fatal(err)
		}
		objects, _, err := manifest.Decode(name, bytes.NewReader(text))
		if err != nil {
			l.t.Fatal(err)
		}
		files = append(files, objects)
	}
	if wanted.Objects, err = manifest.Join(files...); err != nil {
		l.t.Fatal(err)
	}
	data := filepath.Join(l.dir, "data")
	of := &lab.Lab{
		Name: l.name, Provider: netns.New(netns.Options{RunDir: filepath.Join(l.dir, "run"), DataDir: data}),
		Store: lab.Store{Dir: data}, Agent: agent, Version: "0.1.0-dev", Story: quiet{},
	}
	_, err = of.Up(ctx, wanted)
	return err
}

// TestLoadWhileAgentsAreUpgraded gives all nodes another agent, other programs
// and other maps, and back.
func TestLoadWhileAgentsAreUpgraded(t *testing.T) {
	newer := buildAgent(t, "9.9.9-test")
	next := func(string) ([]byte, error) { return newer, nil }
	l := newLoadLab(t)
	traffic := l.traffic()
	l.pause(300 * time.Millisecond)
	steps := []struct {
		what  string
		agent func(string) ([]byte, error)
		sizes topo.MapSizes
		same  bool // all maps stay the very same
	}{
		{"another agent", next, topo.MapSizes{}, true},
		{"other sizes of the maps of flows", next, topo.MapSizes{Flows: 30_000, NAT: 20_000, Affinity: 1000}, false},
		{"the former agent, other sizes of the maps of services", embedded.Binary, topo.MapSizes{Flows: 50_000, Services: 1000, Backends: 500}, false},
		{"another agent, all as it was", next, topo.MapSizes{}, false},
		{"the former agent", embedded.Binary, topo.MapSizes{}, true},
	}
	for _, step := range steps {
		before, begin := l.held(), time.Now()
		if err := l.upWith(t.Context(), step.agent, step.sizes); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		t.Logf("%s: %s", step.what, time.Since(begin).Round(time.Millisecond))
		l.replaced(step.what, before, step.same)
		l.pause(500 * time.Millisecond)
	}
	traffic.stop("agents were upgraded")
	for _, step := range steps[1:3] {
		before := l.held()
		l.upCutShort(step.agent, step.sizes)
		if err := l.upWith(t.Context(), step.agent, step.sizes); err != nil {
			t.Fatalf("%s, cut short and repeated: %v", step.what, err)
		}
		l.replaced(step.what, before, step.same)
	}
	l.must("verify", "services", "--check", "pods,maps,reach")
	l.goes()
}

// replaced fails where maps are not the same ones, or are, or anything is left
// of how they were replaced.
func (l *loadLab) replaced(what string, before map[string]held, want bool) {
	l.t.Helper()
	for node, is := range l.held() {
		if same := slices.Equal(is.Maps, before[node].Maps); same != want {
			l.t.Errorf("%s on %s: the maps are the same ones: %v, want %v", what, node, same, want)
		}
		for _, pin := range is.Pins {
			if strings.Contains(pin, "~") {
				l.t.Errorf("%s on %s leaves %s", what, node, pin)
			}
		}
		if was := before[node]; is.Programs != was.Programs || is.Links != was.Links {
			l.t.Errorf("%s on %s: %d programs and %d links in the kernel, before %d and %d", what, node, is.Programs, is.Links, was.Programs, was.Links)
		}
	}
}

// upCutShort ends an upgrade somewhere, on all sides: labctl goes, and a moment
// later every agent is killed.
func (l *loadLab) upCutShort(agent func(string) ([]byte, error), sizes topo.MapSizes) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 100*time.Millisecond+l.upTo(200*time.Millisecond))
	defer cancel()
	if err := l.upWith(ctx, agent, sizes); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		l.t.Logf("cut short: %v", err)
	}
	for _, node := range podNodes {
		if pid := l.agentPID(node); pid != 0 {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill() // it may be ending already
			}
		}
	}
}
