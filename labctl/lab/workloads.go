package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies/topo"
)

// keySize is what agents sign their messages with, in bytes.
const keySize = 32

// furnish puts a topology's own objects into the set of a lab, beside those
// that were applied by hand. What the topology had before and has no more goes.
func furnish(saved *Saved, before []manifest.Ref, objects manifest.Objects) ([]workload.Change, error) {
	now := time.Now().UTC()
	set := saved.Workloads
	if len(set.Key) == 0 {
		set.Key = make([]byte, keySize)
		if _, err := rand.Read(set.Key); err != nil {
			return nil, fmt.Errorf("make the key of the lab: %w", err)
		}
	}
	stale := slices.DeleteFunc(slices.Clone(before), func(r manifest.Ref) bool { return slices.Contains(objects.Refs, r) })
	set, deleted, err := set.Delete(saved.Topology, now, stale, true)
	if err != nil {
		return nil, err
	}
	if set, err = set.Reconcile(saved.Topology, now); err != nil {
		return nil, err
	}
	set, applied, err := set.Apply(saved.Topology, now, objects)
	if err != nil {
		return nil, err
	}
	saved.Workloads, saved.Shipped = set, objects.Refs
	return append(deleted, applied...), nil
}

// WorkloadReport is what apply and delete did.
type WorkloadReport struct {
	Lab     string            `json:"lab"`
	Changes []workload.Change `json:"changes"`
	// Remarks are about pods that are on no node.
	Remarks []string      `json:"remarks,omitempty"`
	Took    time.Duration `json:"tookNanoseconds"`
}

// Apply puts objects into the lab, and waits until every agent has them. All of
// them are applied, or none.
func (l *Lab) Apply(ctx context.Context, objects manifest.Objects) (WorkloadReport, error) {
	return l.change(ctx, func(t *topo.Topology, set workload.Set) (workload.Set, []workload.Change, error) {
		return set.Apply(t, time.Now().UTC(), objects)
	})
}

// Delete takes objects out of the lab, and waits until every agent has let them
// go. Objects that there are not are an error that matches [workload.ErrNotFound],
// unless ignoreNotFound; the others are deleted all the same.
func (l *Lab) Delete(ctx context.Context, refs []manifest.Ref, ignoreNotFound bool) (WorkloadReport, error) {
	return l.change(ctx, func(t *topo.Topology, set workload.Set) (workload.Set, []workload.Change, error) {
		return set.Delete(t, time.Now().UTC(), refs, ignoreNotFound)
	})
}

// change brings the lab from one set of objects to another.
func (l *Lab) change(ctx context.Context, do func(*topo.Topology, workload.Set) (workload.Set, []workload.Change, error)) (WorkloadReport, error) {
	start := time.Now()
	report := WorkloadReport{Lab: l.Name, Changes: []workload.Change{}}
	unlock, err := l.lock(ctx)
	if err != nil {
		return report, err
	}
	defer unlock()
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return report, err
	}
	set, changes, notFound := do(saved.Topology, saved.Workloads)
	if notFound != nil && !errors.Is(notFound, workload.ErrNotFound) {
		return report, notFound
	}
	saved.Workloads = set
	if err := l.Store.Save(l.Name, saved); err != nil {
		return report, err
	}
	report.Changes = append(report.Changes, changes...)
	report.Remarks = unplaced(set)
	staged, err := saved.Topology.Stage(saved.Stage)
	if err != nil {
		return report, err
	}
	u := l.newUp(staged, saved)
	defer u.agents.Close()
	err = u.carryOut(ctx, []step{
		{name: "state", do: u.sendStates},
		{name: "settle", do: u.settle, told: u.standing},
	})
	report.Took = time.Since(start)
	return report, errors.Join(notFound, err)
}

// Pods is what every node's agent says of its pods, by node. What cannot be
// told of a node is in the errors, by node too.
func (l *Lab) Pods(ctx context.Context, saved Saved) (map[string][]api.PodStatus, map[string]error) {
	agents := l.agents()
	defer agents.Close()
	pods, errs := map[string][]api.PodStatus{}, map[string]error{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, node := range podNodes(saved.Topology) {
		all.Go(func() {
			list, err := call(ctx, agents, node, api.GetPods, api.None{})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs[node] = err
				return
			}
			pods[node] = list.Pods
		})
	}
	all.Wait()
	return pods, errs
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

// PodNode finds the node of a pod by its name, with or without its namespace,
// or by its Deployment's (deploy/webpod); false where there is no such pod.
func (s Saved) PodNode(name string) (node, key string, ok bool) {
	for _, p := range s.Workloads.Pods {
		key := p.Namespace + "/" + p.Name
		inDefault := p.Namespace == "default"
		owner := ""
		for _, o := range p.OwnerReferences {
			for _, rs := range s.Workloads.ReplicaSets {
				if rs.Name == o.Name && rs.Namespace == p.Namespace && len(rs.OwnerReferences) > 0 {
					owner = rs.OwnerReferences[0].Name
				}
			}
		}
		switch {
		case p.Status.PodIP == "":
		case name == key, inDefault && (name == p.Name || name == "pod/"+p.Name),
			inDefault && owner != "" && (name == "deploy/"+owner || name == "deployment/"+owner):
			return p.Spec.NodeName, key, true
		}
	}
	return "", "", false
}

// PodNames are the names by which exec knows pods.
func (s Saved) PodNames() []string {
	var names []string
	for _, p := range s.Workloads.Pods {
		if p.Namespace == "default" {
			names = append(names, p.Name)
			continue
		}
		names = append(names, p.Namespace+"/"+p.Name)
	}
	return names
}

// unplaced says of pods that are on no node why they are not.
func unplaced(set workload.Set) []string {
	var remarks []string
	for _, p := range set.Pods {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				remarks = append(remarks, fmt.Sprintf("pod %s/%s is on no node: %s", p.Namespace, p.Name, c.Message))
			}
		}
	}
	return remarks
}
