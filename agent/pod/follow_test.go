//go:build linux

package pod

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// command is `agent exec` of the command.
func (m *machine) command(name string, argv ...string) *exec.Cmd {
	return exec.Command(m.config.Executable, append([]string{"exec", "--data", m.config.DataDir, name, "--"}, argv...)...)
}

func waitStatus(cmd *exec.Cmd) syscall.WaitStatus {
	return cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// sleeps says whether the program sleep runs in the pod.
func sleeps() bool { return slices.Contains(programs(curlPod().UID), "sleep") }

// stopped says whether the program is, in the pod.
func stopped(program string) bool {
	return slices.ContainsFunc(marked(curlPod().UID), func(pid int) bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return strings.Contains(string(stat), "("+program+") T ")
	})
}

// Whoever knows the number of `agent exec` alone, or its group, reaches the
// command, and hears how it ended.
func TestExecSignals(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	m.settle(state(curlPod()))
	const trap = "trap 'echo heard; exit 5' TERM; echo set; while :; do sleep 0.01; done"
	for _, test := range []struct {
		name   string
		leader bool // of a process group, as labctl makes one
		script string
		signal unix.Signal
		group  bool
		code   int
		killed unix.Signal
		out    string
	}{
		{name: "TERM to its number", script: trap, signal: unix.SIGTERM, code: 5, out: "set\nheard\n"},
		{name: "TERM to a leader's number", leader: true, script: trap, signal: unix.SIGTERM, code: 5, out: "set\nheard\n"},
		{name: "TERM to its group", leader: true, script: trap, signal: unix.SIGTERM, group: true, code: 5, out: "set\nheard\n"},
		{name: "HUP", script: strings.Replace(trap, "TERM", "HUP", 1), signal: unix.SIGHUP, code: 5, out: "set\nheard\n"},
		{name: "INT", script: strings.Replace(trap, "TERM", "INT", 1), signal: unix.SIGINT, code: 5, out: "set\nheard\n"},
		{name: "not trapped", script: "echo set; exec sleep 100", signal: unix.SIGTERM, code: -1, killed: unix.SIGTERM, out: "set\n"},
		{name: "QUIT", script: "echo set; exec sleep 100", signal: unix.SIGQUIT, code: -1, killed: unix.SIGQUIT, out: "set\n"},
		{name: "killed", script: "echo set; exec sleep 100", signal: unix.SIGKILL, code: -1, killed: unix.SIGKILL, out: "set\n"},
		{name: "killed with its group", leader: true, group: true, script: "echo set; sleep 100", signal: unix.SIGKILL, code: -1, killed: unix.SIGKILL, out: "set\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := m.command("curl-pod", "sh", "-c", test.script)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: test.leader}
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			cmd.Stdout, cmd.Stderr = writer, os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			writer.Close()
			text, buffer := "", make([]byte, 100)
			_ = reader.SetReadDeadline(time.Now().Add(5 * time.Second))
			for sent := false; ; {
				n, err := reader.Read(buffer)
				text += string(buffer[:n])
				if err != nil {
					break
				}
				if text == "set\n" && !sent {
					sent = true
					to := cmd.Process.Pid
					if test.group {
						to = -to
					}
					if err := unix.Kill(to, test.signal); err != nil {
						t.Fatal(err)
					}
				}
			}
			_ = cmd.Wait()
			status := waitStatus(cmd)
			if text != test.out || status.ExitStatus() != test.code || status.Signaled() && status.Signal() != test.killed {
				t.Errorf("ended with %v, said %q", cmd.ProcessState, text)
			}
			m.until("nothing is left", func() bool { return !sleeps() })
		})
	}
	// A container's end is that of what was run in it.
	cmd := m.command("curl-pod", "sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.until("it sleeps", sleeps)
	_ = unix.Kill(m.pod("curl-pod").PID, unix.SIGKILL)
	_ = cmd.Wait()
	if status := waitStatus(cmd); status.Signal() != unix.SIGKILL {
		t.Errorf("it ended with %v", cmd.ProcessState)
	}
}

// Streams are the command's own.
func TestExecStreams(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	m.settle(state(curlPod()))
	cmd := m.command("curl-pod", "sh", "-c", "wc -c; echo problem >&2")
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
	var out, problem strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil || out.String() != "1048576\n" || problem.String() != "problem\n" {
		t.Errorf("%v: %q, %q", err, out.String(), problem.String())
	}
	begin := time.Now()
	for range 10 {
		m.in("curl-pod", "true")
	}
	t.Logf("exec of true takes %v", time.Since(begin)/10)
}

// The terminal's keys do to a command in a pod what they do to one at home.
func TestExecJobControl(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	m.settle(state(curlPod()))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	agent := m.config.Executable + " exec -it --data " + m.config.DataDir + " curl-pod -- "
	cmd := exec.CommandContext(ctx, "bash", "--norc", "-i")
	cmd.Env = append(os.Environ(), "PS1=ready:$?# ", "HISTFILE=", "TERM=dumb")
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); terminal.Close() }()
	text, buffer := "", make([]byte, 1<<10)
	read := func(want string) {
		t.Helper()
		if err := terminal.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for {
			if _, after, ok := strings.Cut(text, want); ok {
				text = after
				return
			}
			n, err := terminal.Read(buffer)
			if err != nil {
				t.Fatalf("%q: no %q: %v", text, want, err)
			}
			text += string(buffer[:n])
		}
	}
	write := func(keys string) {
		t.Helper()
		if _, err := terminal.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	read("ready:0# ")
	write("stty -echo\n")
	read("ready:0# ")
	for _, test := range []struct{ name, prefix, stopped string }{
		{"the group's leader", "", "148"},
		{"not the leader", "sh -c '\"$@\"; exit $?' - ", "148"},
		{"in a pipeline", "true | ", "128"}, // which is bash's word at home, too
	} {
		write(test.prefix + agent + "sleep 100\n")
		m.until(test.name+": it sleeps", sleeps)
		write("\x1a") // Ctrl-Z
		read("Stopped")
		read("ready:" + test.stopped + "# ")
		write("fg\n")
		read("sleep 100")
		m.until(test.name+": it goes on", func() bool { return !stopped("sleep") })
		write("\x03") // Ctrl-C
		read("ready:130# ")
		m.until(test.name+": it has ended", func() bool { return !sleeps() })
	}
	// A shell in the pod takes the terminal, stops what it runs, and gives it back.
	write("sh -c '" + strings.TrimSuffix(agent, "-- ") + "; read line; echo got $line'\n")
	read("root@curl-pod:/# ")
	write("sleep 100\n")
	m.until("it sleeps", sleeps)
	write("\x1a")
	read("Stopped")
	write("kill %1; wait; tty; exit\n")
	read("/dev/pts/")
	write("something\n")
	read("got something")
	read("ready:0# ")
}
