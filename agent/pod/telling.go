//go:build linux

package pod

import (
	"fmt"
	"reflect"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

// settle tells how the pod stands.
func (w *worker) settle(want *record, version uint64) {
	s := w.look(want)
	o := api.Object{Kind: kindPod, Name: want.Pod.Key(), Owner: api.OwnerAgent, Condition: api.InPlace}
	switch {
	case w.drifted != "":
		o.Condition, o.Reason = api.Drifted, w.drifted
	case s.Phase == api.PodPending:
		o.Condition, o.Reason = api.Pending, "its containers are being started"
	default:
		o.Reason = troubles(s)
	}
	w.m.mu.Lock()
	w.seen = version
	w.m.mu.Unlock()
	w.publish(s, &o)
}

// look reads what the sandbox says, and sees to the containers' checks.
func (w *worker) look(r *record) api.PodStatus {
	pid := w.child
	if pid == 0 {
		pid = sandboxOf(w.dir)
	}
	said := w.said(pid)
	w.health.follow(r, said)
	s := r.describe(said, w.health.passed, false)
	s.PID = pid
	if w.network != nil {
		s.NetnsInode, s.Index = w.network.inode, w.index
	}
	return s
}

// said is what the sandbox pid says of its containers, nil where it does not yet.
func (w *worker) said(pid int) *status {
	var now status
	if err := readJSON(w.dir, statusFile, &now); err != nil || pid == 0 || now.PID != pid {
		return nil
	}
	return &now
}

// glimpse is the status of a pod of the agent before, as it stands now: while
// one agent takes over from another a pod must not seem to be gone.
func (w *worker) glimpse(r *record) api.PodStatus {
	pid := sandboxOf(w.dir)
	w.health.load()
	s := r.describe(w.said(pid), w.health.passed, false)
	s.PID = pid
	var st unix.Stat_t
	if pid != 0 && unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) == nil {
		s.NetnsInode = st.Ino
	}
	if link, err := find(w.m.node, s.Device); err == nil && link != nil {
		s.Index = link.Attrs().Index
	}
	return s
}

// fail makes err the reason why the pod is not in place.
func (w *worker) fail(err error) {
	w.m.mu.Lock()
	o := w.object
	want := w.want
	if want != nil {
		w.seen = w.version
	}
	w.m.mu.Unlock()
	if want == nil && o.Name == "" {
		o = api.Object{Kind: kindPod, Name: w.uid, Owner: api.OwnerAgent}
		if w.record != nil {
			o.Name = w.record.Pod.Key()
		}
	}
	o.Condition, o.Reason = api.Failed, err.Error()
	if want == nil || w.ending {
		w.m.mu.Lock()
		s := w.status
		w.m.mu.Unlock()
		w.publish(s, &o)
		return
	}
	w.publish(w.look(want), &o)
}

// publish makes these the pod's status and object; without an object, that stays.
func (w *worker) publish(s api.PodStatus, o *api.Object) {
	w.m.mu.Lock()
	differs := !reflect.DeepEqual(w.status, s)
	w.status = s
	if o != nil {
		w.object = *o
	}
	w.m.mu.Unlock()
	if differs {
		w.m.changed()
	}
}
