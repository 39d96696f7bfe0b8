//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/native-routing/labctl/labctl/check"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

const (
	verifyGoal = 2.0
	// quietStage is the stage of the shipped lab in which nothing is lost, so
	// that a verification waits for nothing.
	quietStage = "static-routes"
)

func wanted(t *topo.Topology, stage string) lab.Wanted {
	return lab.Wanted{Topology: t, Source: topologies.Default, Stage: stage}
}

// measureVerify verifies the shipped lab in both of its stages.
func measureVerify(ctx context.Context, r *rig) ([]Row, error) {
	t, err := r.shipped()
	if err != nil {
		return nil, err
	}
	l, err := r.up(ctx, t, "", &steps{})
	if err != nil {
		return nil, err
	}
	baseline, err := r.verifyTimes(ctx, l, r.fewer(5))
	if err != nil {
		return nil, err
	}
	start := time.Now()
	var stage samples
	if _, err := l.Up(ctx, wanted(t, quietStage)); err != nil {
		return nil, err
	}
	stage.took(start)
	quiet, err := r.verifyTimes(ctx, l, r.rounds)
	if err != nil {
		return nil, err
	}
	if err := r.down(ctx, l); err != nil {
		return nil, err
	}
	return []Row{
		timed("verify, stage baseline: losses are waited for", baseline).atMost(verifyGoal),
		timed("verify, stage "+quietStage+": nothing is lost", quiet),
		timed("up to another stage", stage),
	}, r.kernel.settle(ctx)
}

func (r *rig) verifyTimes(ctx context.Context, l *lab.Lab, rounds int) (samples, error) {
	var all samples
	for range rounds {
		took, err := r.verified(ctx, l)
		if err != nil {
			return nil, err
		}
		all = append(all, took.Seconds())
	}
	return all, nil
}

// verified verifies once. A lab that is not as it should be was not worth the time.
func (r *rig) verified(ctx context.Context, l *lab.Lab) (time.Duration, error) {
	start := time.Now()
	report, err := l.Verify(ctx, check.Selection{})
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("verify: %w", err)
	}
	for _, result := range report.Results {
		if result.Outcome != check.OK && result.Outcome != check.ExpectedFailure {
			return 0, fmt.Errorf("verify: %s %s: %s, seen %s", result.Node, result.Name, result.Outcome, result.Seen)
		}
	}
	return took, nil
}
