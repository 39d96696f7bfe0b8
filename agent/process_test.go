//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/daemon"
	"github.com/native-routing/labctl/agent/nstest"
)

// asAgent makes the test's own executable be the agent, so that tests have the
// real process, with its own memory, threads and signals.
const asAgent = "LABCTL_TEST_AS_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// process is one agent in a namespace.
type process struct {
	*api.Client
	t    testing.TB
	ns   *nstest.Namespace
	dir  string // run and data directory
	cmd  *exec.Cmd
	exit chan error

	mu  sync.Mutex
	log bytes.Buffer
}

// Write takes the agent's log.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// start runs an agent in ns with dir, and waits until it answers. executable is
// the test's own where it is empty.
func start(t testing.TB, ns *nstest.Namespace, dir, executable string) *process {
	t.Helper()
	p := &process{t: t, ns: ns, dir: dir, exit: make(chan error, 1)}
	if executable == "" {
		executable = os.Args[0]
	}
	p.cmd = ns.Command(context.Background(), executable, "--run", dir, "--data", dir, "--bpf", filepath.Join(dir, "bpf"))
	p.cmd.Env = append(os.Environ(), asAgent+"=1")
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exit <- p.cmd.Wait() }()
	p.Client = api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, daemon.SocketName))
	})
	t.Cleanup(func() {
		p.Close()
		p.kill(unix.SIGKILL)
		if t.Failed() {
			t.Logf("the agent's log:\n%s", p.logged())
		}
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(500 * time.Microsecond) {
		version, err := api.GetVersion.Call(t.Context(), p.Client, api.None{})
		if err == nil && version.PID == p.cmd.Process.Pid {
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("no answer: %v", err)
		}
	}
}

// kill sends the signal and waits for the end.
func (p *process) kill(signal os.Signal) error {
	p.t.Helper()
	_ = p.cmd.Process.Signal(signal)
	select {
	case err := <-p.exit:
		p.exit <- err
		return err
	case <-time.After(10 * time.Second):
		p.t.Errorf("the agent does not end on %v", signal)
		return nil
	}
}

func (p *process) put(state api.State) api.Applied {
	p.t.Helper()
	applied, err := api.PutState.Call(p.t.Context(), p.Client, state)
	if err != nil {
		p.t.Fatal(err)
	}
	return applied
}

func (p *process) status() api.Status {
	p.t.Helper()
	s, err := api.GetStatus.Call(p.t.Context(), p.Client, api.None{})
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// patience is for a machine that other tests keep busy: how fast things are is
// measured elsewhere.
const patience = 30 * time.Second

// until waits for the status to be as ok wants it, and says how long it took.
func (p *process) until(what string, ok func(api.Status) bool) time.Duration {
	p.t.Helper()
	begin := time.Now()
	for {
		s := p.status()
		if ok(s) {
			return time.Since(begin)
		}
		if time.Since(begin) > patience {
			p.t.Fatalf("%s: not within %v:\n%s", what, patience, lines(s))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (p *process) settle(state api.State) {
	p.t.Helper()
	p.put(state)
	p.until("settled", func(s api.Status) bool { return s.Settled && s.Generation == state.Generation })
}

// lines is the status as text, an object a line.
func lines(s api.Status) string {
	var b strings.Builder
	for _, o := range s.Objects {
		fmt.Fprintf(&b, "%s %s %s: %s", o.Owner, o.Kind, o.Name, o.Condition)
		if o.Reason != "" {
			b.WriteString(": " + o.Reason)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func find(s api.Status, owner, name string) api.Object {
	for _, o := range s.Objects {
		if o.Name == name && o.Owner == owner {
			return o
		}
	}
	return api.Object{}
}

// study is k8s-ctr as the shipped lab has it, and one namespace that is all
// else: k8s-w1 with a pod, and the router.
type study struct {
	node, rest *nstest.Namespace
}

func newStudy(t testing.TB) study {
	s := study{nstest.New(t), nstest.New(t)}
	s.node.Connect("eth1", s.rest, "port")
	s.node.IP("addr add 192.168.10.100/24 dev eth1")
	s.node.Connect("eth0", s.rest, "void")
	s.node.IP("addr add 10.0.2.15/24 dev eth0")
	s.node.IP("route add default via 10.0.2.2 dev eth0 proto dhcp src 10.0.2.15 metric 100")
	s.node.IP("route add 192.168.20.0/24 via 192.168.10.200 proto static")
	s.node.IP("route add 172.20.0.0/16 via 192.168.10.200 proto static")
	s.rest.IP("addr add 192.168.10.101/24 dev port")
	s.rest.IP("addr add 192.168.10.200/24 dev port")
	s.rest.IP("addr add 172.20.1.1/32 dev lo")
	s.rest.IP("route add 172.20.0.0/24 via 192.168.10.100")
	return s
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func studyState() api.State {
	return api.State{
		Generation: "1", Lab: "study", Node: "k8s-ctr",
		Pods: &api.PodNetwork{
			CIDR: prefix("172.20.0.0/24"), Gateway: addr("172.20.0.1"), MTU: 1500, DirectRoutes: true,
			Peers: []api.Peer{
				{Name: "k8s-w1", Address: addr("192.168.10.101"), CIDR: prefix("172.20.1.0/24")},
				{Name: "k8s-w0", Address: addr("192.168.20.100"), CIDR: prefix("172.20.2.0/24")},
			},
		},
		Sysctls: []api.Sysctl{
			{Name: "net/ipv4/ip_forward", Value: "1"},
			{Name: "net/ipv4/conf/all/rp_filter", Value: "0"},
			{Name: "net/ipv4/icmp_ratelimit", Value: "0"},
		},
		Underlay: api.Underlay{
			Uplink: "eth0",
			Links: []api.UnderlayLink{
				{Name: "eth0", MTU: 1500, Addresses: []netip.Prefix{prefix("10.0.2.15/24")}},
				{Name: "eth1", MTU: 1500, Addresses: []netip.Prefix{prefix("192.168.10.100/24")}},
			},
			Routes: []api.UnderlayRoute{
				{To: prefix("0.0.0.0/0"), Via: []netip.Addr{addr("10.0.2.2")}, Device: "eth0", Metric: 100},
				{To: prefix("192.168.20.0/24"), Via: []netip.Addr{addr("192.168.10.200")}, Static: true},
				{To: prefix("172.20.0.0/16"), Via: []netip.Addr{addr("192.168.10.200")}, Static: true},
			},
		},
	}
}
