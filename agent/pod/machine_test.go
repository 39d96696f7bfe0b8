//go:build linux

package pod

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
)

// TestMain makes the test's own executable be the agent where it is called so.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "sandbox":
			os.Exit(SandboxMain(os.Args[2:], os.Stdout, os.Stderr))
		case "exec":
			os.Exit(ExecMain(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
		case "manage":
			manage(os.Args[2])
			return
		}
	}
	// The race detector's runtime waits a second at each exit otherwise.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// plan is what a manager in a process of its own works on.
type plan struct {
	DataDir, Cgroup, Hosts string
	State                  api.State
}

// manage runs a manager until it is killed.
func manage(text string) {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	executable, err := os.Executable()
	if err != nil {
		panic(err)
	}
	m, err := New(Config{DataDir: p.DataDir, Cgroup: p.Cgroup, Hosts: p.Hosts, Executable: executable, Namespace: netns.None(),
		Report: func(err error) { fmt.Fprintln(os.Stderr, "reported:", err) }})
	if err != nil {
		panic(err)
	}
	m.Set(p.State)
	m.Run(context.Background())
}

// machine is a node with its directories, on which managers come and go.
type machine struct {
	t      testing.TB
	ns     *nstest.Namespace
	config Config

	*Manager
	stop func()
}

// cgroup2 is a directory of the test's own in the machine's hierarchy.
func cgroup2(t testing.TB) string {
	f, err := os.Open("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if fields[2] != "cgroup2" {
			continue
		}
		dir := filepath.Join(fields[1], fmt.Sprintf("podtest.%d.%d", os.Getpid(), time.Now().UnixNano()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := killCgroup(dir); err != nil {
				t.Error(err)
			}
			if err := removeCgroup(dir); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	t.Fatal("this machine has no cgroup2 (mount -t cgroup2 none /mnt)")
	return ""
}

func newMachine(t testing.TB, cgroup string) *machine {
	ns := nstest.New(t)
	ns.IP("addr add 172.20.0.1/32 dev lo")
	ns.Run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter")
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n192.168.10.100 k8s-ctr\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, ns: ns, config: Config{
		DataDir: filepath.Join(dir, "data"), Cgroup: cgroup, Executable: executable, Namespace: ns.Handle, Hosts: hosts,
		Report: func(err error) { t.Errorf("reported: %v", err) },
	}}
	if err := os.Mkdir(m.config.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.clean)
	m.start()
	return m
}

func (m *machine) start() {
	m.t.Helper()
	manager, err := New(m.config)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		manager.Run(ctx)
	}()
	m.Manager = manager
	m.stop = sync.OnceFunc(func() { cancel(); <-done })
}

// restart makes another manager take over.
func (m *machine) restart(state api.State) {
	m.t.Helper()
	m.stop()
	m.start()
	m.Set(state)
}

// clean removes all pods, whatever became of the manager, and looks whether
// anything is left.
func (m *machine) clean() {
	m.stop()
	pods, _ := filepath.Glob(filepath.Join(m.config.DataDir, "pods", "*"))
	m.start()
	m.Set(api.State{Generation: "none"})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left, _ := filepath.Glob(filepath.Join(m.config.DataDir, "pods", "*"))
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			m.t.Errorf("still there: %v", left)
			break
		}
	}
	m.stop()
	if links := m.ns.IP("-o link show type veth"); links != "" {
		m.t.Errorf("links are left:\n%s", links)
	}
	for _, dir := range pods {
		for _, pid := range marked(filepath.Base(dir)) {
			m.t.Errorf("process %d of pod %s is left", pid, dir)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(m.config.Cgroup, "pods", "0*")); m.config.Cgroup != "" && len(left) > 0 {
		m.t.Errorf("cgroups are left: %v", left)
	}
}

// marked are the processes of a pod.
func marked(uid string) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid := 0
		if _, err := fmt.Sscan(e.Name(), &pid); err == nil && marksOf(pid)[markPod] == uid {
			pids = append(pids, pid)
		}
	}
	return pids
}

