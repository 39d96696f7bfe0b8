//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
)

const (
	// serviceGrace is between SIGTERM and SIGKILL for a service.
	serviceGrace = 2 * time.Second
	// serviceStart is how long a service may take until it holds its lock.
	serviceStart = 3 * time.Second
	startPoll    = time.Millisecond
	// logTail is how much of a service's log goes into an error, in bytes.
	logTail = 400
)

// EnsureService keeps one process running that holds the lock file
// <RunDir>/<name>.lock by flock(2), with its number inside; the file's path is
// in its environment as LABCTL_LOCK, and it takes the lock itself. Its output
// goes to <Dir>/<name>.log. What runs is read from the lock and from /proc, so
// there is no record that could be wrong: the process is started anew where its
// executable's file, its arguments, or its network namespace are others. It is
// ready when this returns without an error.
func (n *Node) EnsureService(ctx context.Context, s provision.Service) ([]provision.Change, error) {
	if len(s.Argv) == 0 || s.Name == "" || s.Name != filepath.Base(s.Name) {
		return nil, fmt.Errorf("%s: service %q: want a name and a command", n.name, s.Name)
	}
	defer n.provider.lock(n.at.lab, n.name+"/"+s.Name)()
	d := daemon{node: n, name: s.Name, argv: slices.Clone(s.Argv), restart: s.Restart, lock: filepath.Join(n.RunDir(), s.Name+".lock"),
		log: filepath.Join(n.Dir(), s.Name+".log")}
	if !filepath.IsAbs(d.argv[0]) {
		d.argv[0] = filepath.Join(n.Dir(), d.argv[0])
	}
	changes, err := d.ensure(ctx)
	if err != nil {
		return changes, fmt.Errorf("%s: service %s: %w", n.name, s.Name, err)
	}
	return changes, nil
}

// daemon is one service of one node.
type daemon struct {
	node *Node
	name string
	argv []string
	lock string
	log  string
	// restart is why it is started anew whatever it is; empty otherwise.
	restart string
}

func (d daemon) ensure(ctx context.Context) ([]provision.Change, error) {
	change := provision.Change{Verb: provision.Started, Node: d.node.name, Object: d.name}
	pid, held, err := d.holder(ctx)
	if err != nil {
		return nil, err
	}
	if held {
		reason := d.whyRestart(pid)
		if reason == "" {
			return nil, nil
		}
		change.Detail = "again, " + reason
		err = endProcesses(ctx, []int{pid}, serviceGrace, d.holds)
	} else {
		err = d.endUnlocked(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	return []provision.Change{change}, nil
}

// holder is the process that holds the lock.
func (d daemon) holder(ctx context.Context) (pid int, held bool, err error) {
	deadline := time.Now().Add(serviceStart)
	for {
		pid, held, err = lockHolder(d.lock)
		if err != nil || !held || pid > 0 {
			return pid, held, err
		}
		// It holds the lock and has yet to write its number.
		if time.Now().After(deadline) {
			return 0, true, fmt.Errorf("%s is locked by a process that does not say its number in it (fuser %s)", d.lock, d.lock)
		}
		if err := sleep(ctx, startPoll); err != nil {
			return 0, true, err
		}
	}
}

// lockHolder asks without taking the lock for longer than it takes to ask.
func lockHolder(path string) (pid int, held bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		// To close it is not enough: a process that is forked at this moment, for
		// another node, holds it too until it runs its program.
		return 0, false, unix.Flock(int(f.Fd()), unix.LOCK_UN)
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, false, fmt.Errorf("look at %s: %w", path, err)
	}
	if pid, err = numberIn(path); err != nil {
		return 0, true, nil
	}
	return pid, true, nil
}

// whyRestart compares the running process with what is asked for.
func (d daemon) whyRestart(pid int) string {
	if d.restart != "" {
		return d.restart
	}
	executable, err := identity(d.argv[0])
	if err != nil {
		return "" // there is nothing to start in its place
	}
	ns, err := inode(d.node.net)
	if err != nil {
		return ""
	}
	link, err := os.Readlink(procPath(pid, "ns/net"))
	marks := marksOf(pid)
	switch {
	case err != nil:
		return "it was ending"
	case namespaceInode(link) != ns:
		return "it was in a namespace that has gone"
	case !d.seesPins(pid):
		return "its BPF file system was mounted anew"
	case marks[markExecutable] != executable:
		return "its executable differs"
	case marks[markArguments] != argvID(d.argv):
		return "its arguments differ"
	default:
		return ""
	}
}

// seesPins says whether the process has the node's BPF directory before it: a
// mount that was made after its start it may not see.
func (d daemon) seesPins(pid int) bool {
	var here, there unix.Stat_t
	dir := d.node.BPFDir()
	if unix.Stat(dir, &here) != nil {
		return true // there is nothing to see
	}
	return unix.Stat(procPath(pid, "root")+dir, &there) == nil && here.Dev == there.Dev
}

// The record of what a service was started from is in its own environment: it
// comes and goes with the process, so it cannot be wrong.
const (
	markService    = "LABCTL_SERVICE"
	markLock       = "LABCTL_LOCK"
	markExecutable = "LABCTL_EXECUTABLE"
	markArguments  = "LABCTL_ARGUMENTS"
)

// identity tells a file from the one that takes its place.
func identity(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", path, err)
	}
	return fmt.Sprintf("%d:%d:%d.%09d", st.Dev, st.Ino, st.Mtim.Sec, st.Mtim.Nsec), nil
}

