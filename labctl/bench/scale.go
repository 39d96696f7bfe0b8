//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// measureScale takes labs of many hosts up and down.
func measureScale(ctx context.Context, r *rig) ([]Row, error) {
	var rows []Row
	for _, size := range []struct{ hosts, rounds int }{{10, 5}, {50, 2}, {100, 2}} {
		more, err := r.scale(ctx, size.hosts, r.fewer(size.rounds))
		if err != nil {
			return rows, fmt.Errorf("%d hosts: %w", size.hosts, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (r *rig) scale(ctx context.Context, n, rounds int) ([]Row, error) {
	t, err := r.hosts(n)
	if err != nil {
		return nil, err
	}
	plan := planFloor(t, r.alone)
	var up steps
	var down, gone, floorUp, floorDown, floorGone samples
	for range rounds {
		if err := r.floorRound(ctx, plan, &floorUp, &floorDown, &floorGone); err != nil {
			return nil, err
		}
		l, err := r.up(ctx, t, "", &up)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if err := r.down(ctx, l); err != nil {
			return nil, err
		}
		down.took(start)
		if err := r.kernel.settle(ctx); err != nil {
			return nil, err
		}
		gone.took(start)
	}
	name := func(what string) string { return fmt.Sprintf("%d hosts: %s", n, what) }
	return []Row{
		timed(name("up, agents settled"), up.sum(wholeStep)).of(n),
		timed(name("  of it namespaces and links"), up.sum("nodes", "links")).against(floorUp, floorUpIs).ratioAtMost(linksGoal).of(n),
		timed(name("  of it agents and routing"), up.sum("agents", "routing", "settle")).of(n),
		timed(name("down"), down).against(floorDown, floorDownIs).of(n),
		timed(name("down, until the kernel is done too"), gone).against(floorGone, floorDownIs).of(n),
	}, nil
}
