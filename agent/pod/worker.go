//go:build linux

package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// A sandbox that ended within shortLife ended of something that stays.
	shortLife = 3 * time.Second
	// startWait is how long a sandbox may take from the lock to its number in it.
	startWait = 5 * time.Second
	startPoll = 20 * time.Millisecond
	// endMargin is what a sandbox gets beyond its pod's grace to end by itself.
	endMargin = 500 * time.Millisecond
	// removalTime is what somebody gets to remove a pod's directory, of which
	// something is just missed: what is made anew meanwhile would go, too.
	removalTime = 100 * time.Millisecond
	// logTail is how much of a sandbox's log goes into an error, in bytes.
	logTail = 400
)

// errGone says that nothing is left of a pod that is not wanted.
var errGone = errors.New("gone")

// worker makes one pod real.
type worker struct {
	m    *Manager
	uid  string
	dir  string
	poke chan struct{} // something may have changed
	urge chan struct{} // a new state: at once
	// links is set when a link of the node changed, inside when anything of the
	// pod's network did.
	links, inside atomic.Bool
	// exited is the sandbox that this manager started and that ended.
	exited atomic.Pointer[exit]
	health health

	// Of the manager, under its lock.
	want    *record // nil: it is to end
	version uint64  // of the state that want came with
	seen    uint64  // the version that was looked at
	status  api.PodStatus
	object  api.Object
	mended  int
	runs    bool

	// Of run alone.
	record     *record     // as it is on disk
	child      int         // the sandbox that this manager started
	holder     int         // the sandbox that the pod had last, whoever started it
	lock       os.FileInfo // that it holds
	network    *network
	index      int    // of the node's end of the link
	configured uint64 // the version for which the inside was configured
	drifted    string
	looked     time.Time // when the link was looked at
	ending     bool
	drained    time.Time // when the sandbox is to be told
	told       bool      // that it is to end
	endBy      time.Time
	heldSince  time.Time
}

// exit is how a sandbox ended.
type exit struct {
	pid   int
	lived time.Duration
	err   error
}

func newWorker(m *Manager, uid string) *worker {
	w := &worker{m: m, uid: uid, dir: filepath.Join(m.config.DataDir, "pods", uid),
		poke: make(chan struct{}, 1), urge: make(chan struct{}, 1)}
	w.health = health{worker: w}
	return w
}

// setWant is called under the manager's lock.
func (w *worker) setWant(r *record) {
	w.want, w.version = r, w.m.version
	if w.status.Name == "" {
		w.status = r.describe(nil, nil, false)
	}
	if w.object.Name == "" {
		w.object = api.Object{Kind: kindPod, Name: r.Pod.Key(), Owner: api.OwnerAgent, Condition: api.Pending, Reason: "its sandbox is being made"}
	}
}

func (w *worker) desired() (*record, uint64) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	return w.want, w.version
}

// run works until the pod is gone or ctx ends.
func (w *worker) run(ctx context.Context) {
	defer w.letGo()
	retry := time.Duration(0)
	for ctx.Err() == nil {
		wait, err := w.step(ctx)
		switch {
		case errors.Is(err, errGone):
			if w.m.forget(w) {
				w.m.changed()
				return
			}
			retry = 0
		case err != nil:
			retry = min(max(2*retry, retryFirst), retryLast)
			w.fail(err)
			w.pauseFailed(ctx, retry)
		default:
			retry = 0
			w.pause(ctx, wait)
		}
	}
}

// letGo closes all that looks at the pod.
func (w *worker) letGo() {
	w.health.stop()
	w.closeNetwork()
}

func (w *worker) closeNetwork() {
	if w.network != nil {
		w.network.close()
		w.network = nil
	}
}

func (w *worker) pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-w.urge:
	case <-w.poke:
	}
}

// pauseFailed waits for the retry or a new state. What the containers do is
// told meanwhile.
func (w *worker) pauseFailed(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-w.urge:
			return
		case <-w.poke:
			if r, _ := w.desired(); r != nil && !w.ending {
				w.publish(w.look(r), nil)
			}
		}
	}
}

// step looks at the pod and does what is to be done now. It is called again
// after the time that it returns, or sooner.
func (w *worker) step(ctx context.Context) (time.Duration, error) {
	want, version := w.desired()
	pid, err := w.sandbox()
	if err != nil {
		return 0, err
	}
	said := w.said(pid)
	switch {
	case want == nil, w.ending, said != nil && said.Ending, pid != 0 && w.record != nil && want.replaces(*w.record):
		return w.end(want, pid)
	}
	if err := w.prepare(want); err != nil {
		return 0, err
	}
	if pid == 0 {
		held, err := claim(w.dir)
		if errors.Is(err, errHeld) {
			return w.waitForNumber()
		}
		if err != nil {
			return 0, err
		}
		err = w.start(ctx, want, held)
		held.Close()
		if err != nil {
			return 0, err
		}
		w.configured = version
	}
	w.heldSince = time.Time{}
	if err := w.connect(want, version, pid); err != nil {
		return 0, err
	}
	w.settle(want, version)
	return glance, nil
}

