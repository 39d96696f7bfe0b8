//go:build linux

package route

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netns"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

const (
	// quiet is how long the kernel must be silent before a look, so that one
	// look serves a burst; patience bounds the wait in a storm.
	quiet    = 20 * time.Millisecond
	patience = 80 * time.Millisecond
	// A storm that our own changes keep up (somebody undoes them at once) may not
	// eat the machine: after calmAfter looks in a row that had to mend something,
	// the next wait is slow. Silence of rowEnds after a look ends the row.
	calmAfter = 10
	slow      = 400 * time.Millisecond
	rowEnds   = 10 * time.Millisecond
	// retries of what failed are doubled from retryFirst to retryLast.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
	// glance is how often to look though nothing was heard: some sysctls and
	// devices change without a notification.
	glance = time.Minute
	// maxRounds bounds the looks of one pass. Each round sees what the last
	// one did; two are enough unless somebody interferes.
	maxRounds = 5
)

// Config is what a [Reconciler] works on.
type Config struct {
	// Namespace to look at; netns.None() is the caller's own.
	Namespace netns.NsHandle
	Sysctls   Sysctls
	// Report is told each error that no object bears, and each return to health
	// as nil. It must not block.
	Report func(error)
}

// Reconciler keeps one network namespace in line with a state. Its methods are
// safe for concurrent use.
type Reconciler struct {
	kernel *kernel
	watch  *rtnl.Watch
	report func(error)
	wake   chan struct{} // a new state
	heard  chan struct{} // a change in the kernel

	unset map[string]string // sysctls that could not be written, and why; only Run's

	mu      sync.Mutex
	state   *api.State
	version uint64 // counts the states; a repeated one counts anew
	settled uint64 // the version that objects speak of
	learned Learned
	guarded int // index of the device that Guard told of
	objects []api.Object
	mended  map[Key]int
}

// New opens the namespace and begins to listen to it; [Reconciler.Run] does the
// work, once.
func New(config Config) (*Reconciler, error) {
	k, err := openKernel(config.Namespace, config.Sysctls)
	if err != nil {
		return nil, err
	}
	watch, err := rtnl.NewWatch(config.Namespace, k.reader.Conn.Port())
	if err != nil {
		k.close()
		return nil, err
	}
	return &Reconciler{
		kernel: k,
		watch:  watch,
		report: config.Report,
		wake:   make(chan struct{}, 1),
		heard:  make(chan struct{}, 1),
		mended: make(map[Key]int),
	}, nil
}

// Tables reads the namespace's tables.
func (r *Reconciler) Tables() (api.Tables, error) { return r.kernel.reader.Read() }

// Lookup asks the namespace's FIB.
func (r *Reconciler) Lookup(queries []api.Lookup) ([]api.Decision, error) {
	return r.kernel.reader.Lookup(queries)
}

// Set gives the state to hold, and returns at once. The state's sysctls are
// written again even if it is the one that is held already.
func (r *Reconciler) Set(state api.State) {
	_, objects := Plan(state, Observation{})
	for i := range objects {
		objects[i].Condition, objects[i].Reason = api.Pending, ""
	}
	r.mu.Lock()
	if r.state != nil && len(r.objects) == len(objects) && r.state.Generation == state.Generation {
		objects = r.objects // what was seen last says more than nothing
	}
	r.state, r.objects = &state, objects
	r.version++
	r.mu.Unlock()
	signal(r.wake)
}

// Learn gives what BGP taught, in place of what was given before. The state is
// not settled again before its routes are in place.
func (r *Reconciler) Learn(l Learned) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.Complete == r.learned.Complete && slices.Equal(l.Routes, r.learned.Routes) {
		return
	}
	r.learned = l
	if r.state != nil {
		r.version++
	}
	signal(r.wake)
}

