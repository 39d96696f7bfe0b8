//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/embedded"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

// rig is the bench's own corner of the machine: one lab at a time, and one
// floor, in directories that nobody else uses, on the file systems that labctl
// uses by default.
type rig struct {
	rounds  int
	name    string // of the lab
	options netns.Options
	base    string // of the floor and of agents without a lab, below /run
	alone   string // the kind of link that stands for dummy here
	kernel  *kernel
}

// version is one that every topology's requires is content with.
const version = "999.0.0"

func newRig(rounds int) (*rig, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: namespaces need root (sudo make bench)", provision.ErrPermission)
	}
	name := fmt.Sprintf("bench-%d", os.Getpid())
	r := &rig{rounds: rounds, name: name, base: "/run/labctl-" + name, options: netns.Options{
		RunDir: "/run/labctl-" + name + "/labs", DataDir: "/var/lib/labctl-" + name,
	}}
	if err := os.Mkdir(r.base, 0o700); err != nil {
		return nil, err
	}
	var err error
	if r.alone, err = aloneKind(); err == nil {
		r.kernel, err = watchKernel()
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(r.base))
	}
	return r, nil
}

// closeTime bounds the tidying up.
const closeTime = time.Minute

// close removes all that the bench made.
func (r *rig) close() error {
	r.kernel.close()
	return errors.Join(r.clear(), os.RemoveAll(r.base))
}

// clear removes the lab and the floor, whatever there is of them.
func (r *rig) clear() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_, err := netns.New(r.options).Destroy(ctx, r.name)
	return errors.Join(err, r.newFloor().down(), os.RemoveAll(r.options.DataDir))
}

func (r *rig) newFloor() floor { return floor{dir: filepath.Join(r.base, "floor")} }

// shipped loads the default topology under the rig's name.
func (r *rig) shipped() (*topo.Topology, error) {
	t, err := topologies.Load(topologies.Default)
	if err != nil {
		return nil, err
	}
	t.Metadata.Name = r.name
	return t, nil
}

// open returns the rig's lab, which tells its story to steps.
func (r *rig) open(story *steps) *lab.Lab {
	return &lab.Lab{
		Name: r.name, Provider: netns.New(r.options), Store: lab.Store{Dir: r.options.DataDir},
		Agent: embedded.Binary, Version: version, Story: story,
	}
}

// up brings a lab up, and notes how long it took as a whole and by step.
func (r *rig) up(ctx context.Context, t *topo.Topology, stage string, story *steps) (*lab.Lab, error) {
	l := r.open(story)
	start := time.Now()
	report, err := l.Up(ctx, lab.Wanted{Topology: t, Source: topologies.Default, Stage: stage})
	if err != nil {
		return nil, fmt.Errorf("up: %w", err)
	}
	story.add(wholeStep, time.Since(start))
	if len(report.Changes) == 0 {
		return nil, errors.New("up: nothing was changed, so nothing was measured")
	}
	return l, nil
}

// down takes a lab down, and proves it.
func (r *rig) down(ctx context.Context, l *lab.Lab) error {
	report, err := l.Down(ctx)
	if err == nil && !report.Left.Empty() {
		err = fmt.Errorf("%v is left", report.Left)
	}
	if err != nil {
		return fmt.Errorf("down: %w", err)
	}
	return nil
}

// wholeStep is a run as a whole, among its steps.
const wholeStep = "in all"

// steps is a story that is not told but timed. The zero value is empty.
type steps struct {
	mu    sync.Mutex
	order []string
	times map[string]samples
}

func (s *steps) add(name string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times == nil {
		s.times = map[string]samples{}
	}
	if _, known := s.times[name]; !known {
		s.order = append(s.order, name)
	}
	s.times[name] = append(s.times[name], d.Seconds())
}

// sum adds up the named steps of each run.
func (s *steps) sum(names ...string) samples {
	var sums samples
	for _, name := range names {
		for i, v := range s.times[name] {
			if i == len(sums) {
				sums = append(sums, 0)
			}
			sums[i] += v
		}
	}
	return sums
}

// Start begins a step.
func (s *steps) Start(name string) lab.Step { return &step{s, name, time.Now()} }

// Note is not for the bench.
func (s *steps) Note(string) {}

type step struct {
	steps *steps
	name  string
	start time.Time
}

func (*step) Update(string) {}

func (s *step) Done(string) { s.steps.add(s.name, time.Since(s.start)) }

func (*step) Fail(error) {}

// hosts generates a lab of n hosts on one network, each with pods of its own.
func (r *rig) hosts(n int) (*topo.Topology, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: labctl/v1
kind: Topology
metadata: {name: %s}
networks: {lan: {cidr: 192.168.0.0/16, mtu: 1500}}
cluster: {podCIDR: 172.20.0.0/14, serviceCIDR: 10.96.0.0/16, routingMode: native, autoDirectNodeRoutes: true, nativeRoutingCIDR: 172.20.0.0/14}
nodes:
`, r.name)
	for i := range n {
		role := topo.RoleWorker
		if i == 0 {
			role = topo.RoleControlPlane
		}
		fmt.Fprintf(&b, "  h%d: {role: %s, podCIDR: 172.%d.%d.0/24, interfaces: {eth1: {network: lan, address: 192.168.%d.%d/16}}}\n",
			i, role, 20+i/256, i%256, 1+i/200, 1+i%200)
	}
	return topo.Load("generated", strings.NewReader(b.String()))
}

// fewer bounds the rounds of what takes long.
func (r *rig) fewer(most int) int { return cmp.Or(min(r.rounds, most), 1) }
