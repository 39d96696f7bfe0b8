//go:build linux

package pod

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

// A pod finds the network, the names and the program that it should.
func TestPod(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	changes := make(chan struct{}, 1)
	m.OnChange(func() { nudge(changes) })
	took := m.settle(state(curlPod(), webPod(11, "webpod-a"), webPod(12, "webpod-b")))
	t.Logf("three pods in %v", took)
	select {
	case <-changes:
	default:
		t.Error("no change was told")
	}
	m.route()

	p := m.pod("curl-pod")
	if p.Phase != api.PodRunning || !p.Ready || p.Endpoint < 16 || p.Endpoint > 18 || p.Identity != 1010 || p.Index == 0 || p.PID == 0 {
		t.Errorf("status: %+v", p)
	}
	if len(p.Device) != 15 || !strings.HasPrefix(p.Device, "lxc") {
		t.Errorf("device %q", p.Device)
	}
	for _, test := range []struct{ argv, want string }{
		{"hostname", "curl-pod\n"},
		{"cat /etc/hostname", "curl-pod\n"},
		{"cat /etc/resolv.conf", "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"},
		{"cat /etc/hosts", "127.0.0.1\tlocalhost\n172.20.0.10\tcurl-pod\n192.168.10.100\tk8s-ctr\n"},
		{"getent hosts k8s-ctr", "192.168.10.100  k8s-ctr\n"},
		{"pwd", "/\n"},
		{"ip -4 route", "default via 172.20.0.1 dev eth0 \n172.20.0.1 dev eth0 scope link \n"},
		{"ip -br -4 addr show dev eth0", "eth0@if" + fmt.Sprint(p.Index) + " UP 172.20.0.10/32 \n"},
		{"ip -4 neigh", "172.20.0.1 dev eth0 lladdr " + p.DeviceMAC + " PERMANENT \n"},
		{"ip -6 addr", ""},
		{"cat /sys/class/net/eth0/mtu", "1450\n"},
		{"cat /sys/class/net/eth0/address", p.MAC + "\n"},
		{"ls /sys/class/net", "eth0\nlo\n"},
		{"cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1\n"},
		{"sh -c echo$IFS$HOME:$LABCTL_LAB:$LABCTL_NODE", "/root:study:k8s-ctr\n"},
	} {
		got := m.in("curl-pod", strings.Fields(test.argv)...)
		if strings.HasPrefix(test.argv, "ip -br") || strings.HasPrefix(test.argv, "getent") {
			got, test.want = strings.Join(strings.Fields(got), " "), strings.Join(strings.Fields(test.want), " ")
		}
		if got != test.want {
			t.Errorf("%s:\n%q\nwant\n%q", test.argv, got, test.want)
		}
	}
	link := m.ns.IP("link show dev " + p.Device)
	if !strings.Contains(link, "alias labctl-agent lab=study pod=default/curl-pod") || !strings.Contains(link, p.DeviceMAC) || !strings.Contains(link, "mtu 1450") {
		t.Errorf("node's end:\n%s", link)
	}
	if got := m.ns.IP("neigh show dev " + p.Device); got != "172.20.0.10 lladdr "+p.MAC+" PERMANENT \n" {
		t.Errorf("node's neighbour: %q", got)
	}
	if got, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.PID)); got != fmt.Sprintf("net:[%d]", p.NetnsInode) {
		t.Errorf("namespace %s, reported %d", got, p.NetnsInode)
	}

	// From pod to pod, and from the node.
	want := regexp.MustCompile(`^Hostname: webpod-a\nIP: 127.0.0.1\nIP: 172.20.0.11\nRemoteAddr: 172.20.0.10:\d+\nGET / HTTP/1.1\r\nHost: 172.20.0.11:8080\r\nUser-Agent: curl/[^\r]+\r\nAccept: \*/\*\r\n\r\n$`)
	if got := m.in("curl-pod", "curl", "-s", "172.20.0.11:8080"); !want.MatchString(got) {
		t.Errorf("whoami answers %q", got)
	}
	if got := m.ns.Run("curl", "-s", "172.20.0.12:8080"); !strings.Contains(got, "Hostname: webpod-b\n") || !strings.Contains(got, "RemoteAddr: 172.20.0.1:") {
		t.Errorf("the node gets %q", got)
	}
	m.in("webpod-b", "ping", "-c1", "-W1", "172.20.0.10")
	m.in("webpod-b", "ping", "-c1", "-W1", "172.20.0.1")
	if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", whoamiPID(m, "webpod-a"))); string(comm) != "whoami\n" {
		t.Errorf("ps shows %q", comm)
	}
}