// Guard tells the index of the tunnel's device when the datapath's programs are
// on it, 0 while they are not. In a state with a cluster the device is not set up
// before: what comes through a tunnel without programs the kernel would answer
// itself, and break connections that the node only stands in for.
func (r *Reconciler) Guard(index int) {
	r.mu.Lock()
	changed := r.guarded != index
	r.guarded = index
	r.mu.Unlock()
	if changed {
		signal(r.wake)
	}
}

// Status is how each object of the state that was set last stands; it lacks
// only the agent's version. Sysctls are read anew, and so is what hands add
// beside routes: the kernel does not tell when most of that changes.
func (r *Reconciler) Status() api.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == nil {
		return api.Status{Objects: []api.Object{}}
	}
	settled := r.settled == r.version
	objects := make([]api.Object, len(r.objects))
	wanted := make(map[string]api.Sysctl, len(r.state.Sysctls))
	for _, s := range r.state.Sysctls {
		wanted[s.Name] = s
	}
	for i, o := range r.objects {
		want, ok := wanted[o.Name]
		if ok && o.Kind == kindSysctl && o.Condition != api.Pending && o.Condition != api.Failed {
			o.Condition, o.Reason = judgeSysctl(want, readSysctls(r.kernel.sysctls, []api.Sysctl{want})[0])
		}
		o.Mended = r.mended[Key{o.Kind, o.Name}]
		settled = settled && o.Condition != api.Pending && o.Condition != api.Failed
		objects[i] = o
	}
	objects = append(objects, r.kernel.strangers(r.state.Underlay)...)
	return api.Status{Node: r.state.Node, Generation: r.state.Generation, Settled: settled, Objects: objects}
}

// Objects is how each object of the state that was set last stands. Settled
// means that all were looked at since, and none is pending or failed.
func (r *Reconciler) Objects() (objects []api.Object, settled bool) {
	status := r.Status()
	return status.Objects, status.Settled
}

// Close closes the sockets, when Run has ended and no other call is under way.
func (r *Reconciler) Close() { r.kernel.close() }

// Run works until ctx ends, and leaves everything in place.
func (r *Reconciler) Run(ctx context.Context) {
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		r.listen()
	}()
	r.loop(ctx)
	_ = r.watch.Close()
	<-listening
}

// listen turns what the kernel tells into one pending signal.
func (r *Reconciler) listen() {
	for {
		err := r.watch.Wait()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			r.report(err)
			time.Sleep(retryFirst) // an error that stays must not spin
		}
		signal(r.heard)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *Reconciler) loop(ctx context.Context) {
	retry, row := time.Duration(0), 0
	var written uint64 // the version whose sysctls were written
	for {
		wait := glance
		if retry > 0 {
			wait = retry
		}
		idle := time.Now()
		heard, ok := r.pause(ctx, wait)
		if ok && heard {
			if time.Since(idle) > rowEnds {
				row = 0
			}
			ok = r.quieten(ctx, row >= calmAfter)
		}
		if !ok {
			return
		}
		changed, healthy := r.pass(ctx, &written)
		if changed {
			row++
		}
		if healthy {
			retry = 0
		} else {
			retry = min(max(2*retry, retryFirst), retryLast)
		}
	}
}

// pause waits for a reason to look: a new state, a change that was heard of, or
// the end of wait. ok is false when ctx has ended.
func (r *Reconciler) pause(ctx context.Context, wait time.Duration) (heard, ok bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, false
	case <-r.wake:
		return false, true
	case <-timer.C:
		return false, true
	case <-r.heard:
		return true, true
	}
}

// quieten waits until nothing more is heard, or patience ends. It says whether
// to go on.
func (r *Reconciler) quieten(ctx context.Context, calm bool) bool {
	still, end := quiet, time.Now().Add(patience)
	if calm {
		still, end = slow, time.Now().Add(slow)
	}
	timer := time.NewTimer(still)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-r.wake:
			return true
		case <-timer.C:
			return true
		case <-r.heard:
			timer.Reset(min(still, max(0, time.Until(end))))
		}
	}
}

