//go:build linux

package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that runs in a lab's namespace.
type process struct {
	pid     int
	node    string // empty for the fabric
	command string
}

// spaces maps the inodes of network namespaces to the nodes they belong to.
type spaces map[uint64]string

// search is for the processes of a lab: those that are in one of its network
// namespaces or in one of its cgroups, and those in any other namespace but the
// machine's own that bear its mark. The latter made a namespace for themselves,
// as a pod does, or theirs has lost its name.
type search struct {
	lab string
	in  spaces
	// cgroup is the lab's; empty where there is none.
	cgroup string
	// wanted are the nodes that count, but in spaces, which has only those; "" is
	// for what belongs to the lab and to no node.
	wanted func(node string) bool
	// own is what no lab's process is in by its mark alone.
	own []string
}

func newSearch(lab string, in spaces, cgroup string, wanted func(node string) bool) (search, error) {
	own, err := ownSpaces()
	return search{lab: lab, in: in, cgroup: cgroup, wanted: wanted, own: own}, err
}

func (s search) processes() ([]process, error) {
	pids, err := pids()
	if err != nil {
		return nil, err
	}
	members := cgroupMembers(s.cgroup, s.wanted)
	var found []process
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}
		node, ok := members[pid]
		if !ok {
			node, ok = s.nodeBySpace(pid)
		}
		if ok {
			found = append(found, process{pid: pid, node: node, command: commandOf(pid)})
		}
	}
	return found, nil
}

// holds asks anew of one process.
func (s search) holds(pid int) bool {
	if node, ok := cgroupNode(pid, s.lab); ok && s.wanted(node) {
		return true
	}
	_, ok := s.nodeBySpace(pid)
	return ok
}

// ownSpaces are the machine's network namespace and labctl's, which no lab's
// process is in, whatever marks it bears.
func ownSpaces() ([]string, error) {
	self, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	if machine, err := os.Readlink("/proc/1/ns/net"); err == nil {
		return []string{self, machine}, nil
	}
	return []string{self}, nil
}

// nodeBySpace goes by the network namespace, and by the marks.
func (s search) nodeBySpace(pid int) (string, bool) {
	ns, err := os.Readlink(procPath(pid, "ns/net"))
	if err != nil {
		return "", false // gone, or a zombie
	}
	if node, ok := s.in[namespaceInode(ns)]; ok {
		return node, true
	}
	if slices.Contains(s.own, ns) {
		return "", false
	}
	marks := marksOf(pid)
	node := marks["LABCTL_NODE"]
	return node, marks["LABCTL_LAB"] == s.lab && node != "" && s.wanted(node)
}

func procPath(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// namespaceInode reads "net:[4026531840]".
func namespaceInode(link string) uint64 {
	_, rest, _ := strings.Cut(link, "[")
	n, _ := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 64)
	return n
}

func pids() ([]int, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// marksOf are the LABCTL_ variables that the process was started with.
func marksOf(pid int) map[string]string {
	environ, err := os.ReadFile(procPath(pid, "environ"))
	if err != nil {
		return nil
	}
	marks := map[string]string{}
	for variable := range bytes.SplitSeq(environ, []byte{0}) {
		if name, value, ok := strings.Cut(string(variable), "="); ok && strings.HasPrefix(name, "LABCTL_") {
			marks[name] = value
		}
	}
	return marks
}

// argvOf is empty for a process that is gone.
func argvOf(pid int) []string {
	cmdline, err := os.ReadFile(procPath(pid, "cmdline"))
	if err != nil || len(cmdline) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
}

// commandOf is for people to read.
func commandOf(pid int) string {
	if argv := argvOf(pid); len(argv) > 0 {
		return strings.Join(argv, " ")
	}
	comm, err := os.ReadFile(procPath(pid, "comm"))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(comm))
}

// killPoll is how often a process that was told to end is looked at where the
// kernel has no better way.
const killPoll = 2 * time.Millisecond

// killTime is how long a killed process may take to end.
const killTime = 10 * time.Second

// endProcesses sends SIGTERM to all, and SIGKILL to those that are left after
// grace. verify is asked once more after the process is held, since a number
// may have gone to another process. It returns when all have ended.
func endProcesses(ctx context.Context, pids []int, grace time.Duration, verify func(pid int) bool) error {
	var held []int32
	defer func() {
		for _, fd := range held {
			unix.Close(int(fd))
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("hold process %d: %w", pid, err)
		}
		if !verify(pid) {
			unix.Close(fd)
			continue
		}
		held = append(held, int32(fd))
	}
	signalAll := func(s unix.Signal) {
		for _, fd := range held {
			_ = unix.PidfdSendSignal(int(fd), s, nil, 0)
		}
	}
	signalAll(unix.SIGTERM)
	signalAll(unix.SIGCONT) // a stopped one would not see it
	if waitEnded(ctx, held, grace) {
		return nil
	}
	signalAll(unix.SIGKILL)
	// One that sleeps in the kernel ends when it wakes; it will not run again. The
	// first process of a PID namespace ends after all others of it.
	if !waitEnded(ctx, held, killTime) {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fmt.Errorf("processes %v do not end, not even by SIGKILL", pids)
	}
	return nil
}

// waitEnded polls the pidfds, which become readable when their process ends.
func waitEnded(ctx context.Context, fds []int32, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for {
		open := 0
		polls := make([]unix.PollFd, len(fds))
		for i, fd := range fds {
			polls[i] = unix.PollFd{Fd: fd, Events: unix.POLLIN}
		}
		if _, err := unix.Poll(polls, 0); err == nil {
			for _, p := range polls {
				if p.Revents == 0 {
					open++
				}
			}
			if open == 0 {
				return true
			}
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return false
		}
		time.Sleep(killPoll)
	}
}
