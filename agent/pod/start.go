//go:build linux

package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/mounts"
	"github.com/native-routing/labctl/agent/rtnl"
)

// maxLog bounds the files of what a sandbox and its containers say, in bytes;
// of each there are two at most.
const maxLog = 1 << 20

// started is a sandbox that was just started.
type started struct {
	cmd     *exec.Cmd
	network *network
	index   int
}

// start makes the pod's namespaces and link, and in them the sandbox, which
// takes over held, the pod's lock. Without an error it runs.
func start(executable, dir string, r record, node *netlink.Handle, held *os.File) (s started, err error) {
	if err := os.Truncate(held.Name(), 0); err != nil { // the number of the one before
		return s, err
	}
	cmd, output, err := command(executable, dir, r, held)
	if err != nil {
		return s, err
	}
	defer output.Close()
	// All is made on a thread that ends with this: what is not whole by then goes
	// with it, and so it does where the agent is killed.
	err = onThread(func() error {
		if err := isolate(dir, r); err != nil {
			return err
		}
		own, err := netns.Get()
		if err != nil {
			return err
		}
		if s.network, err = openNetwork(own); err != nil {
			return err
		}
		if s.index, _, _, err = s.network.plug(node, r); err != nil {
			return err
		}
		if err := s.network.configure(r); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		if s.network != nil {
			s.network.close()
		}
		return s, fmt.Errorf("start the sandbox: %w", err)
	}
	s.cmd = cmd
	return s, nil
}

func command(executable, dir string, r record, held *os.File) (*exec.Cmd, *os.File, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	path := filepath.Join(dir, logFile)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	output, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, nil, err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return slices.ContainsFunc(foreignMarks, func(mark string) bool { return strings.HasPrefix(v, mark) })
	})
	return &exec.Cmd{
		Path: executable, Args: []string{executable, "sandbox", "hold", dir}, Dir: "/",
		Env:    append(env, markLab+"="+r.Lab, markNode+"="+r.Node, markPod+"="+r.Pod.UID),
		Stdout: output, Stderr: output, ExtraFiles: []*os.File{held},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID},
	}, output, nil
}

// isolate moves the calling thread into namespaces of its own, with the pod's
// name and files.
func isolate(dir string, r record) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(r.Pod.Spec.Hostname)); err != nil {
		return fmt.Errorf("set hostname %q: %w", r.Pod.Spec.Hostname, err)
	}
	for _, name := range []string{"all", "default"} {
		err := rtnl.ProcSys{}.Write("net/ipv6/conf/"+name+"/disable_ipv6", "1")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("turn IPv6 off: %w", err)
		}
	}
	if err := mounts.Private(); err != nil {
		return err
	}
	if err := mounts.RenewSys(); err != nil {
		return err
	}
	if err := hideNamespaces(); err != nil {
		return err
	}
	files := []string{hostsFile, hostnameFile}
	if r.Pod.Spec.Nameserver.IsValid() {
		files = append(files, resolverFile)
	}
	for _, name := range files {
		if err := mounts.Bind(filepath.Join(dir, name), "/etc/"+name); err != nil {
			return err
		}
	}
	return nil
}

// namedNamespaces is where ip(8) finds the machine's network namespaces.
const namedNamespaces = "/run/netns"

// hideNamespaces lets a pod have none of the machine's named namespaces: ip
// would look for its links' other ends there, and complain of each that it
// cannot open. One that is made in the pod is the pod's.
func hideNamespaces() error {
	err := unix.Mount("tmpfs", namedNamespaces, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k,mode=755")
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mount an empty %s: %w", namedNamespaces, err)
	}
	return nil
}

// onThread runs f on an OS thread of its own, which may change its namespaces:
// the thread ends with f. It waits for f.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked, so that the runtime ends the thread.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and its namespaces are what /proc shows
			// as the process's. Keep it locked while another thread does the work.
			result <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		result <- f()
	}()
	return <-result
}
