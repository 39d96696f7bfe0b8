//go:build linux

package datapath

import (
	"context"
	"errors"
	"maps"
	"os"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// quiet is how long the kernel must be silent before a look, so that one
	// look serves a burst; patience bounds the wait in a storm.
	quiet    = 5 * time.Millisecond
	patience = 20 * time.Millisecond
	// retries of what failed are doubled from retryFirst to retryLast.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
	// glance is how often to look though nothing was heard: nobody tells of a
	// program that is detached or of a pin that is removed.
	glance = time.Minute
)

// Run works until ctx ends, and leaves everything in place.
func (d *Datapath) Run(ctx context.Context) {
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		d.listen()
	}()
	d.loop(ctx)
	_ = d.watch.Close()
	<-listening
}

// listen turns what the kernel tells into one pending signal.
func (d *Datapath) listen() {
	for {
		err := d.watch.Wait()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			d.config.Report(err)
			time.Sleep(retryFirst) // an error that stays must not spin
		}
		signal(d.heard)
	}
}

func (d *Datapath) loop(ctx context.Context) {
	var retry time.Duration
	look, collect := time.NewTimer(glance), time.NewTimer(shortestGC)
	defer look.Stop()
	defer collect.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-collect.C:
			collect.Reset(d.runGC())
			continue
		case <-d.heard:
			if !d.quieten(ctx) {
				return
			}
			if retry == 0 && !d.devicesChanged() {
				continue
			}
		case <-d.wake:
		case <-look.C:
		}
		retry = min(max(2*retry, retryFirst), retryLast)
		wait := retry
		if d.pass() {
			retry, wait = 0, glance
		}
		look.Reset(wait)
	}
}

// quieten waits until nothing more is heard, or patience ends. It says whether
// to go on.
func (d *Datapath) quieten(ctx context.Context) bool {
	end := time.Now().Add(patience)
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-d.heard:
			timer.Reset(min(quiet, max(0, time.Until(end))))
		}
	}
}

// devicesChanged says whether what was heard concerns devices at all; most is
// of routes.
func (d *Datapath) devicesChanged() bool {
	seen, err := d.look()
	return err != nil || !maps.Equal(seen, d.seen)
}

// runGC collects, and says when to do so again.
func (d *Datapath) runGC() time.Duration {
	stats := d.GC()
	before := stats.FlowsRemoved + stats.NATsRemoved
	if d.now != nil {
		if err := d.now.maps.collect(&stats); err != nil {
			d.config.Report(err)
		}
	}
	removed := stats.FlowsRemoved + stats.NATsRemoved - before
	stats.Interval = nextGC(stats.Interval, removed, uint64(stats.Flows+stats.NATs))
	d.mu.Lock()
	d.gc = stats
	d.mu.Unlock()
	return stats.Interval
}

// pass looks once and mends what is not as it should be. It says whether all
// went well.
func (d *Datapath) pass() bool {
	d.mu.Lock()
	state, pods, known, version := d.state, d.pods, d.podsKnown, d.version
	d.mu.Unlock()
	if state == nil {
		return true
	}
	if state.Cluster == nil {
		return d.clear(version)
	}
	p := &pass{d: d, state: *state, pods: pods, podsKnown: known, inUse: make(map[int]bool)}
	p.run()
	d.publish(version, p)
	if d.config.OnTunnel != nil {
		d.config.OnTunnel(p.tunnel())
	}
	if d.config.OnPods != nil {
		d.config.OnPods(p.reached())
	}
	return p.healthy()
}

// clear removes everything, for a state without a cluster.
func (d *Datapath) clear(version uint64) bool {
	d.hub.use(Maps{})
	d.now, d.seen = nil, nil
	err := d.hooks.removeAll()
	var objects []api.Object
	if err != nil {
		objects = []api.Object{{Kind: kindProgram, Name: "all", Owner: api.OwnerAgent, Condition: api.Failed, Reason: "remove: " + err.Error()}}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.objects, d.status = objects, nil
	if d.version == version {
		d.settled = version
	}
	return err == nil
}