// sandbox is the process that holds the pod, 0 where none does. One that ended
// right after its start is an error.
func (w *worker) sandbox() (int, error) {
	if e := w.exited.Swap(nil); e != nil && e.pid == w.child {
		w.child = 0
		w.closeNetwork()
		if e.lived < shortLife && !w.ending {
			return 0, fmt.Errorf("the sandbox ended at once: %v; %s says: %s", e.err, filepath.Join(w.dir, logFile), tail(filepath.Join(w.dir, logFile)))
		}
	}
	if w.holder != 0 && !(w.locked() && w.recorded()) {
		time.Sleep(removalTime)
		if !w.locked() {
			// Somebody removed the directory, and with it the lock: nobody can find
			// the sandbox any more. What is left of a pod ends when it is made anew,
			// by its cgroup or its marks.
			if w.child != 0 {
				_ = unix.Kill(w.child, unix.SIGKILL) // it may be too young to have those
			}
			w.child, w.holder = 0, 0
			w.closeNetwork()
		}
	}
	if w.child != 0 {
		return w.child, nil
	}
	pid := sandboxOf(w.dir)
	if pid == 0 {
		w.closeNetwork()
	}
	if w.holder != pid {
		w.holds(pid)
	}
	return pid, nil
}

// holds remembers the pod's lock as that of the sandbox.
func (w *worker) holds(pid int) {
	lock, err := os.Stat(filepath.Join(w.dir, lockFile))
	if err != nil {
		pid = 0 // it has gone by now
	}
	w.holder, w.lock = pid, lock
}

// locked says whether the lock in the pod's directory is still its sandbox's.
func (w *worker) locked() bool {
	now, err := os.Stat(filepath.Join(w.dir, lockFile))
	return err == nil && os.SameFile(now, w.lock)
}

// recorded says whether what the pod is to be is in its directory.
func (w *worker) recorded() bool {
	_, err := os.Stat(filepath.Join(w.dir, recordFile))
	return err == nil
}

// tail is the end of a log, for an error.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil || len(text) == 0 {
		return "nothing"
	}
	return strings.TrimSpace(string(text[max(0, len(text)-logTail):]))
}

// waitForNumber is for a lock whose holder has yet to say who it is.
func (w *worker) waitForNumber() (time.Duration, error) {
	if w.heldSince.IsZero() {
		w.heldSince = time.Now()
	}
	if time.Since(w.heldSince) > startWait {
		path := filepath.Join(w.dir, lockFile)
		return 0, fmt.Errorf("%s is locked by a process that is not its sandbox (fuser %s)", path, path)
	}
	return startPoll, nil
}

// prepare makes the pod's directory with its files.
func (w *worker) prepare(want *record) error {
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	if err := w.listen(); err != nil {
		return err
	}
	hosts, err := os.ReadFile(w.m.config.Hosts)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := want.ensureFiles(w.dir, string(hosts)); err != nil {
		return err
	}
	if w.recorded() && w.record != nil && reflect.DeepEqual(*w.record, *want) {
		return nil
	}
	if err := writeJSON(w.dir, recordFile, want); err != nil {
		return err
	}
	w.record = want
	return nil
}

// listen makes run hear of what the sandbox says, and of its end.
func (w *worker) listen() error {
	return w.m.notices.add(w.dir, func() { nudge(w.poke) })
}

// start starts the pod's sandbox, when nothing is left of the one before.
func (w *worker) start(ctx context.Context, want *record, held *os.File) error {
	lock, err := held.Stat()
	if err != nil {
		return err
	}
	select {
	case w.m.slots <- struct{}{}:
		defer func() { <-w.m.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := w.killLeft(); err != nil {
		return err
	}
	if want.Cgroup != "" {
		if err := freshCgroup(want.Cgroup); err != nil {
			return fmt.Errorf("make the pod's cgroup: %w", err)
		}
	}
	s, err := start(w.m.config.Executable, w.dir, *want, w.m.node, held)
	if err != nil {
		return err
	}
	w.child, w.index = s.cmd.Process.Pid, s.index
	w.holder, w.lock = w.child, lock
	w.useNetwork(s.network)
	began := time.Now()
	go func() {
		err := s.cmd.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		w.exited.Store(&exit{s.cmd.Process.Pid, time.Since(began), err})
		nudge(w.poke)
	}()
	return nil
}

func (w *worker) useNetwork(n *network) {
	w.network = n
	w.inside.Store(true)
	go n.listen(func() {
		w.inside.Store(true)
		nudge(w.poke)
	})
}

// connect sees to the pod's link: the node's end is mended whenever it differs,
// the inside only for a new state, or with a new link.
func (w *worker) connect(want *record, version uint64, pid int) error {
	if w.network == nil {
		ns, err := netns.GetFromPid(pid)
		if err != nil {
			return fmt.Errorf("open the pod's network namespace: %w", err)
		}
		n, err := openNetwork(ns)
		if err != nil {
			return err
		}
		w.useNetwork(n)
	}
	due := w.configured != version || time.Since(w.looked) >= glance
	inside := w.inside.Swap(false) || due
	if !w.links.Swap(false) && !inside {
		return nil
	}
	err := w.mend(want, version, inside)
	if err != nil {
		w.links.Store(true)
		w.looked = time.Time{}
	}
	return err
}

// mend is connect when there is something to look at.
func (w *worker) mend(want *record, version uint64, inside bool) error {
	index, changed, made, err := w.network.plug(w.m.node, *want)
	if err != nil {
		return err
	}
	w.index = index
	if changed && w.configured == version {
		w.m.mu.Lock()
		w.mended++
		w.m.mu.Unlock()
	}
	if made {
		w.configured = 0
	}
	if w.configured != version {
		if err := w.network.configure(*want); err != nil {
			return err
		}
		w.configured, inside = version, true
	}
	if !inside {
		return nil
	}
	differs, err := w.network.drift(*want)
	if err != nil {
		return err
	}
	w.drifted, w.looked = strings.Join(differs, "; "), time.Now()
	return nil
}
