//go:build linux

package pod

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The marks in the environment of a pod's processes.
const (
	markLab       = "LABCTL_LAB"
	markNode      = "LABCTL_NODE"
	markPod       = "LABCTL_POD" // the UID
	markContainer = "LABCTL_CONTAINER"
)

// foreignMarks are the agent's own, by which labctl knows a service's process.
// A sandbox that bore them would be taken for the agent.
var foreignMarks = []string{"LABCTL_SERVICE=", "LABCTL_LOCK=", "LABCTL_EXECUTABLE=", "LABCTL_ARGUMENTS="}

// errHeld is a lock that a sandbox has.
var errHeld = errors.New("a sandbox holds the pod")

// claim takes a pod's lock, or returns errHeld. Who starts a sandbox passes the
// file on to it and closes its own. The file is open for reading only: that one
// open for writing was closed is how the end of a sandbox is heard of.
func claim(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(int(f.Fd())); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

func lock(fd int) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errHeld
	}
	return err
}

// sandboxOf returns the number of the process that holds the pod, or 0 where
// none does or it has yet to say its number.
func sandboxOf(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, lockFile))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0
	}
	// The number may have gone to another process since; a dead one has no
	// environment any more.
	marks := marksOf(pid)
	if marks[markPod] != filepath.Base(dir) || marks[markContainer] != "" {
		return 0
	}
	return pid
}

// marksOf are a process's marks, none where it has ended.
func marksOf(pid int) map[string]string {
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil
	}
	marks := make(map[string]string)
	for variable := range bytes.SplitSeq(environment, []byte{0}) {
		if name, value, ok := strings.Cut(string(variable), "="); ok && strings.HasPrefix(name, "LABCTL_") {
			marks[name] = value
		}
	}
	return marks
}
