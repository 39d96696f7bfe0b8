//go:build linux

package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

// A pod sees its own processes, and what it does to them is its own affair.
func TestProcesses(t *testing.T) {
	for _, cgroups := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroups=%v", cgroups), func(t *testing.T) {
			dir := ""
			if cgroups {
				dir = cgroup2(t)
			}
			m := newMachine(t, dir)
			web := webPod(10, "web")
			m.settle(state(web))
			m.until("ready", func() bool { return m.pod("web").Ready })
			p := m.pod("web")
			shown := strings.Split(strings.TrimSpace(m.in("web", "ps", "-eo", "pid=,comm=,args=")), "\n")
			if len(shown) != 3 {
				t.Fatalf("ps shows\n%s", strings.Join(shown, "\n"))
			}
			if f := strings.Fields(shown[0]); f[0] != "1" || f[1] != "sandbox" {
				t.Errorf("the first process: %s", shown[0])
			}
			whoami := strings.Fields(shown[1])
			if strings.Join(whoami[1:], " ") != "whoami whoami sandbox whoami --port 8080" {
				t.Errorf("whoami: %s", shown[1])
			}
			// The agent's view is the machine's.
			here, _ := os.Readlink("/proc/self/ns/pid")
			if there, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.PID)); err != nil || there == here {
				t.Errorf("PID namespace %s, %v", there, err)
			}
			for pid, name := range map[int]string{p.PID: "sandbox\n", whoamiPID(m, "web"): "whoami\n"} {
				if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(comm) != name || marksOf(pid)[markPod] != web.UID {
					t.Errorf("process %d is %q", pid, comm)
				}
			}

			// Its links' other ends are in namespaces that it does not know.
			if out := m.in("web", "sh", "-c", "ls -A /run/netns; ip link; ip addr"); strings.Contains(out, "labctl") || strings.Contains(out, "invalid") {
				t.Errorf("ip says\n%s", out)
			}

			// Nobody is left as a zombie: the shell ends before its children.
			m.in("web", "sh", "-c", "for i in 1 2 3 4 5; do sleep 0.1 & done")
			m.until("no zombies", func() bool {
				return len(strings.Split(m.in("web", "ps", "-eo", "pid="), "\n")) == 4
			})

			// A container that is killed inside is started again, alone.
			before := time.Now()
			m.exec("web", "kill", "-9", whoami[0]) // which ends with the container, perhaps before it has ended itself
			m.until("started again", func() bool {
				c := m.container("web")
				return c.Restarts == 1 && c.State == running
			})
			c := m.container("web")
			if now := m.pod("web"); now.PID != p.PID || c.LastExitCode != 137 || c.LastEnded.Before(before) || c.LastEnded.After(c.Started) {
				t.Errorf("now %+v", now)
			}
			// The first process cannot be killed from inside, but told to end.
			m.in("web", "kill", "-9", "1")
			if now := m.pod("web"); now.PID != p.PID || m.in("web", "cat", "/proc/1/comm") != "sandbox\n" {
				t.Errorf("killed: %+v", now)
			}
			m.in("web", "kill", "1")
			m.until("made again", func() bool {
				now := m.pod("web")
				return now.Ready && now.PID != p.PID
			})
			if marksOf(p.PID)[markPod] == web.UID {
				t.Error("the first sandbox is still there")
			}
			m.alone(web.UID)
		})
	}
}

// Somebody removes a pod's directory: its sandbox has a lock that nobody finds.
func TestDirectoryRemoved(t *testing.T) {
	for _, cgroups := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroups=%v", cgroups), func(t *testing.T) {
			dir := ""
			if cgroups {
				dir = cgroup2(t)
			}
			m := newMachine(t, dir)
			web := webPod(10, "web")
			home := filepath.Join(m.config.DataDir, "pods", web.UID)
			m.settle(state(web))
			again := func(what string, pid int) {
				t.Helper()
				took := m.until(what, func() bool {
					now := m.pod("web")
					return now.Ready && now.PID != pid
				})
				t.Logf("%s: made again in %v", what, took)
				m.alone(web.UID)
				if out := m.in("web", "hostname", "-I"); strings.TrimSpace(out) != "172.20.0.10" {
					t.Errorf("%s: addresses %q", what, out)
				}
				m.route()
				m.ns.Run("curl", "-sf", "172.20.0.10:8080/health")
				if o := m.object("web"); o.Condition != api.InPlace {
					t.Errorf("%s: %+v", what, o)
				}
			}
			remove := func(path string) int {
				t.Helper()
				pid := m.pod("web").PID
				// The manager may write there before all is gone.
				for try := 0; ; try++ {
					err := os.RemoveAll(path)
					if err == nil {
						return pid
					}
					if !errors.Is(err, unix.ENOTEMPTY) || try > 10 {
						t.Fatal(err)
					}
				}
			}
			again("the directory", remove(home))
			again("once more", remove(home))
			again("all directories", remove(filepath.Dir(home)))
			again("the lock", remove(filepath.Join(home, lockFile)))
			m.restart(state(web)) // now it is one of the manager before
			m.settle(state(web))
			again("of a manager before", remove(home))
			m.restart(state(web))
			m.settle(state(web))
			m.stop()
			pid := remove(home)
			m.restart(state(web))
			again("while no manager ran", pid)
			// Without its record alone the pod can stay.
			pid = remove(filepath.Join(home, recordFile))
			m.until("the record", func() bool {
				_, err := os.Stat(filepath.Join(home, recordFile))
				return err == nil
			})
			if now := m.pod("web"); now.PID != pid {
				t.Errorf("made again for its record: %+v", now)
			}
			// One that is to end ends all the same.
			remove(home)
			m.Set(state())
			m.until("gone", func() bool { return len(m.Pods()) == 0 && len(marked(web.UID)) == 0 })
		})
	}
}

// A pod ends though a command in it is stopped, with the parent that it has
// outside.
func TestEndsWithStoppedCommand(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	m.settle(state(curlPod()))
	cmd := m.command("curl-pod", "sh", "-c", "kill -STOP $$")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	m.until("the parent is stopped, too", func() bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		return strings.Contains(string(stat), ") T ")
	})
	m.Set(state())
	m.until("gone", func() bool { return len(m.Pods()) == 0 })
	_ = cmd.Wait()
	if status := waitStatus(cmd); status.Signal() != unix.SIGKILL {
		t.Errorf("exec ended with %v", cmd.ProcessState)
	}
}
