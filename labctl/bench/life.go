//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

// The goals for the shipped lab.
const (
	upGoal    = 0.5
	linksGoal = 1.3
	downGoal  = 0.15
)

const (
	floorUpIs   = "the same namespaces, links, addresses, routes by raw netlink"
	floorDownIs = "the same namespaces unmounted"
	// command is the built labctl, from the module's directory.
	command = "bin/labctl"
)

// lifeTimes are what the rounds measure.
type lifeTimes struct {
	floorUp, floorDown, floorGone                       samples
	up                                                  steps
	again, down, gone                                   samples
	nodesAndLinks, commandUp, commandAgain, commandDown samples
}

// measureLife takes the shipped lab up and down, beside its floor.
func measureLife(ctx context.Context, r *rig) ([]Row, error) {
	t, err := r.shipped()
	if err != nil {
		return nil, err
	}
	file, err := r.shippedFile(t)
	if err != nil {
		return nil, err
	}
	// The first round finds files and caches cold; it does not count.
	var times lifeTimes
	for i := range r.rounds + 1 {
		if i == 1 {
			times = lifeTimes{}
		}
		if err := r.lifeRound(ctx, t, file, &times); err != nil {
			return nil, err
		}
	}
	return times.rows(), nil
}

func (r *rig) lifeRound(ctx context.Context, t *topo.Topology, file string, times *lifeTimes) error {
	if err := r.floorRound(ctx, planFloor(t, r.alone), &times.floorUp, &times.floorDown, &times.floorGone); err != nil {
		return err
	}
	if err := r.libraryRound(ctx, t, times); err != nil {
		return err
	}
	if err := r.providerRound(ctx, t, times); err != nil {
		return err
	}
	return r.commandRound(ctx, file, times)
}

// floorRound ends when the kernel has done away with everything; gone is the
// whole time until then.
func (r *rig) floorRound(ctx context.Context, p floorPlan, up, down, gone *samples) error {
	f := r.newFloor()
	start := time.Now()
	if err := f.up(p); err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	up.took(start)
	start = time.Now()
	if err := f.down(); err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	down.took(start)
	if err := r.kernel.settle(ctx); err != nil {
		return err
	}
	gone.took(start)
	return nil
}

func (r *rig) libraryRound(ctx context.Context, t *topo.Topology, times *lifeTimes) error {
	l, err := r.up(ctx, t, "", &times.up)
	if err != nil {
		return err
	}
	l.Story = &steps{}
	start := time.Now()
	report, err := l.Up(ctx, wanted(t, ""))
	if err == nil && len(report.Changes) > 0 {
		err = fmt.Errorf("a second up changed %v", report.Changes)
	}
	if err != nil {
		return err
	}
	times.again.took(start)
	start = time.Now()
	if err := r.down(ctx, l); err != nil {
		return err
	}
	times.down.took(start)
	if err := r.kernel.settle(ctx); err != nil {
		return err
	}
	times.gone.took(start)
	return nil
}

// providerRound makes namespaces and links alone, as up's steps do.
func (r *rig) providerRound(ctx context.Context, t *topo.Topology, times *lifeTimes) error {
	p := netns.New(r.options)
	start := time.Now()
	var group errgroup.Group
	for _, node := range t.Nodes.Names() {
		group.Go(func() error {
			_, err := p.EnsureNode(ctx, t, node)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if _, err := p.EnsureLinks(ctx, t); err != nil {
		return err
	}
	times.nodesAndLinks.took(start)
	if _, err := p.Destroy(ctx, r.name); err != nil {
		return err
	}
	return r.kernel.settle(ctx)
}

// commandRound runs labctl itself, where it is built.
func (r *rig) commandRound(ctx context.Context, file string, times *lifeTimes) error {
	if _, err := os.Stat(command); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, c := range []struct {
		into *samples
		args []string
	}{
		{&times.commandUp, []string{"up", file}},
		{&times.commandAgain, []string{"up", file}},
		{&times.commandDown, []string{"down", "--lab", r.name}},
	} {
		args := append(c.args, "--run-dir", r.options.RunDir, "--data-dir", r.options.DataDir)
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, command, args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		start := time.Now()
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%v: %w: %s", cmd, err, out.String())
		}
		c.into.took(start)
	}
	return r.kernel.settle(ctx)
}

// shippedFile writes the default topology under the rig's name, for the command,
// and its manifests beside it.
func (r *rig) shippedFile(t *topo.Topology) (string, error) {
	for _, name := range t.Workloads {
		f, err := topologies.OpenWorkload(name)
		if err != nil {
			return "", err
		}
		text, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			return "", err
		}
		path := filepath.Join(r.base, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600)); err != nil {
			return "", err
		}
	}
	f, err := topologies.Open(topologies.Default)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return "", err
	}
	old, renamed := []byte("\n  name: "+topologies.Default+"\n"), []byte("\n  name: "+r.name+"\n")
	if bytes.Count(text, old) != 1 {
		return "", fmt.Errorf("%s does not say its name as expected", topologies.Default)
	}
	path := filepath.Join(r.base, "topology.yaml")
	return path, os.WriteFile(path, bytes.Replace(text, old, renamed, 1), 0o600)
}

func (t *lifeTimes) rows() []Row {
	whole := t.up.sum(wholeStep)
	rows := []Row{
		timed("up, agents settled", whole).against(t.floorUp, floorUpIs).atMost(upGoal),
	}
	for _, name := range slices.DeleteFunc(slices.Clone(t.up.order), func(s string) bool { return s == wholeStep }) {
		rows = append(rows, timed("  of it "+name, t.up.sum(name)))
	}
	if len(t.commandUp) > 0 {
		rows = append(rows, timed("up, the command", t.commandUp).atMost(upGoal))
	}
	rows = append(rows,
		timed("namespaces and links", t.nodesAndLinks).against(t.floorUp, floorUpIs).ratioAtMost(linksGoal),
		timed("up again, nothing to do", t.again))
	if len(t.commandAgain) > 0 {
		rows = append(rows, timed("up again, the command", t.commandAgain))
	}
	rows = append(rows, timed("down", t.down).against(t.floorDown, floorDownIs).atMost(downGoal))
	if len(t.commandDown) > 0 {
		rows = append(rows, timed("down, the command", t.commandDown).atMost(downGoal))
	}
	return append(rows, timed("down, until the kernel is done too", t.gone).against(t.floorGone, floorDownIs))
}