// whoamiPID is the program of the pod's container.
func whoamiPID(m *machine, name string) int {
	var s status
	if err := readJSON(filepath.Join(m.config.DataDir, "pods", m.pod(name).UID), statusFile, &s); err != nil {
		m.t.Fatal(err)
	}
	return s.Containers[0].PID
}

// Another manager goes on with the same processes, whatever became of the one
// before; the same state again restarts nothing.
func TestTakesOver(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	s := state(curlPod(), webPod(11, "webpod"))
	m.settle(s)
	before := m.Pods()
	m.settle(s)
	if now := m.Pods(); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("the same state changed\n%v\nto\n%v", before, now)
	}
	flaps := 0
	for range 3 {
		m.stop()
		m.start()
		m.OnChange(func() {
			for _, p := range m.Pods() {
				if !p.Ready || p.Index == 0 {
					flaps++
				}
			}
		})
		m.settle(s)
		if now := m.Pods(); fmt.Sprint(now) != fmt.Sprint(before) {
			t.Errorf("another manager changed\n%v\nto\n%v", before, now)
		}
	}
	if flaps > 0 {
		t.Errorf("%d times a pod was told not to be ready", flaps)
	}
	// A pod that left the state while no manager ran is removed by the next.
	m.stop()
	m.start()
	m.settle(state(webPod(11, "webpod")))
	removed := m.until("the other is removed", func() bool { return len(m.Pods()) == 1 })
	if removed > curlPod().Grace {
		t.Errorf("removed only after %v: its end was not heard", removed)
	}
	if left := marked(curlPod().UID); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if now := m.pod("webpod"); now.PID != before[1].PID {
		t.Errorf("webpod was restarted: %+v", now)
	}
	// Labels and identity are no reason to restart it, its program is.
	relabelled := webPod(11, "webpod")
	relabelled.Identity = 4711
	m.settle(state(relabelled))
	if now := m.pod("webpod"); now.PID != before[1].PID || now.Identity != 4711 {
		t.Errorf("relabelled: %+v", now)
	}
	changed := webPod(11, "webpod")
	changed.Spec.Containers[0].Argv = []string{"--port", "9090"}
	m.Set(state(changed))
	m.until("replaced", func() bool {
		now := m.pod("webpod")
		return now.PID != before[1].PID && now.Ready
	})
	m.route()
	m.ns.Run("curl", "-sf", "--retry", "5", "--retry-connrefused", "172.20.0.11:9090/health")
}

// A sandbox that is killed takes all with it, and is made again.
func TestSandboxKilled(t *testing.T) {
	for _, cgroups := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroups=%v", cgroups), func(t *testing.T) {
			dir := ""
			if cgroups {
				dir = cgroup2(t)
			}
			m := newMachine(t, dir)
			p := toolPod(10, "curl-pod", "sh", "-c", "setsid sleep 1000 & wait")
			m.settle(state(p, webPod(11, "webpod")))
			m.until("the sleeper", func() bool { return len(marked(p.UID)) >= 3 })
			before, pids := m.pod("curl-pod"), marked(p.UID)
			if err := unix.Kill(before.PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			took := m.until("made again", func() bool {
				now := m.pod("curl-pod")
				return now.PID != before.PID && now.Ready
			})
			t.Logf("made again in %v", took)
			now := m.pod("curl-pod")
			if now.Containers[0].Restarts != 1 || now.Endpoint != before.Endpoint || now.MAC != before.MAC {
				t.Errorf("now %+v\nbefore %+v", now, before)
			}
			for _, pid := range pids {
				if marksOf(pid)[markPod] == p.UID {
					t.Errorf("process %d outlived its sandbox", pid)
				}
			}
			m.route()
			m.in("curl-pod", "curl", "-sf", "172.20.0.11:8080/health")

			// And while no manager runs.
			m.stop()
			pid := m.pod("webpod").PID
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.restart(state(p, webPod(11, "webpod")))
			m.until("made again by the next", func() bool {
				now := m.pod("webpod")
				return now.PID != pid && now.Ready
			})
		})
	}
}

