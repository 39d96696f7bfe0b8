//go:build linux

package pod

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

// A container that ends is started again as its pod says, with Kubernetes' words.
func TestRestarts(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	crash := toolPod(10, "crash", "sh", "-c", "echo out; echo err >&2; exit 3")
	missing := toolPod(11, "missing", "nosuchcommand")
	once := toolPod(12, "once", "true")
	once.Spec.Restart = "Never"
	flag := filepath.Join(t.TempDir(), "flag")
	onFailure := toolPod(13, "on-failure", "sh", "-c", "test -e "+flag+" || { touch "+flag+"; exit 1; }")
	onFailure.Spec.Restart = "OnFailure"
	fails := toolPod(14, "fails", "sh", "-c", "kill -9 $$")
	fails.Spec.Restart = "Never"
	leaves := toolPod(16, "leaves", "sh", "-c", "setsid sleep 1000 & exit 4")
	m.settle(state(crash, missing, once, onFailure, fails, leaves))
	m.until("crash loop", func() bool {
		c := m.container("crash")
		return c.Reason == reasonBackOff && c.State == waiting && c.Restarts == 1 && c.ExitCode == 3
	})
	if o := m.object("crash"); o.Condition != api.InPlace || o.Reason != "container main: CrashLoopBackOff: back-off 1s restarting failed container=main pod=crash_default("+crash.UID+")" {
		t.Errorf("crash: %+v", o)
	}
	if p := m.pod("crash"); p.Phase != api.PodRunning || p.Ready {
		t.Errorf("crash: %+v", p)
	}
	m.until("nothing to start", func() bool {
		c := m.container("missing")
		return c.Reason == reasonBackOff && c.ExitCode == 128 && strings.HasSuffix(c.Message, `: exec: "nosuchcommand": executable file not found in $PATH`)
	})
	m.until("ended", func() bool {
		return m.pod("once").Phase == api.PodSucceeded && m.container("once").Reason == reasonCompleted &&
			m.pod("on-failure").Phase == api.PodSucceeded && m.container("on-failure").Restarts == 1 &&
			m.pod("fails").Phase == api.PodFailed && m.container("fails").ExitCode == 137
	})
	m.until("tried again", func() bool { return m.container("crash").Restarts >= 3 })
	if output := m.says(crash); !strings.HasPrefix(output, "out\nerr\nout\nerr\n") {
		t.Errorf("log: %q", output)
	}
	// What is left behind ends with the container, and does no harm to the next.
	m.until("tried again", func() bool { return m.container("leaves").Restarts >= 3 })
	if c := m.container("leaves"); c.ExitCode != 4 || len(marked(leaves.UID)) > 2 {
		t.Errorf("leaves: %+v, %v", c, programs(leaves.UID))
	}
	// One that ended for good stays so where its sandbox is made again.
	pid := m.pod("once").PID
	_ = unix.Kill(pid, unix.SIGKILL)
	m.until("made again", func() bool {
		p := m.pod("once")
		return p.PID != pid && p.PID != 0 && p.Phase == api.PodSucceeded && p.Containers[0].Restarts == 0
	})
	// Somebody kills the program.
	m.Set(state(webPod(15, "webpod")))
	m.until("webpod", func() bool { return m.pod("webpod").Ready })
	_ = unix.Kill(whoamiPID(m, "webpod"), unix.SIGKILL)
	m.until("started again", func() bool {
		c := m.container("webpod")
		return c.Restarts == 1 && c.State == running && c.ExitCode == 137
	})
}

// A pod that leaves the state may end in peace, but not for longer than its grace.
func TestTerminates(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	polite := toolPod(10, "polite", "sh", "-c", "trap 'sleep 0.3; exit 0' TERM; echo set; while :; do sleep 0.05; done")
	polite.Grace = 5 * time.Second
	stubborn := toolPod(11, "stubborn", "sh", "-c", "trap '' TERM; echo set; while :; do sleep 0.05; done")
	m.settle(state(polite, stubborn))
	m.until("the traps are set", func() bool { return m.says(polite) == "set\n" && m.says(stubborn) == "set\n" })
	begin := time.Now()
	m.Set(state())
	m.until("terminating", func() bool {
		return m.pod("polite").Phase == api.PodTerminating && !m.pod("polite").Ready && m.pod("stubborn").Phase == api.PodTerminating
	})
	m.in("polite", "true") // as long as it is there it can be looked into
	m.until("polite has ended", func() bool { return m.pod("polite").Name == "" })
	if took := time.Since(begin); took < 250*time.Millisecond || took > 4*time.Second {
		t.Errorf("polite took %v", took)
	}
	m.until("stubborn has ended", func() bool { return m.pod("stubborn").Name == "" })
	if took := time.Since(begin); took < time.Second {
		t.Errorf("stubborn took %v", took)
	}
	// One that is wanted again while it ends is made anew.
	m.settle(state(stubborn))
	m.until("the trap is set", func() bool { return m.says(stubborn) == "set\n" })
	pid := m.pod("stubborn").PID
	m.Set(state())
	m.until("terminating", func() bool { return m.pod("stubborn").Phase == api.PodTerminating })
	m.Set(state(stubborn))
	m.until("again", func() bool {
		p := m.pod("stubborn")
		return p.Ready && p.PID != pid
	})
	// Even a sandbox that does not hear is ended, and by a manager that was not there.
	_ = unix.Kill(m.pod("stubborn").PID, unix.SIGSTOP)
	m.restart(api.State{Generation: "none"})
	m.until("the stopped one has ended", func() bool { return len(marked(stubborn.UID)) == 0 && len(m.Pods()) == 0 })
}

