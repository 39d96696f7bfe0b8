//go:build linux

package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// emptyWithin is how long killed processes may take to be gone.
	emptyWithin = 2 * time.Second
	emptyPoll   = time.Millisecond
)

// errAlive are processes that do not end though they were killed.
var errAlive = errors.New("killed, and still there")

// join moves the calling process into the cgroup.
func join(cgroup string) error {
	return writeKernelFile(filepath.Join(cgroup, "cgroup.procs"), "0")
}

// writeKernelFile writes to a file that is never made here: in a directory that
// is not a cgroup there must be none.
func writeKernelFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// killCgroup kills all processes in the cgroup and below, and returns when they
// are gone. A cgroup that is not there is empty.
func killCgroup(cgroup string) error {
	deadline := time.Now().Add(emptyWithin)
	for {
		populated, err := populated(cgroup)
		if err != nil || !populated {
			return err
		}
		if err := signalCgroup(cgroup); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", cgroup, errAlive)
		}
		time.Sleep(emptyPoll)
	}
}

// freshCgroup makes an empty cgroup, in place of the one that may be there. One
// in which cgroup.kill was written must not be used again: Linux 6.18 kills
// every process that is started right into it by clone3(2), for it compares how
// often that cgroup was killed with the parent process's.
func freshCgroup(cgroup string) error {
	if err := killCgroup(cgroup); err != nil {
		return err
	}
	if err := removeCgroup(cgroup); err != nil {
		return err
	}
	return os.MkdirAll(cgroup, 0o755)
}

func populated(cgroup string) (bool, error) {
	events, err := os.ReadFile(filepath.Join(cgroup, "cgroup.events"))
	if gone(err) {
		return false, nil
	}
	return strings.Contains(string(events), "populated 1"), err
}

// gone says that err means that the cgroup is not there, or not any more.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

func signalCgroup(cgroup string) error {
	err := writeKernelFile(filepath.Join(cgroup, "cgroup.kill"), "1")
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Before Linux 5.14 there is no such file. Who forks meanwhile is met by the
	// next round.
	return filepath.WalkDir(cgroup, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return ignoreGone(err)
		}
		text, err := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		return ignoreGone(err)
	})
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// removeCgroup removes an empty cgroup with those below it.
func removeCgroup(cgroup string) error {
	entries, err := os.ReadDir(cgroup)
	if err != nil {
		return ignoreGone(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(cgroup, e.Name())); err != nil {
				return err
			}
		}
	}
	return ignoreGone(os.Remove(cgroup))
}

// killMarked kills all processes of the pod by their marks, and returns when
// they are gone: for a machine without cgroups.
func killMarked(uid string) error {
	deadline := time.Now().Add(emptyWithin)
	for {
		left, err := signalMarked(uid)
		if err != nil || left == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes of pod %s: %w", left, uid, errAlive)
		}
		time.Sleep(emptyPoll)
	}
}

func signalMarked(uid string) (found int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || marksOf(pid)[markPod] != uid {
			continue
		}
		if unix.Kill(pid, unix.SIGKILL) == nil {
			found++
		}
	}
	return found, nil
}
