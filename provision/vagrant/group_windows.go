package vagrant

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// ownGroup puts the command and its children into a process group of their own:
// a Ctrl-C in the console reaches only labctl, which then interrupts them once.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

// interrupt asks the group to clean up and end. A group of its own takes no
// Ctrl-C; a Ctrl-Break it does.
func interrupt(p *os.Process) error {
	return windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.Pid))
}

// kill ends the process; Windows ends no groups.
func kill(p *os.Process) error { return p.Kill() }
