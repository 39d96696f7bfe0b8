//go:build linux

package netns

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// start starts a command on the node, in the node's cgroup from its first
// instruction on, and returns what was started, to wait for. What is in c is
// files or nothing.
func (n *Node) start(c *exec.Cmd) (*exec.Cmd, error) {
	group, err := os.OpenFile(n.cgroup, unix.O_DIRECTORY|unix.O_PATH, 0)
	if err != nil {
		// There is none, and its namespace still says whose the process is.
		return c, n.inNode(c.Start)
	}
	defer group.Close()
	started := c
	err = n.inNode(func() error {
		attributes := syscall.SysProcAttr{}
		if c.SysProcAttr != nil {
			attributes = *c.SysProcAttr
		}
		attributes.UseCgroupFD, attributes.CgroupFD = true, int(group.Fd())
		started = &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir,
			Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, SysProcAttr: &attributes}
		if started.Start() == nil {
			return nil
		}
		// A kernel before 5.7, or a container's filter, refuses the cgroup; what
		// else is wrong the second attempt finds too.
		started = c
		if err := c.Start(); err != nil {
			return err
		}
		n.moveIn(c.Process.Pid)
		return nil
	})
	return started, err
}

// moveIn takes a process into the node's cgroup. What it has forked by then is
// outside, and so is all where the kernel refuses: Destroy finds those by their
// namespace and their marks.
func (n *Node) moveIn(pid int) {
	_ = os.WriteFile(filepath.Join(n.cgroup, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0)
}
