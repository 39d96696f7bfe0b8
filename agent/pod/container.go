//go:build linux

package pod

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// A container that ended is started again at once, and after that with a
	// back-off that doubles from backOffFirst to backOffLast. The kubelet's begins
	// at 10 s, which is long for a lesson.
	backOffFirst = time.Second
	backOffLast  = 5 * time.Minute
	// A container that ran this long starts with a new back-off.
	backOffReset = 10 * time.Minute
	// listenTime is how long a server may take until it listens; then it is
	// called running all the same.
	listenTime = 5 * time.Second

	killedCode = 128 + int(unix.SIGKILL)
)

// nextBackOff follows the delay before the last start.
func nextBackOff(last, ran time.Duration, first bool) time.Duration {
	switch {
	case first || ran >= backOffReset:
		return 0
	case last == 0:
		return backOffFirst
	default:
		return min(2*last, backOffLast)
	}
}

// run runs one container, and again, until it is not to be started any more or
// the pod ends.
func (s *supervisor) run(i int, spec api.Container) {
	state := &s.status.Containers[i]
	output, err := openOutput(filepath.Join(s.dir, spec.Name+".log"))
	if err != nil {
		s.complain(err) // it runs without
	}
	defer output.close()
	delay, first := time.Duration(0), true
	for {
		began := time.Now()
		code, err := s.once(state, spec, output)
		s.update(func() { state.terminate(code, err) })
		if s.isEnding() || !restarts(s.record.Pod.Spec.Restart, code) {
			return
		}
		delay, first = nextBackOff(delay, time.Since(began), first), false
		if delay > 0 {
			s.update(func() {
				message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
					delay, spec.Name, s.record.Pod.Name, s.record.Pod.Namespace, s.record.Pod.UID)
				if err != nil {
					message += ": " + err.Error()
				}
				state.State, state.Reason, state.Message = waiting, reasonBackOff, message
			})
		}
		select {
		case <-s.ending:
			return
		case <-time.After(delay):
		}
		s.update(func() { state.Restarts++ })
	}
}

func (c *container) terminate(code int, err error) {
	c.State, c.Reason, c.Message, c.ExitCode, c.PID = terminated, reasonError, "", code, 0
	c.LastEnded, c.LastExitCode = time.Now(), code
	switch {
	case err != nil:
		c.Reason, c.Message = reasonStart, err.Error()
	case code == 0:
		c.Reason = reasonCompleted
	}
}

func (s *supervisor) isEnding() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

// once runs the container's program until it ends, and returns its exit code as
// a shell would give it. With an error it was not started.
func (s *supervisor) once(state *container, spec api.Container, output *output) (int, error) {
	cmd, err := s.command(spec)
	if err != nil {
		return startErrorCode, err
	}
	pipe, err := output.pipe()
	if err != nil {
		return startErrorCode, err
	}
	cmd.Stdout, cmd.Stderr = pipe, pipe
	listens := func() {}
	if spec.Program == api.ProgramWhoami {
		if listens, err = whenListening(cmd); err != nil {
			pipe.Close()
			return startErrorCode, err
		}
	}
	pidfd := -1
	cmd.SysProcAttr.PidFD = &pidfd
	cgroup, err := s.start(cmd, spec.Name)
	pipe.Close()
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	if err != nil {
		return startErrorCode, err
	}
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.endWithPod(cmd.Process.Pid, cgroup, ended)
	}()
	number, err := s.machine.numberOf(pidfd)
	_ = unix.Close(pidfd)
	if err != nil {
		s.complain(fmt.Errorf("find the number of container %s: %w", spec.Name, err)) // it is not checked then
	}
	listens()
	s.update(func() {
		state.State, state.Reason, state.Message = running, "", ""
		state.PID, state.Started = number, time.Now()
	})
	err = cmd.Wait()
	s.family.left(cmd.Process.Pid)
	close(ended)
	<-watched
	// What the program started ends with it.
	if err := killContainer(cmd.Process.Pid, cgroup); err != nil {
		s.complain(err)
	}
	return exitCode(err), nil
}

// whenListening prepares a command that closes listeningDescriptor when it
// listens, and returns what waits for that, or for its end. A program that is
// called running before would refuse the first connections: without a check of
// readiness that is all that is known of it.
func whenListening(cmd *exec.Cmd) (wait func(), err error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{writer}
	return func() {
		defer reader.Close()
		_ = reader.SetReadDeadline(time.Now().Add(listenTime)) // it always can: it is a pipe
		_, _ = reader.Read(make([]byte, 1))
	}, nil
}

func (s *supervisor) command(spec api.Container) (*exec.Cmd, error) {
	cmd := &exec.Cmd{Dir: spec.Dir, SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = s.record.environment(spec)
	switch spec.Program {
	case api.ProgramWhoami:
		// The executable may have been replaced since; this is the very one that runs.
		cmd.Path = "/proc/self/exe"
		cmd.Args = append([]string{"whoami", "sandbox", "whoami"}, spec.Argv...)
		cmd.Env = append(os.Environ(), cmd.Env...)
	case api.ProgramTools:
		cmd.Args = spec.Argv
		if len(cmd.Args) == 0 {
			cmd.Args = []string{"sh"} // which ends at once, as it does there without a terminal
		}
		path, err := lookPath(cmd.Args[0], spec.Env["PATH"])
		if err != nil {
			return nil, err
		}
		cmd.Path = path
	default:
		return nil, fmt.Errorf("no program stands in for image %q", spec.Image)
	}
	return cmd, nil
}

// lookPath finds an executable as a shell would with that PATH, empty for the default.
func lookPath(name, path string) (string, error) {
	if filepath.Base(name) != name {
		return exec.LookPath(name)
	}
	if path == "" {
		path = defaultPath
	}
	for _, dir := range filepath.SplitList(path) {
		if found, err := exec.LookPath(filepath.Join("/", dir, name)); err == nil {
			return found, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// start starts the program, in a cgroup of its own where that can be.
func (s *supervisor) start(cmd *exec.Cmd, name string) (cgroup string, err error) {
	attempt := func() {
		done := make(chan error)
		s.starts <- func() { done <- s.family.start(cmd) }
		err = <-done
	}
	if s.record.Cgroup == "" {
		attempt()
		return "", err
	}
	cgroup = filepath.Join(s.record.Cgroup, name)
	if err := freshCgroup(cgroup); err != nil {
		return "", err
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	attempt()
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		// No clone3, or not allowed: it stays in the pod's.
		again := &exec.Cmd{Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir, Stdout: cmd.Stdout, Stderr: cmd.Stderr,
			ExtraFiles: cmd.ExtraFiles, SysProcAttr: cmd.SysProcAttr}
		again.SysProcAttr.UseCgroupFD = false
		*cmd, cgroup = *again, ""
		attempt()
	}
	return cgroup, err
}

// endWithPod ends the container when the pod is to end: with SIGTERM, and after
// the pod's grace with SIGKILL.
func (s *supervisor) endWithPod(pid int, cgroup string, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-s.ending:
	}
	_ = unix.Kill(pid, unix.SIGTERM)
	select {
	case <-ended:
	case <-time.After(s.record.Pod.Grace):
		_ = unix.Kill(pid, unix.SIGKILL)
		if err := killContainer(pid, cgroup); err != nil {
			s.complain(err)
		}
	}
}

// killContainer kills what is left of a container: its cgroup, or its process
// group where it has none.
func killContainer(pid int, cgroup string) error {
	if cgroup != "" {
		return killCgroup(cgroup)
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	return nil
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0
	}
	status := exit.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
