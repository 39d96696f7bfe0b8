//go:build linux

package pod

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/whoami"
)

// lockDescriptor is where the manager passes the lock on.
const lockDescriptor = 3

// listeningDescriptor is what the container whoami closes when it listens.
const listeningDescriptor = 3

// SandboxMain is the command `agent sandbox`, and returns its exit code:
//
//	hold DIR                            holds the pod of the directory until SIGTERM
//	whoami FLAGS                        is the container of that name
//	enter DIR PID CONTAINER COMMAND...  becomes the command in the pod
//
// It is for the agent alone to call: hold needs the lock as descriptor 3, and
// namespaces of its own; enter is the other half of `agent exec`.
func SandboxMain(args []string, stdout, stderr io.Writer) int {
	switch {
	case len(args) > 0 && args[0] == "whoami":
		nameProcess("whoami")
		return whoami.Main(args[1:], stdout, stderr, func() { _ = unix.Close(listeningDescriptor) })
	case len(args) == 2 && args[0] == "hold":
		nameProcess("sandbox")
		if err := hold(args[1], stderr); err != nil {
			fmt.Fprintln(stderr, "sandbox:", err)
			return 1
		}
		return 0
	case len(args) > 3 && args[0] == "enter":
		return enterMain(args[1:], stderr)
	default:
		fmt.Fprintln(stderr, "usage: agent sandbox hold DIR | agent sandbox whoami FLAGS | agent sandbox enter DIR PID CONTAINER COMMAND...")
		return 2
	}
}

// nameProcess is what ps and ss show; it is only for show.
func nameProcess(name string) { _ = os.WriteFile("/proc/self/comm", []byte(name), 0) }

// hold runs the pod's containers until SIGTERM, and returns when they have ended.
func hold(dir string, stderr io.Writer) error {
	// What runs here is short and rare, and there is one for each pod.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(10)
	unix.CloseOnExec(lockDescriptor)
	if err := lock(lockDescriptor); err != nil {
		return fmt.Errorf("descriptor %d: %w", lockDescriptor, err)
	}
	// Before the number is in the lock nobody can send a signal.
	end := make(chan os.Signal, 1)
	signal.Notify(end, unix.SIGTERM)
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	var r record
	if err := readJSON(dir, recordFile, &r); err != nil {
		return err
	}
	if r.Pod.Spec == nil {
		return fmt.Errorf("%s has no spec", filepath.Join(dir, recordFile))
	}
	if r.Cgroup != "" {
		if err := join(r.Cgroup); err != nil {
			return fmt.Errorf("join the pod's cgroup: %w", err)
		}
	}
	machine, err := ownProc()
	if err != nil {
		return err
	}
	number, err := machine.number()
	if err != nil {
		return fmt.Errorf("find the own number: %w", err)
	}
	if err := sayNumber(filepath.Join(dir, lockFile), number); err != nil {
		return err
	}
	s := newSupervisor(dir, r, stderr)
	s.machine, s.status.PID = machine, number
	go s.family.reap()
	s.begin()
	debug.FreeOSMemory()
	<-end
	s.end()
	return nil
}

// sayNumber writes the process's number to the lock. The file stays open: the
// manager hears by its close that the process has ended, so nothing but the end
// may close it. That is why neither it nor the lock is an os.File here, which
// the garbage collector closes.
func sayNumber(path string, number int) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(strconv.Itoa(number)+"\n"))
	}
	if err != nil {
		return fmt.Errorf("write the process's number to %s: %w", path, err)
	}
	return nil
}

// supervisor runs the containers of one pod.
type supervisor struct {
	dir    string
	record record
	stderr io.Writer
	// machine tells the numbers that are told to the agent; those that the
	// sandbox itself works with are its namespace's.
	machine outside
	family  *family
	starts  chan func()
	ending  chan struct{} // closed when the pod is to end
	done    sync.WaitGroup

	mu     sync.Mutex
	status status
}

func newSupervisor(dir string, r record, stderr io.Writer) *supervisor {
	s := &supervisor{dir: dir, record: r, stderr: stderr, family: newFamily(), starts: make(chan func()), ending: make(chan struct{})}
	s.status = status{Started: time.Now()}
	var before status // of a sandbox that was killed
	if err := readJSON(dir, statusFile, &before); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.complain(err)
	}
	for _, spec := range r.Pod.Spec.Containers {
		c := container{Name: spec.Name, State: waiting, Reason: reasonCreating}
		for _, old := range before.Containers {
			if old.Name == spec.Name {
				c = succeed(old, r.Pod.Spec.Restart, s.status.Started)
			}
		}
		s.status.Containers = append(s.status.Containers, c)
	}
	return s
}

// succeed is the container in a new sandbox, made at now, that was old in the
// one before.
func succeed(old container, policy string, now time.Time) container {
	if old.State == running { // it was killed with its sandbox
		old.terminate(killedCode, nil)
		old.LastEnded = now
	}
	if old.State == terminated && !restarts(policy, old.ExitCode) {
		return old
	}
	next := container{Name: old.Name, State: waiting, Reason: reasonCreating, Restarts: old.Restarts, LastEnded: old.LastEnded, LastExitCode: old.LastExitCode}
	if old.State == terminated {
		next.Restarts++
	}
	return next
}

// restarts says whether a container that ended is started again.
func restarts(policy string, exitCode int) bool {
	switch policy {
	case "Never":
		return false
	case "OnFailure":
		return exitCode != 0
	default:
		return true
	}
}

// begin starts all containers.
func (s *supervisor) begin() {
	go func() {
		// A child is killed when the thread that started it ends (prctl(2),
		// PR_SET_PDEATHSIG): this one lasts as long as the process.
		runtime.LockOSThread()
		for start := range s.starts {
			start()
		}
	}()
	s.update(func() {})
	for i, spec := range s.record.Pod.Spec.Containers {
		if s.status.Containers[i].State != terminated {
			s.done.Go(func() { s.run(i, spec) })
		}
	}
}

// end ends all containers, those that take longer than the grace with SIGKILL.
func (s *supervisor) end() {
	var now record // the grace may be another by now
	if err := readJSON(s.dir, recordFile, &now); err == nil {
		s.record.Pod.Grace = now.Pod.Grace
	}
	s.update(func() { s.status.Ending = true })
	close(s.ending)
	s.done.Wait()
}

// update changes the status under the lock and writes it.
func (s *supervisor) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	if err := writeJSON(s.dir, statusFile, s.status); err != nil {
		s.complain(err)
	}
}

// complain writes to the sandbox's log, which is bounded when it starts.
func (s *supervisor) complain(err error) { fmt.Fprintln(s.stderr, "sandbox:", err) }

// environment is what a container's program finds: as in a container, not the
// agent's own.
func (r record) environment(c api.Container) []string {
	env := []string{
		"PATH=" + defaultPath, "HOME=/root", "HOSTNAME=" + r.Pod.Spec.Hostname,
		markLab + "=" + r.Lab, markNode + "=" + r.Node, markPod + "=" + r.Pod.UID, markContainer + "=" + c.Name,
	}
	for name, value := range c.Env {
		env = append(env, name+"="+value) // the last one holds
	}
	return env
}

// defaultPath is that of a container.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