// dial connects to a port from inside of the pod.
func (m *machine) dial(p api.PodStatus, port int) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromPid(p.PID)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			var c net.Conn
			if c, err = net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
				_ = c.Close()
			}
		}
		done <- err
	}()
	return <-done
}

// A pod that is told to be terminating goes on serving for a moment: whoever was
// on the way to it is not refused. And one that is told to be ready serves.
func TestServesUntilParted(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	web := webPod(10, "web")
	web.Grace = 30 * time.Second
	asked := make(chan error, 1) // the first that was told to be ready
	m.OnChange(func() {
		if p := m.pod("web"); p.Ready && len(asked) == 0 {
			select {
			case asked <- m.dial(p, 8080):
			default:
			}
		}
	})
	m.settle(state(web))
	m.until("ready", func() bool { return m.pod("web").Ready })
	if err := <-asked; err != nil {
		t.Errorf("it was told to be ready: %v", err)
	}
	m.Set(state())
	m.until("terminating", func() bool { return m.pod("web").Phase == api.PodTerminating })
	for begin := time.Now(); time.Since(begin) < 300*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		if err := m.dial(m.pod("web"), 8080); err != nil {
			t.Fatalf("%v after it was told to be terminating: %v", time.Since(begin), err)
		}
	}
	m.until("ended", func() bool { return m.pod("web").Name == "" })
}

// A check decides whether a pod is ready, and whether it is started again.
func TestChecks(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	health := &api.Check{HTTP: &api.HTTPCheck{Port: 8080, Path: "/health"}, Period: 100 * time.Millisecond, Failures: 2}
	ready := webPod(10, "ready")
	ready.Spec.Containers[0].Readiness = health
	live := webPod(11, "live")
	live.Spec.Containers[0].Liveness = health
	tcp := webPod(12, "tcp")
	tcp.Spec.Containers[0].Readiness = &api.Check{TCP: 8080, Period: 100 * time.Millisecond}
	closed := webPod(13, "closed")
	closed.Spec.Containers[0].Readiness = &api.Check{TCP: 8081, Period: 100 * time.Millisecond}
	flag := filepath.Join(t.TempDir(), "flag")
	command := curlPod()
	command.Address = command.Address.Next().Next().Next().Next()
	command.Spec.Containers[0].Readiness = &api.Check{Exec: []string{"test", "-e", flag}, Period: 100 * time.Millisecond, Failures: 1}
	s := state(ready, live, tcp, closed, command)
	m.settle(s)
	m.route()
	m.until("ready", func() bool { return m.pod("ready").Ready && m.pod("tcp").Ready && m.pod("live").Ready })
	if m.pod("closed").Ready || m.pod("curl-pod").Ready {
		t.Errorf("ready without a reason: %+v", m.Pods())
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.until("the command succeeds", func() bool { return m.pod("curl-pod").Ready })
	m.ns.Run("curl", "-sf", "-d", "500", "172.20.0.10:8080/health")
	m.until("not ready", func() bool { return !m.pod("ready").Ready })
	if p := m.pod("ready"); p.Phase != api.PodRunning || p.Containers[0].Restarts != 0 {
		t.Errorf("not ready: %+v", p)
	}
	m.ns.Run("curl", "-sf", "-d", "200", "172.20.0.10:8080/health")
	m.until("ready again", func() bool { return m.pod("ready").Ready })

	m.ns.Run("curl", "-sf", "-d", "500", "172.20.0.11:8080/health")
	m.until("started again", func() bool {
		c := m.container("live")
		return c.Restarts == 1 && c.State == running
	})
	m.until("no more than once", func() bool { return m.pod("live").Ready })
}