// programs are the names of a pod's processes.
func programs(uid string) (names []string) {
	for _, pid := range marked(uid) {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		names = append(names, strings.TrimSpace(string(comm)))
	}
	slices.Sort(names)
	return names
}

// patience is for a machine that other tests keep busy: how fast things are is
// measured elsewhere.
const patience = 20 * time.Second

// until waits for ok and says how long it took.
func (m *machine) until(what string, ok func() bool) time.Duration {
	m.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > patience {
			objects, _ := m.Objects()
			m.t.Fatalf("%s: not within %v:\n%+v\n%+v", what, patience, objects, m.Pods())
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begin)
}

func (m *machine) settle(state api.State) time.Duration {
	m.t.Helper()
	m.Set(state)
	return m.until("settled", func() bool {
		_, settled := m.Objects()
		return settled
	})
}

// pod is the status of the pod of that name.
func (m *machine) pod(name string) api.PodStatus {
	for _, p := range m.Pods() {
		if p.Name == name {
			return p
		}
	}
	return api.PodStatus{}
}

// object is how the pod of that name stands.
func (m *machine) object(name string) api.Object {
	objects, _ := m.Objects()
	for _, o := range objects {
		if o.Name == "default/"+name {
			return o
		}
	}
	return api.Object{}
}

// container is the state of the pod's first container.
func (m *machine) container(name string) api.ContainerStatus {
	if p := m.pod(name); len(p.Containers) > 0 {
		return p.Containers[0]
	}
	return api.ContainerStatus{}
}

// says is the log of the pod's container.
func (m *machine) says(p api.Pod) string {
	text, _ := os.ReadFile(filepath.Join(m.config.DataDir, "pods", p.UID, "main.log"))
	return string(text)
}

// exec runs a command in a pod by the command `agent exec`.
func (m *machine) exec(name string, argv ...string) (string, int) {
	m.t.Helper()
	args := append([]string{"exec", "-it", "--data", m.config.DataDir, name, "--"}, argv...)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, m.config.Executable, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(out), 0
}

// in is exec of a command that must succeed.
func (m *machine) in(name string, argv ...string) string {
	m.t.Helper()
	out, code := m.exec(name, argv...)
	if code != 0 {
		m.t.Fatalf("%s in %s: exit code %d\n%s", strings.Join(argv, " "), name, code, out)
	}
	return out
}

// route makes the node deliver to the pods, which is the datapath's otherwise.
func (m *machine) route() {
	m.t.Helper()
	for _, p := range m.Pods() {
		m.ns.IP(fmt.Sprintf("route replace %s/32 dev %s", p.Address, p.Device))
	}
}

// state has these pods, all on the node.
func state(pods ...api.Pod) api.State {
	return api.State{
		Generation: "1", Lab: "study", Node: "k8s-ctr",
		Pods:    &api.PodNetwork{CIDR: netip.MustParsePrefix("172.20.0.0/24"), Gateway: netip.MustParseAddr("172.20.0.1"), MTU: 1450},
		Cluster: &api.Cluster{Name: "default", Pods: pods},
	}
}

func podOf(n int, name string, c api.Container) api.Pod {
	c.Name = "main"
	return api.Pod{
		Namespace: "default", Name: name, UID: fmt.Sprintf("%08d-0000-4000-8000-%s", n, name), Node: "k8s-ctr",
		Address: netip.AddrFrom4([4]byte{172, 20, 0, byte(n)}), Identity: uint32(1000 + n), Grace: time.Second,
		Spec: &api.PodSpec{Hostname: name, Containers: []api.Container{c}, Restart: "Always",
			Nameserver: netip.MustParseAddr("10.96.0.10"), Search: []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"}},
	}
}

func webPod(n int, name string) api.Pod {
	return podOf(n, name, api.Container{Image: "traefik/whoami", Program: api.ProgramWhoami, Argv: []string{"--port", "8080"}})
}

func toolPod(n int, name string, argv ...string) api.Pod {
	return podOf(n, name, api.Container{Image: "nicolaka/netshoot", Program: api.ProgramTools, Argv: argv})
}

func curlPod() api.Pod { return toolPod(10, "curl-pod", "tail", "-f", "/dev/null") }
