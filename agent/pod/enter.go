//go:build linux

package pod

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// The shell's exit statuses for a command that could not be started.
	statusNotExecutable = 126
	statusNotFound      = 127

	execUsage = "usage: agent exec --data DIR [-c CONTAINER] [NAMESPACE/]POD [-- COMMAND ARGS]"
)

// The reasons why a pod cannot be entered.
var (
	ErrNoPod       = errors.New("no such pod on this node")
	ErrNoContainer = errors.New("no such container")
	ErrNotRunning  = errors.New("not running")
)

// ExecMain is the command `agent exec`: it runs the command in the pod, a shell
// where none is given, and ends as the command does: with its exit code, or by
// its signal. Signals are passed on, and the terminal is the command's. Where
// nothing could be run it returns 127 for a command that is not there, 126 for
// one that cannot be run, 2 for wrong usage, 1 otherwise.
func ExecMain(args []string, _ io.Reader, _, stderr io.Writer) int {
	e, err := parseExec(args, stderr)
	if err != nil {
		return 2
	}
	code, err := e.run()
	if err != nil {
		fmt.Fprintln(stderr, "agent exec:", err)
		return 1
	}
	return code
}

// enterMain is the second half of ExecMain, a child of the first that is in the
// pod's PID namespace: it becomes the command, and returns only where that could
// not be.
func enterMain(args []string, stderr io.Writer) int {
	err := becomeCommand(args)
	var notFound *exec.Error
	if errors.As(err, &notFound) {
		err = fmt.Errorf("%s: %w", notFound.Name, notFound.Err)
	}
	fmt.Fprintln(stderr, "agent exec:", err)
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, unix.ENOENT):
		return statusNotFound
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC):
		return statusNotExecutable
	default:
		return 1
	}
}

// entry is one way into a pod.
type entry struct {
	data, key, container string
	argv                 []string
}

