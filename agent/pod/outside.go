//go:build linux

package pod

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// outside is the machine's /proc, which a sandbox keeps hold of below its own:
// there it reads by which numbers its processes are known to the agent.
type outside struct{ proc *os.Root }

// ownProc mounts a /proc that shows the pod's processes alone, in place of the
// machine's, and returns that. The calling process is the first one of its PID
// namespace.
func ownProc() (outside, error) {
	if os.Getpid() != 1 {
		return outside{}, errors.New("it is to be the first process of a PID namespace")
	}
	proc, err := os.OpenRoot("/proc")
	if err != nil {
		return outside{}, err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		proc.Close()
		return outside{}, fmt.Errorf("mount the pod's /proc: %w", err)
	}
	return outside{proc}, nil
}

// number is the calling process's.
func (o outside) number() (int, error) {
	text, err := o.proc.Readlink("self")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// numberOf is that of the process behind a pidfd (pidfd_open(2)).
func (o outside) numberOf(pidfd int) (int, error) {
	text, err := o.proc.ReadFile("self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Pid:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("descriptor %d is no pidfd", pidfd)
}