// What is the node's is mended, what is inside is a student's to break.
func TestLinkFaults(t *testing.T) {
	m := newMachine(t, "")
	s := state(curlPod())
	m.settle(s)
	device := m.pod("curl-pod").Device
	for _, fault := range []string{"link del " + device, "link set " + device + " down", "link set " + device + " mtu 1400", "link set " + device + " alias other"} {
		mended := m.object("curl-pod").Mended
		m.ns.IP(fault)
		took := m.until(fault, func() bool {
			o := m.object("curl-pod")
			return o.Mended > mended && o.Condition == api.InPlace && strings.Contains(m.ns.IP("link show"), device)
		})
		t.Logf("%s: mended in %v", fault, took)
		m.route()
		m.in("curl-pod", "ping", "-c1", "-W1", "172.20.0.1")
	}
	for _, test := range []struct{ fault, reason string }{
		{"addr del 172.20.0.10/32 dev eth0", "address 172.20.0.10/32 is missing; "},
		{"link set eth0 down", "eth0 is down"},
		{"route del default", "route default via 172.20.0.1 is missing"},
		{"neigh flush all nud permanent", ""},
		{"link set eth0 mtu 1300", "eth0 has MTU 1300, not 1450"},
	} {
		m.in("curl-pod", append([]string{"ip"}, strings.Fields(test.fault)...)...)
		if test.reason != "" {
			m.until(test.fault, func() bool {
				o := m.object("curl-pod")
				return o.Condition == api.Drifted && strings.HasPrefix(o.Reason+"; ", test.reason)
			})
			time.Sleep(50 * time.Millisecond)
			if o := m.object("curl-pod"); o.Condition != api.Drifted {
				t.Errorf("%s: mended: %+v", test.fault, o)
			}
		}
		m.settle(s)
		m.until("put right", func() bool { return m.object("curl-pod").Condition == api.InPlace })
		m.route()
		m.in("curl-pod", "ping", "-c1", "-W1", "172.20.0.1")
	}
}

