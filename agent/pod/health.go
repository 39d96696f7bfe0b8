//go:build linux

package pod

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/native-routing/labctl/agent/api"
)

// health follows the checks of one pod's containers.
type health struct {
	worker *worker

	mu      sync.Mutex
	ready   map[string]readiness
	follows map[string]following
	done    sync.WaitGroup
}

// readiness is the last verdict on a container. It is kept on disk, so that a
// pod stays ready while one agent takes over from another.
type readiness struct {
	PID    int  `json:"pid"` // of the program that it is about
	Passed bool `json:"passed"`
}

// following is the checks of a running program.
type following struct {
	pid    int
	cancel context.CancelFunc
}

// load takes over what the agent before found.
func (h *health) load() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ready != nil {
		return
	}
	h.ready, h.follows = make(map[string]readiness), make(map[string]following)
	if err := readJSON(h.worker.dir, readyFile, &h.ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		h.worker.m.config.Report(err) // it is found out anew
	}
	if h.ready == nil {
		h.ready = make(map[string]readiness)
	}
}

// reset forgets all, when the checks are stopped.
func (h *health) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready, h.follows = nil, nil
}

// follow begins to check what runs, and stops to check what does not any more.
func (h *health) follow(r *record, said *status) {
	h.load()
	h.mu.Lock()
	defer h.mu.Unlock()
	running := make(map[string]container)
	if said != nil {
		for _, c := range said.Containers {
			if c.PID != 0 {
				running[c.Name] = c
			}
		}
	}
	for name, f := range h.follows {
		if running[name].PID != f.pid {
			f.cancel()
			delete(h.follows, name)
		}
	}
	for _, spec := range r.Pod.Spec.Containers {
		c, runs := running[spec.Name]
		if _, followed := h.follows[spec.Name]; !runs || followed || spec.Readiness == nil && spec.Liveness == nil {
			continue
		}
		h.begin(r, spec, c)
	}
}

func (h *health) begin(r *record, spec api.Container, c container) {
	ctx, cancel := context.WithCancel(context.Background())
	h.follows[spec.Name] = following{c.PID, cancel}
	s := subject{key: r.Pod.Key(), address: r.Pod.Address, container: spec.Name, pid: c.PID, started: c.Started}
	uid, grace := r.Pod.UID, r.Pod.Grace
	if check := spec.Readiness; check != nil {
		last := h.ready[spec.Name]
		passing := last.PID == c.PID && last.Passed
		h.done.Go(func() {
			h.worker.m.prober.follow(ctx, *check, s, passing, true, func(passing bool) { h.note(ctx, s, passing) })
		})
	}
	if check := spec.Liveness; check != nil {
		h.done.Go(func() {
			h.worker.m.prober.follow(ctx, *check, s, true, false, func(passing bool) {
				if !passing {
					endContainer(ctx, s, uid, grace)
				}
			})
		})
	}
}

// note keeps a verdict and lets it be told.
func (h *health) note(ctx context.Context, s subject, passing bool) {
	h.mu.Lock()
	if ctx.Err() != nil {
		h.mu.Unlock()
		return // it is about a program that has ended
	}
	h.ready[s.container] = readiness{s.pid, passing}
	if err := writeJSON(h.worker.dir, readyFile, h.ready); err != nil {
		h.worker.m.config.Report(err) // only the next agent needs it
	}
	h.mu.Unlock()
	nudge(h.worker.poke)
}

// passed says whether the running container is ready by its check.
func (h *health) passed(c container) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.ready[c.Name]
	return last.PID == c.PID && last.Passed
}

// stop ends all checks.
func (h *health) stop() {
	h.mu.Lock()
	for _, f := range h.follows {
		f.cancel()
	}
	clear(h.follows)
	h.mu.Unlock()
	h.done.Wait()
}
