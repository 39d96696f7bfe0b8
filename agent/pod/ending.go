//go:build linux

package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

// partingTime is how long a pod goes on as before when it is already told to be
// terminating. Meanwhile all nodes learn that, connections that are on their way
// arrive, and whoever takes its place starts. Kubernetes has no such time: there
// manifests have a preStop hook that sleeps, or users see some refusals.
const partingTime = 500 * time.Millisecond

// parting is partingTime, or less for a pod that is to end at once.
func parting(grace time.Duration) time.Duration { return min(partingTime, grace/2) }

// end ends the pod: its sandbox gets SIGTERM when it is drained, and after the
// grace SIGKILL; then all of it is removed.
func (w *worker) end(want *record, pid int) (time.Duration, error) {
	w.health.stop()
	if pid != 0 {
		return w.endSandbox(pid)
	}
	if _, err := os.Stat(w.dir); err == nil {
		// With the lock held no sandbox of an agent before can begin.
		held, err := claim(w.dir)
		if errors.Is(err, errHeld) {
			return w.waitForNumber()
		}
		if err != nil {
			return 0, err
		}
		defer held.Close()
	}
	if err := w.remove(); err != nil {
		return 0, err
	}
	w.ending, w.told, w.record, w.configured, w.heldSince = false, false, nil, 0, time.Time{}
	w.health.reset()
	if want == nil {
		return 0, errGone
	}
	return 0, nil // made anew at once
}

func (w *worker) endSandbox(pid int) (time.Duration, error) {
	if !w.ending {
		// One of the agent before is not listened to yet.
		if err := w.listen(); err != nil {
			return 0, err
		}
		w.ending = true
		grace := time.Duration(0)
		if w.record != nil {
			grace = w.record.Pod.Grace
			s := w.look(w.record)
			w.health.stop()
			s.Phase, s.Ready = api.PodTerminating, false
			w.publish(s, nil)
		}
		w.drained = time.Now().Add(parting(grace))
		w.endBy = w.drained.Add(grace + endMargin)
	}
	if left := time.Until(w.drained); left > 0 {
		return left, nil
	}
	if !w.told {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, fmt.Errorf("end the sandbox: %w", err)
		}
		w.told = true
	}
	if left := time.Until(w.endBy); left > 0 {
		return left, nil
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return 0, fmt.Errorf("kill the sandbox: %w", err)
	}
	return startPoll, nil
}

// remove removes what is left of a pod whose sandbox has ended.
func (w *worker) remove() error {
	w.closeNetwork()
	if err := w.killLeft(); err != nil {
		return err
	}
	if err := unplug(w.m.node, w.uid); err != nil {
		return err
	}
	if w.m.config.Cgroup != "" {
		if err := removeCgroup(filepath.Join(w.m.config.Cgroup, "pods", w.uid)); err != nil {
			return fmt.Errorf("remove the pod's cgroup: %w", err)
		}
	}
	return os.RemoveAll(w.dir)
}

// killLeft kills what a sandbox left that was killed.
func (w *worker) killLeft() error {
	if w.m.config.Cgroup != "" {
		return killCgroup(filepath.Join(w.m.config.Cgroup, "pods", w.uid))
	}
	return killMarked(w.uid)
}