// pass looks and mends until nothing is left to mend, or only what failed. It
// says whether it changed anything, and whether all went well.
func (r *Reconciler) pass(ctx context.Context, written *uint64) (changed, healthy bool) {
	r.mu.Lock()
	state, version, learned, guarded := r.state, r.version, r.learned, r.guarded
	r.mu.Unlock()
	if state == nil {
		return false, true
	}
	r.writeSysctls(state.Sysctls, *written != version)
	*written = version
	failed := make(map[Key]error)
	for round := 1; ; round++ {
		seen, err := r.kernel.observe(*state)
		if err != nil {
			r.report(fmt.Errorf("look at the kernel's tables: %w", err))
			return changed, false
		}
		seen.Learned, seen.Guarded = learned, guarded
		actions, objects := Plan(*state, seen)
		todo := actions[:0:0]
		for _, a := range actions {
			if failed[a.Object] == nil {
				todo = append(todo, a)
			}
		}
		if len(todo) == 0 || round == maxRounds || ctx.Err() != nil {
			return changed, r.publish(version, objects, actions, failed)
		}
		r.countMended(version, todo)
		for key, err := range r.kernel.apply(todo) {
			failed[key] = err
		}
		changed = true
	}
}

// writeSysctls writes those that differ: all of a new state's, and otherwise
// only what could not be written before. Who changes one later has his way.
func (r *Reconciler) writeSysctls(wanted []api.Sysctl, all bool) {
	if !all && len(r.unset) == 0 {
		return
	}
	unset := make(map[string]string)
	for _, want := range wanted {
		if _, again := r.unset[want.Name]; !all && !again {
			continue
		}
		if value, err := r.kernel.sysctls.Read(want.Name); err == nil && sameValue(value, want.Value) {
			continue
		}
		if err := r.kernel.sysctls.Write(want.Name, want.Value); err != nil {
			unset[want.Name] = err.Error()
		}
	}
	r.unset = unset
}

// countMended counts objects of this very state that were in place before.
func (r *Reconciler) countMended(version uint64, actions []Action) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.settled != version || r.version != version {
		return
	}
	broken := make(map[Key]bool, len(actions))
	for _, a := range actions {
		broken[a.Object] = true
	}
	for i, o := range r.objects {
		key := Key{o.Kind, o.Name}
		if o.Owner == api.OwnerAgent && o.Condition == api.InPlace && broken[key] {
			r.mended[key]++
			r.objects[i].Condition = api.Pending // once for each time, however many rounds it takes
		}
	}
}

// publish makes objects the status, and says whether all went well. What is
// still to be done was refused by the kernel, or undone as fast as it was done.
func (r *Reconciler) publish(version uint64, objects []api.Object, open []Action, failed map[Key]error) bool {
	left := make(map[Key]string, len(open))
	for _, a := range open {
		key := a.Object
		if _, told := left[key]; told {
			continue
		}
		left[key] = "it is undone as soon as it is done: " + a.String()
		if err := failed[key]; err != nil {
			left[key] = err.Error()
		}
	}
	healthy := len(left) == 0
	for i, o := range objects {
		key := Key{o.Kind, o.Name}
		if reason, ok := left[key]; ok && o.Owner == api.OwnerAgent {
			objects[i].Condition, objects[i].Reason = api.Failed, reason
			delete(left, key)
		}
		if reason, ok := r.unset[o.Name]; ok && o.Kind == kindSysctl {
			objects[i].Condition, objects[i].Reason = api.Failed, reason
			healthy = false
		}
	}
	for key, reason := range left { // what is stale, and could not be removed
		objects = append(objects, api.Object{Kind: key.Kind, Name: key.Name, Owner: api.OwnerAgent, Condition: api.Failed, Reason: reason})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.version == version {
		r.objects, r.settled = objects, version
	}
	if healthy {
		r.report(nil)
	}
	return healthy
}