// Pods are made when the disk is writable again, and the reason is told meanwhile.
func TestNotWritable(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	blocked := filepath.Join(m.config.DataDir, "pods")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.stop()
	var reported []error
	m.config.Report = func(err error) { reported = append(reported, err) }
	m.restart(state(curlPod()))
	m.until("failed", func() bool {
		o := m.object("curl-pod")
		return o.Condition == api.Failed && strings.Contains(o.Reason, "not a directory")
	})
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	m.until("made after all", func() bool { return m.pod("curl-pod").Ready })

	// One pod's directory alone.
	p := webPod(11, "webpod")
	blocked = filepath.Join(m.config.DataDir, "pods", p.UID)
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.Set(state(curlPod(), p))
	m.until("failed", func() bool { return m.object("webpod").Condition == api.Failed })
	if o := m.object("curl-pod"); o.Condition != api.InPlace {
		t.Errorf("the other: %+v", o)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	m.until("made after all", func() bool { return m.pod("webpod").Ready })

	// A sandbox that cannot run is told with its own words, and is not started in a rush.
	bad := webPod(12, "bad")
	m.stop()
	m.config.Executable = "/bin/false"
	m.restart(state(curlPod(), p, bad))
	m.until("failed", func() bool {
		return strings.HasPrefix(m.object("bad").Reason, "the sandbox ended at once: exit status 1; ")
	})
	m.stop()
	m.config.Executable, _ = os.Executable()
	m.restart(state(curlPod(), p, bad))
	m.until("made after all", func() bool { return m.pod("bad").Ready })
}

func TestRefused(t *testing.T) {
	m := newMachine(t, "")
	escape, elsewhere := webPod(10, "escape"), webPod(11, "elsewhere")
	escape.UID, elsewhere.Node = "../..", "k8s-w1"
	s := state(escape, elsewhere)
	m.Set(s)
	m.until("refused", func() bool {
		objects, settled := m.Objects()
		return !settled && len(objects) == 1 && objects[0].Reason == `UID "../.." cannot be the name of a directory`
	})
	s = state(webPod(12, "webpod"))
	s.Pods = nil
	m.Set(s)
	m.until("refused", func() bool { return m.object("webpod").Reason == "the node has no pod network" })
}

// Managers that come and go at any moment, and states that change meanwhile:
// there is never more than one sandbox for a pod, and the last state holds.
func TestChaos(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	a, b, c := webPod(10, "a"), webPod(11, "b"), curlPod()
	a.Grace, b.Grace, c.Grace = 100*time.Millisecond, 0, 50*time.Millisecond
	c.Address = c.Address.Next().Next()
	states := []api.State{state(a, b, c), state(a), state(), state(b, c), state(a, c)}
	pause := time.Millisecond
	for round := range 40 {
		m.restart(states[round%len(states)])
		time.Sleep(pause)
		pause = (pause*13/10 + time.Millisecond) % (80 * time.Millisecond)
		for _, uid := range []string{a.UID, b.UID, c.UID} {
			holders := slices.DeleteFunc(programs(uid), func(name string) bool { return name != "sandbox" })
			if len(holders) > 1 {
				t.Fatalf("pod %s has %d sandboxes", uid, len(holders))
			}
		}
	}
	m.settle(state(a, b, c))
	m.until("all ready", func() bool {
		return m.pod("a").Ready && m.pod("b").Ready && m.pod("c").Name == "" && m.pod("curl-pod").Ready
	})
	m.alone(a.UID, b.UID, c.UID)
}

// alone waits until each pod has one sandbox and one program.
func (m *machine) alone(uids ...string) {
	m.t.Helper()
	for _, uid := range uids {
		m.until(uid+" has one sandbox and one program", func() bool {
			got := strings.Join(programs(uid), " ")
			return got == "sandbox whoami" || got == "sandbox tail"
		})
	}
}

// The same, with managers that are killed between any two steps.
func TestManagerKilled(t *testing.T) {
	for _, cgroups := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroups=%v", cgroups), func(t *testing.T) {
			dir := ""
			if cgroups {
				dir = cgroup2(t)
			}
			m := newMachine(t, dir)
			m.stop()
			a, b, c := webPod(10, "a"), webPod(11, "b"), curlPod()
			a.Grace, b.Grace, c.Grace = 50*time.Millisecond, 0, 20*time.Millisecond
			c.Address = c.Address.Next().Next()
			states := []api.State{state(a, b, c), state(), state(b), state(a, c), state(a), state(b, c)}
			for round := range 48 {
				text, err := json.Marshal(plan{m.config.DataDir, m.config.Cgroup, m.config.Hosts, states[round%len(states)]})
				if err != nil {
					t.Fatal(err)
				}
				cmd := m.ns.Command(t.Context(), m.config.Executable, "manage", string(text))
				cmd.Stderr = os.Stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10*time.Millisecond + time.Duration(round*7%60)*time.Millisecond)
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				for _, uid := range []string{a.UID, b.UID, c.UID} {
					holders := slices.DeleteFunc(programs(uid), func(name string) bool { return name != "sandbox" })
					if len(holders) > 1 {
						t.Fatalf("pod %s has %d sandboxes", uid, len(holders))
					}
				}
			}
			m.start()
			m.settle(state(a, b, c))
			m.until("all ready", func() bool {
				return m.pod("a").Ready && m.pod("b").Ready && m.pod("curl-pod").Ready
			})
			m.alone(a.UID, b.UID, c.UID)
			m.route()
			m.ns.Run("curl", "-sf", "--retry", "5", "--retry-connrefused", "172.20.0.10:8080/health")
			m.in("curl-pod", "curl", "-sf", "--retry", "5", "--retry-connrefused", "172.20.0.11:8080/health")
		})
	}
}
