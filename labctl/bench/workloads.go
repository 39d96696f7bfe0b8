//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/check"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

// ownMemoryGoal is for an agent with the shipped lab's pods and services.
const ownMemoryGoal = 15.0

const (
	podsLimit = 15 * time.Second
	podsPoll  = 2 * time.Millisecond
	// toolsPod is the shipped pod that is made to have commands run in it.
	toolsPod = "default/curl-pod"
)

// measureWorkloads brings the shipped lab up with its pods and services.
func measureWorkloads(ctx context.Context, r *rig) ([]Row, error) {
	t, err := r.shipped()
	if err != nil {
		return nil, err
	}
	objects, err := workloads(t)
	if err != nil {
		return nil, err
	}
	var up, ready, verify, exec, down, rss, private samples
	for i := range r.fewer(5) + 1 {
		if i == 1 { // the first finds caches cold
			up, ready, down = nil, nil, nil
		}
		start := time.Now()
		l, err := r.upWith(ctx, t, objects)
		if err != nil {
			return nil, err
		}
		up.took(start)
		if err := podsReady(ctx, l); err != nil {
			return nil, err
		}
		ready.took(start)
		if i == r.fewer(5) { // what is done once is done in the last
			if verify, exec, err = r.used(ctx, l, t); err != nil {
				return nil, err
			}
			if rss, private, err = r.agentMemory(ctx, podNodes(t)); err != nil {
				return nil, err
			}
		}
		start = time.Now()
		if err := r.down(ctx, l); err != nil {
			return nil, err
		}
		down.took(start)
		if err := r.kernel.settle(ctx); err != nil {
			return nil, err
		}
	}
	return []Row{
		timed("up with workloads, agents settled", up),
		timed("up with workloads, until all pods are ready", ready),
		timed("down with workloads", down),
		timed("verify services", verify),
		timed("exec into a pod", exec),
		Row{What: "agent: RSS with the lab's own services, after use", Unit: MiB, Ours: rss.spread()}.atMost(ownMemoryGoal),
		{What: "  of it private (the executable is shared by all agents and pods)", Unit: MiB, Ours: private.spread()},
	}, nil
}

// used verifies the services and runs commands in a pod.
func (r *rig) used(ctx context.Context, l *lab.Lab, t *topo.Topology) (verify, exec samples, err error) {
	for range r.fewer(3) {
		start := time.Now()
		report, err := l.Verify(ctx, check.Selection{Groups: check.ServiceGroups()})
		if err != nil {
			return nil, nil, fmt.Errorf("verify services: %w", err)
		}
		verify.took(start)
		for _, result := range report.Results {
			if result.Outcome != check.OK && result.Outcome != check.ExpectedFailure {
				return nil, nil, fmt.Errorf("verify services: %s %s: %s, seen %s", result.Node, result.Name, result.Outcome, result.Seen)
			}
		}
	}
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return nil, nil, err
	}
	name, _, _ := saved.PodNode(toolsPod)
	node, err := netns.New(r.options).OpenNode(ctx, r.name, name)
	if err != nil {
		return nil, nil, err
	}
	defer node.Close()
	for range r.rounds {
		start := time.Now()
		var out bytes.Buffer
		err := node.Run(ctx, provision.Command{
			Argv:   []string{path.Join(node.Dir(), "agent"), "exec", "--data", node.Dir(), toolsPod, "--", "true"},
			Stdout: &out, Stderr: &out,
		})
		if err != nil {
			return nil, nil, fmt.Errorf("exec into %s: %w: %s", toolsPod, err, out.String())
		}
		exec.took(start)
	}
	return verify, exec, nil
}

// workloads are the manifests that a shipped topology names.
func workloads(t *topo.Topology) (manifest.Objects, error) {
	var files []manifest.Objects
	for _, name := range t.Workloads {
		f, err := topologies.OpenWorkload(name)
		if err != nil {
			return manifest.Objects{}, err
		}
		objects, _, err := manifest.Decode(name, f)
		f.Close()
		if err != nil {
			return manifest.Objects{}, err
		}
		files = append(files, objects)
	}
	return manifest.Join(files...)
}

// upWith brings a lab up with its objects.
func (r *rig) upWith(ctx context.Context, t *topo.Topology, objects manifest.Objects) (*lab.Lab, error) {
	l := r.open(&steps{})
	w := wanted(t, "")
	w.Objects = objects
	if _, err := l.Up(ctx, w); err != nil {
		return nil, fmt.Errorf("up: %w", err)
	}
	return l, nil
}

// podsReady waits until every pod of the lab is.
func podsReady(ctx context.Context, l *lab.Lab) error {
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return err
	}
	want := len(saved.PodNames())
	for start := time.Now(); time.Since(start) < podsLimit; {
		all, errs := l.Pods(ctx, saved)
		for _, err := range errs {
			return err
		}
		ready := 0
		for _, pods := range all {
			for _, p := range pods {
				if p.Ready && p.Phase == api.PodRunning {
					ready++
				}
			}
		}
		if ready >= want {
			return nil
		}
		if err := pause(ctx, podsPoll); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d pods are not ready after %s", want, podsLimit)
}

func podNodes(t *topo.Topology) []string {
	var names []string
	for name, n := range t.Nodes.All() {
		if n.PodCIDR.IsValid() {
			names = append(names, name)
		}
	}
	return names
}

// agentMemory is all that the agents of nodes have resident, and what of it is
// theirs alone: pages of a file are shared.
func (r *rig) agentMemory(ctx context.Context, nodes []string) (rss, private samples, err error) {
	pids, err := r.agentPIDs(nodes)
	if err != nil {
		return nil, nil, err
	}
	if err := pause(ctx, calmTime); err != nil {
		return nil, nil, err
	}
	if rss, err = memory(pids); err != nil {
		return nil, nil, err
	}
	private, err = memoryOf("RssAnon", pids)
	return rss, private, err
}