func parseExec(args []string, stderr io.Writer) (entry, error) {
	var e entry
	set := flag.NewFlagSet("exec", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() { fmt.Fprintln(stderr, execUsage) }
	set.StringVar(&e.data, "data", "", "the agent's data directory")
	for _, name := range []string{"c", "container"} {
		set.StringVar(&e.container, name, "", "container; the first one by default")
	}
	for _, name := range []string{"i", "t", "it", "ti", "stdin", "tty"} { // kubectl's: streams are passed on anyway
		set.Bool(name, false, "ignored")
	}
	if err := set.Parse(args); err != nil {
		return e, err
	}
	if set.NArg() > 0 {
		e.key = set.Arg(0)
		if !strings.Contains(e.key, "/") {
			e.key = "default/" + e.key
		}
		// Flags may follow the name, even after a --: who passes on what stands
		// after a pod's name cannot know whether that begins with flags, and no
		// command's name begins with a dash.
		rest := set.Args()[1:]
		for first := true; first || len(rest) > 0 && strings.HasPrefix(rest[0], "-"); first = false {
			if err := set.Parse(rest); err != nil {
				return e, err
			}
			rest = set.Args()
		}
		e.argv = rest
	}
	if e.key == "" || e.data == "" {
		set.Usage()
		return e, errors.New("wrong usage")
	}
	return e, nil
}

// run enters the pod's PID namespace and ends as the command there.
func (e entry) run() (int, error) {
	dir, r, pid, err := e.find()
	if err != nil {
		return 0, err
	}
	spec, err := e.spec(r)
	if err != nil {
		return 0, err
	}
	if err := joinContainer(r, spec.Name); err != nil {
		return 0, fmt.Errorf("join the cgroup of %s: %w", e.key, err)
	}
	code, err := follow(pid, append([]string{dir, strconv.Itoa(pid), spec.Name}, e.argv...))
	if err != nil {
		return 0, fmt.Errorf("enter %s: %w", e.key, err)
	}
	return code, nil
}

// becomeCommand never returns without an error.
func becomeCommand(args []string) error {
	dir, argv := args[0], args[3:]
	pid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	// The thread that moves is the one that becomes the command.
	runtime.LockOSThread()
	if err := dieWithParent(); err != nil {
		return err
	}
	var r record
	if err := readJSON(dir, recordFile, &r); err != nil {
		return errors.New(err.Error()) // not a command that is missing
	}
	spec, err := entry{key: r.Pod.Key(), container: args[2]}.spec(r)
	if err != nil {
		return err
	}
	if err := enterNamespaces(pid); err != nil {
		return fmt.Errorf("enter %s: %w", r.Pod.Key(), err)
	}
	if err := os.Chdir(cmp.Or(spec.Dir, "/")); err != nil {
		return fmt.Errorf("enter %s: %w", r.Pod.Key(), errors.New(err.Error()))
	}
	env := execEnvironment(r, spec)
	if len(argv) == 0 {
		argv, env = shell(r.Pod.Spec.Hostname, env)
	}
	path, err := lookPath(argv[0], spec.Env["PATH"])
	if err != nil {
		return err
	}
	if err := syscall.Exec(path, argv, env); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// find returns the pod of that name whose sandbox runs, rather one that is not
// ending: the one before may still be, under the same name.
func (e entry) find() (dir string, r record, pid int, err error) {
	var names []string
	found := false
	var last record
	lastDir, lastPID := "", 0
	dirs, _ := filepath.Glob(filepath.Join(e.data, "pods", "*"))
	for _, dir := range dirs {
		var r record
		if readJSON(dir, recordFile, &r) != nil || r.Pod.Spec == nil {
			continue
		}
		names = append(names, r.Pod.Key())
		if r.Pod.Key() != e.key {
			continue
		}
		found = true
		pid := sandboxOf(dir)
		if pid == 0 {
			continue
		}
		var s status
		if err := readJSON(dir, statusFile, &s); err != nil || !s.Ending {
			return dir, r, pid, nil
		}
		lastDir, last, lastPID = dir, r, pid
	}
	if lastPID != 0 {
		return lastDir, last, lastPID, nil
	}
	if found {
		return "", record{}, 0, fmt.Errorf("pod %s: %w", e.key, ErrNotRunning)
	}
	if len(names) == 0 {
		return "", record{}, 0, fmt.Errorf("pod %s: %w; it has none", e.key, ErrNoPod)
	}
	slices.Sort(names)
	return "", record{}, 0, fmt.Errorf("pod %s: %w; it has %s", e.key, ErrNoPod, strings.Join(slices.Compact(names), ", "))
}

func (e entry) spec(r record) (api.Container, error) {
	var names []string
	for _, c := range r.Pod.Spec.Containers {
		if c.Name == e.container || e.container == "" {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return api.Container{}, fmt.Errorf("pod %s: container %s: %w; it has %s", e.key, e.container, ErrNoContainer, strings.Join(names, ", "))
}

// joinContainer moves the process where the container's own are, so that it
// ends with it.
func joinContainer(r record, name string) error {
	if r.Cgroup == "" {
		return nil
	}
	err := join(filepath.Join(r.Cgroup, name))
	if gone(err) {
		err = join(r.Cgroup)
	}
	return err
}

func enterNamespaces(pid int) error {
	// Only a thread that shares no working directory may change its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	var files []*os.File
	for _, name := range []string{"net", "uts", "mnt"} { // mnt last: /proc is left behind
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if errors.Is(err, os.ErrNotExist) {
			return ErrNotRunning
		}
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	for _, f := range files {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		f.Close()
	}
	return nil
}

// execEnvironment is the container's, with the caller's terminal.
func execEnvironment(r record, c api.Container) []string {
	env := r.environment(c)
	for _, name := range []string{"TERM", "COLORTERM", "LANG", "LC_ALL"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append([]string{name + "=" + value}, env...)
		}
	}
	return lastOfEach(env)
}

// lastOfEach keeps the last value of each variable, as os/exec does.
func lastOfEach(env []string) []string {
	var kept []string
	seen := make(map[string]bool)
	for _, v := range slices.Backward(env) {
		name, _, _ := strings.Cut(v, "=")
		if !seen[name] {
			kept = append(kept, v)
		}
		seen[name] = true
	}
	slices.Reverse(kept)
	return kept
}

// shell is bash, or sh where there is none, with a prompt that names the pod.
func shell(hostname string, env []string) (argv, withPrompt []string) {
	if bash, err := lookPath("bash", ""); err == nil {
		return []string{bash, "--norc"}, append(env, `PS1=\u@\h:\w\$ `)
	}
	return []string{"sh"}, append(env, "PS1=root@"+hostname+":$PWD# ")
}
