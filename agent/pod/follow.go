//go:build linux

package pod

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process cannot change its PID namespace, only have children in another. So
// `agent exec` stays as the command's parent, outside of the pod, and does all
// it can not to be noticed: the command is in the process group that the caller
// made, which is what terminals and shells send signals to and stop, and whoever
// knows the parent's number alone reaches the command by it.

// orphanDescriptor is where the command's process hears of its parent's end.
const orphanDescriptor = 3

// dieTime is how long a signal may take to end the process that sent it to itself.
const dieTime = time.Second

// passedOn are the signals that the parent gives to the command.
var passedOn = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGWINCH, unix.SIGTSTP}

// follow runs `sandbox enter` with the arguments in the PID namespace of the
// process, and ends as it does: with the code that is returned, or by its
// signal, without returning.
func follow(pid int, args []string) (int, error) {
	// For good: the child is killed when the thread ends that started it.
	runtime.LockOSThread()
	if err := childrenIn(pid); err != nil {
		return 0, err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer writer.Close() // not before the child has ended
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: append([]string{"agent", "sandbox", "enter"}, args...),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{reader},
	}
	signals := make(chan os.Signal, len(passedOn))
	for _, s := range passedOn {
		if !signal.Ignored(s) { // as by nohup: it stays so in the child
			signal.Notify(signals, s)
		}
	}
	group := callersGroup()
	err = cmd.Start()
	reader.Close()
	if errors.Is(err, unix.ENOMEM) {
		return 0, ErrNotRunning // that is fork(2)'s word on a PID namespace that has ended
	}
	if err != nil {
		return 0, err
	}
	group.leave()
	go func() {
		for s := range signals {
			if !group.has(s) {
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	status, err := await(cmd.Process.Pid, group)
	if err != nil {
		return 0, err
	}
	group.restore()
	if status.Signaled() {
		dieOf(status.Signal())
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// childrenIn makes the calling thread's children be in the PID namespace of the
// process.
func childrenIn(pid int) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if errors.Is(err, os.ErrNotExist) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// dieWithParent has the kernel kill the process, whatever it becomes, when its
// parent ends. os/exec cannot: it compares the parent's number, which is 0 where
// the parent is outside of the PID namespace.
func dieWithParent() error {
	defer unix.Close(orphanDescriptor)
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("follow the parent's end: %w", err)
	}
	// It may have ended before: then the pipe has.
	poll := []unix.PollFd{{Fd: orphanDescriptor, Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); err == nil && n > 0 {
		return errors.New("its parent has ended")
	}
	return nil
}

// await returns when the child has ended, and stops with it as long as it is stopped.
func await(pid int, group processGroup) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WUNTRACED, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return status, fmt.Errorf("wait for the command: %w", err)
		case status.Stopped():
			// The caller's shell must see it, and it continues the group.
			group.rejoin()
			handler := setAction(status.StopSignal(), action{})
			_ = unix.Tgkill(os.Getpid(), unix.Gettid(), status.StopSignal())
			setAction(status.StopSignal(), handler)
			group.leave()
		default:
			return status, nil
		}
	}
}

// processGroup is the group that the caller put the process in.
type processGroup struct {
	id     int
	leader bool
	// terminal is the controlling terminal where the group has it in the
	// foreground; nil otherwise.
	terminal *os.File
}

func callersGroup() processGroup {
	g := processGroup{id: unix.Getpgrp()}
	g.leader = g.id == os.Getpid()
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0); err == nil {
		if foreground(tty) == g.id {
			g.terminal = tty
		} else {
			tty.Close()
		}
	}
	return g
}

func foreground(tty *os.File) int {
	id, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return id
}

// leave lets the group to the command, which a signal to the group would reach
// twice otherwise. A group's leader cannot leave it.
func (g processGroup) leave() {
	if !g.leader {
		_ = unix.Setpgid(0, 0)
	}
}

func (g processGroup) rejoin() {
	if !g.leader {
		_ = unix.Setpgid(0, g.id) // it may be gone, and then nobody looks after it
	}
}

// has says whether the command has got a signal already that the parent got:
// what comes of a terminal is sent to the whole group. Of others that a leader
// gets nobody can know, and a second one does less harm than none.
func (g processGroup) has(s os.Signal) bool {
	if !g.leader || g.terminal == nil {
		return false
	}
	switch s {
	case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGWINCH:
		return foreground(g.terminal) == g.id
	default:
		return false
	}
}

// restore gives the terminal back to the group where the command, a shell, took
// it for a group of its own that has ended: in the pod's namespace it cannot
// name the one that had it before.
func (g processGroup) restore() {
	if g.terminal == nil {
		return
	}
	if now := foreground(g.terminal); now > 0 && (now == g.id || !errors.Is(unix.Kill(-now, 0), unix.ESRCH)) {
		return
	}
	signal.Ignore(unix.SIGTTOU) // who is not in the foreground may not, otherwise
	_ = unix.IoctlSetPointerInt(int(g.terminal.Fd()), unix.TIOCSPGRP, g.id)
}

// action is the kernel's struct sigaction, or more; zero in all its fields is
// the default action.
type action [64]byte

// setAction sets a signal's action past the runtime, whose own handler it is
// otherwise though nobody asked to be notified, and returns the one before.
func setAction(s syscall.Signal, next action) (last action) {
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&next)), uintptr(unsafe.Pointer(&last)), 8, 0, 0)
	return last
}

// dieOf ends the process by the signal, without a core, if that can be.
func dieOf(s syscall.Signal) {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	setAction(s, action{})
	_ = unix.Kill(os.Getpid(), s)
	time.Sleep(dieTime)
}
