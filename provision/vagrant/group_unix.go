//go:build unix

package vagrant

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup puts the command and its children into a process group of their own:
// a Ctrl-C in the terminal reaches only labctl, which then interrupts them once.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// interrupt asks the group to clean up and end.
func interrupt(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGINT) }

// kill ends the group.
func kill(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