func argvID(argv []string) string { return hash(16, argv...) }

func (d daemon) environment() ([]string, error) {
	executable, err := identity(d.argv[0])
	if err != nil {
		return nil, err
	}
	return append(d.node.environment(), markService+"="+d.name, markLock+"="+d.lock,
		markExecutable+"="+executable, markArguments+"="+argvID(d.argv), "HOME=/root", "PATH="+servicePath), nil
}

func (d daemon) holds(pid int) bool {
	holder, held, err := lockHolder(d.lock)
	return err == nil && held && holder == pid
}

// endUnlocked ends processes that were started as this service and do not hold
// its lock: labctl may have been killed right after it started one, or somebody
// removed the lock's file. Where there is neither lock nor log, none was ever
// started.
func (d daemon) endUnlocked(ctx context.Context) error {
	if !exists(d.lock) && !exists(d.log) {
		return nil
	}
	all, err := pids()
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(pid int) bool { return !d.isOurs(pid) })
	return endProcesses(ctx, all, serviceGrace, d.isOurs)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (d daemon) isOurs(pid int) bool {
	marks := marksOf(pid)
	return pid != os.Getpid() && marks["LABCTL_LAB"] == d.node.at.lab && marks["LABCTL_NODE"] == d.node.name &&
		marks[markService] == d.name
}

// start returns when the process holds its lock, which its number in the file
// says. To try the lock instead could take it from under the process.
func (d daemon) start(ctx context.Context) error {
	lock, err := os.OpenFile(d.lock, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	output, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer output.Close()
	env, err := d.environment()
	if err != nil {
		return err
	}
	c := &exec.Cmd{Path: d.argv[0], Args: d.argv, Dir: "/", Env: env, Stdout: output, Stderr: output,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if c, err = d.node.start(c); err != nil {
		return fmt.Errorf("start %s: %w", d.argv[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	deadline := time.Now().Add(serviceStart)
	for {
		// A new reader each time: the service may have put another file there.
		if pid, err := numberIn(d.lock); err == nil && pid > 0 {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("it ended at once: %w; %s says: %s", exitOr(d.argv, err), d.log, tail(d.log))
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d does not hold %s after %s; %s says: %s", c.Process.Pid, d.lock, serviceStart, d.log, tail(d.log))
		}
		if err := sleep(ctx, startPoll); err != nil {
			return err
		}
	}
}

func numberIn(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// servicePath is fixed, so that a service does not depend on who started it.
const servicePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func exitOr(argv []string, err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return exitError(argv, err)
}

// tail is the end of a log, for an error.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil || len(text) == 0 {
		return "nothing"
	}
	return strings.TrimSpace(string(text[max(0, len(text)-logTail):]))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
