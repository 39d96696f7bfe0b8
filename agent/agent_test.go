//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
)

const (
	gatewayName = "labctl_host"
	directName  = "172.20.1.0/24 via 192.168.10.101"
	refusedName = "172.20.2.0/24 via 192.168.20.100"
	ownRoutes   = `172.20.0.0/24 via 172.20.0.1 dev labctl_host proto 108 src 172.20.0.1 
172.20.0.1 dev labctl_host proto 108 scope link 
172.20.1.0/24 via 192.168.10.101 dev eth1 proto 108 
`
	inPlace = `agent link labctl_host: in place
agent link labctl_net: in place
agent address 172.20.0.1/32 dev labctl_host: in place
agent route 172.20.0.1 dev labctl_host: in place
agent route 172.20.0.0/24 via 172.20.0.1 dev labctl_host: in place
agent route 172.20.1.0/24 via 192.168.10.101: in place
agent route 172.20.2.0/24 via 192.168.20.100: refused: the route to k8s-w0 (192.168.20.100) contains gateway 192.168.10.200 (eth1), so its pods in 172.20.2.0/24 are not directly reachable: route 172.20.2.0/24 on the gateway, or set cluster.directRoutingSkipUnreachable to pass over such nodes
lab sysctl net/ipv4/ip_forward: in place
lab sysctl net/ipv4/conf/all/rp_filter: in place
lab sysctl net/ipv4/icmp_ratelimit: in place
lab link eth0: in place
lab link eth1: in place
lab route default via 10.0.2.2: in place
lab route 192.168.20.0/24 via 192.168.10.200: in place
lab route 172.20.0.0/16 via 192.168.10.200: in place
`
)

// asSettled is the status and the kernel of the study, whole.
func asSettled(t *testing.T, p *process) {
	t.Helper()
	if got := lines(p.status()); got != inPlace {
		t.Errorf("status:\n%s\nwant:\n%s", got, inPlace)
	}
	if got := own(p.ns); got != ownRoutes {
		t.Errorf("routes:\n%s\nwant:\n%s", got, ownRoutes)
	}
	link := p.ns.IP("-br -4 addr show dev " + gatewayName)
	if got := strings.Join(strings.Fields(link), " "); got != "labctl_host@labctl_net UP 172.20.0.1/32" && !strings.HasPrefix(got, "labctl_host@labctl_net UNKNOWN 172.20.0.1/32") {
		t.Errorf("gateway: %s", got)
	}
}

// own are the routes of the agent's, as ip prints them in full (with a filter by
// protocol it leaves the protocol out).
func own(ns *nstest.Namespace) string {
	var b strings.Builder
	for line := range strings.Lines(ns.IP("-4 route show")) {
		if strings.Contains(line, " proto 108 ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestConverges(t *testing.T) {
	s := newStudy(t)
	p := start(t, s.node, t.TempDir(), "")
	if got := p.status(); got.Settled || got.Generation != "" || len(got.Objects) != 0 {
		t.Errorf("before a state: %+v", got)
	}
	if applied := p.put(studyState()); applied != (api.Applied{Generation: "1", Changed: true}) {
		t.Errorf("first: %+v", applied)
	}
	took := p.until("settled", func(s api.Status) bool { return s.Settled })
	t.Logf("settled in %v", took)
	asSettled(t, p)
	for _, name := range []string{"labctl_host", "labctl_net"} {
		got := s.node.IP("link show dev " + name)
		if !strings.Contains(got, "NOARP") || !strings.Contains(got, "alias labctl-agent lab=study node=k8s-ctr interface="+name) {
			t.Errorf("link:\n%s", got)
		}
	}
	s.node.Run("ping", "-c1", "-W2", "-I", "172.20.0.1", "172.20.1.1")

	if applied := p.put(studyState()); applied != (api.Applied{Generation: "1", Changed: false}) {
		t.Errorf("the same again: %+v", applied)
	}
	p.until("settled", func(s api.Status) bool { return s.Settled })
	asSettled(t, p)

	// A node that carries no pods any more keeps nothing.
	none := studyState()
	none.Generation, none.Pods = "2", nil
	p.settle(none)
	if got := s.node.IP("route show proto 108") + s.node.IP("-br link show type veth"); strings.Contains(got, "108") || strings.Contains(got, "labctl") {
		t.Errorf("left behind:\n%s", got)
	}
}

// What is the agent's own is back within a second, whoever removed it and how.
func TestMends(t *testing.T) {
	s := newStudy(t)
	p := start(t, s.node, t.TempDir(), "")
	p.settle(studyState())
	for _, test := range []struct {
		fault  string
		object string // one of those that are mended
	}{
		{"route del 172.20.1.0/24 proto 108", directName},
		{"route change 172.20.1.0/24 via 192.168.10.200 proto 108", directName},
		{"route flush proto 108", directName},
		{"addr del 172.20.0.1/32 dev labctl_host", "172.20.0.1/32 dev labctl_host"},
		{"addr flush dev labctl_host", "172.20.0.1/32 dev labctl_host"},
		{"link set labctl_host down", "labctl_host"},
		{"link set labctl_net down", "labctl_net"},
		{"link set labctl_host mtu 1300", "labctl_host"},
		{"link set labctl_host arp on", "labctl_host"},
		{"link set labctl_net alias other", "labctl_net"},
		{"link del labctl_host", "labctl_host"},
		{"link set eth1 down", ""},
	} {
		t.Run(test.fault, func(t *testing.T) {
			outer := p.t
			p.t = t
			defer func() { p.t = outer }()
			before := find(p.status(), api.OwnerAgent, test.object).Mended
			s.node.IP(test.fault)
			if test.object == "" {
				p.until("the fault is seen", func(s api.Status) bool {
					return find(s, api.OwnerLab, "eth1").Reason == "down"
				})
				s.node.IP("link set eth1 up")
				s.node.IP("route add 192.168.20.0/24 via 192.168.10.200 proto static")
				s.node.IP("route add 172.20.0.0/16 via 192.168.10.200 proto static")
			}
			took := p.until("mended", func(s api.Status) bool {
				return s.Settled && lines(s) == inPlace &&
					(test.object == "" || find(s, api.OwnerAgent, test.object).Mended > before)
			})
			t.Logf("mended in %v", took)
			asSettled(t, p)
			s.node.Run("ping", "-c1", "-W2", "-I", "172.20.0.1", "172.20.1.1")
		})
	}
}

// What is the lab's is told as it was seen, and left as it is.
func TestReports(t *testing.T) {
	for _, test := range []struct{ fault, object, want string }{
		{"ip link set eth1 mtu 1400", "eth1", "mtu 1400, not 1500"},
		{"ip link set eth1 down", "eth1", "down"},
		{"ip addr del 192.168.10.100/24 dev eth1", "eth1", "address 192.168.10.100/24 is gone"},
		{"ip addr add 192.168.10.110/24 dev eth1", "192.168.10.110/24 dev eth1", "it is not the lab's"},
		{"ip link del eth0", "eth0", "gone"},
		{"ip link set void down", "eth0", "no carrier"},
		{"ip route del 192.168.20.0/24", "192.168.20.0/24 via 192.168.10.200", "gone"},
		{"ip route change 192.168.20.0/24 via 192.168.10.201", "192.168.20.0/24 via 192.168.10.200", "192.168.20.0/24 via 192.168.10.201 dev eth1 proto boot instead"},
		{"echo 0 > /proc/sys/net/ipv4/ip_forward", "net/ipv4/ip_forward", "0, not 1"},
		{"echo 2 > /proc/sys/net/ipv4/conf/all/rp_filter", "net/ipv4/conf/all/rp_filter", "2, not 0"},
		{"echo 1000 > /proc/sys/net/ipv4/icmp_ratelimit", "net/ipv4/icmp_ratelimit", "1000, not 0"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			s := newStudy(t)
			p := start(t, s.node, t.TempDir(), "")
			p.settle(studyState())
			where := s.node
			if strings.Contains(test.fault, " void ") { // the other end of eth0
				where = s.rest
			}
			where.Run("sh", "-c", test.fault)
			p.until("reported", func(s api.Status) bool {
				o := find(s, api.OwnerLab, test.object)
				return s.Settled && o.Condition == api.Drifted && o.Reason == test.want
			})
			time.Sleep(150 * time.Millisecond)
			if o := find(p.status(), api.OwnerLab, test.object); o.Reason != test.want {
				t.Errorf("mended, though it is not the agent's: %+v", o)
			}
			if strings.Contains(test.object, "net/") { // a new state, even the same, writes them again
				p.settle(studyState())
				if o := find(p.status(), api.OwnerLab, test.object); o.Condition != api.InPlace {
					t.Errorf("after the state was sent again: %+v", o)
				}
			}
		})
	}
}

// A peer behind a gateway gets its route when it becomes adjacent, and loses it
// when it is not any more.
func TestPeerBecomesAdjacent(t *testing.T) {
	s := newStudy(t)
	p := start(t, s.node, t.TempDir(), "")
	p.settle(studyState())
	asSettled(t, p)
	route := func() string { return s.node.IP("route show 172.20.2.0/24") }

	skip := studyState()
	skip.Generation, skip.Pods.SkipUnreachable = "2", true
	p.settle(skip)
	want := api.Object{Kind: "route", Name: refusedName, Owner: api.OwnerAgent, Condition: api.Skipped,
		Reason: "the route to k8s-w0 (192.168.20.100) contains gateway 192.168.10.200 (eth1), so its pods in 172.20.2.0/24 are not directly reachable"}
	if got := find(p.status(), api.OwnerAgent, refusedName); got != want {
		t.Errorf("skipped: %+v", got)
	}
	if got := route(); got != "" {
		t.Errorf("a route to a peer behind a gateway: %s", got)
	}

	s.node.IP("route add 192.168.20.100/32 dev eth1 proto static")
	p.until("in place", func(s api.Status) bool { return find(s, api.OwnerAgent, refusedName).Condition == api.InPlace })
	if got, want := route(), "172.20.2.0/24 via 192.168.20.100 dev eth1 proto 108 \n"; got != want {
		t.Errorf("adjacent: %q, want %q", got, want)
	}
	s.node.IP("route del 192.168.20.100/32")
	p.until("skipped again", func(s api.Status) bool { return find(s, api.OwnerAgent, refusedName) == want })
	if got := route(); got != "" {
		t.Errorf("a stale route to a peer behind a gateway: %s", got)
	}

	// No route at all, and then one again.
	s.node.IP("route del default")
	s.node.IP("route del 192.168.20.0/24")
	p.until("unreachable", func(s api.Status) bool {
		o := find(s, api.OwnerAgent, refusedName)
		return s.Settled && o.Condition == api.Refused &&
			o.Reason == "k8s-w0 (192.168.20.100) is not reachable, so there is no route to its pods in 172.20.2.0/24: network is unreachable"
	})
}

func TestForeignRoutesStay(t *testing.T) {
	s := newStudy(t)
	foreign := "172.20.1.0/24 via 192.168.10.200 dev eth1 proto bgp"
	s.node.IP("route add " + foreign)
	p := start(t, s.node, t.TempDir(), "")
	p.settle(studyState())
	want := "another's route has its place: " + foreign + ". Remove that (ip route delete " + foreign + ")"
	if o := find(p.status(), api.OwnerAgent, directName); o.Condition != api.Drifted || o.Reason != want {
		t.Errorf("%+v", o)
	}
	if got := s.node.IP("route show 172.20.1.0/24"); strings.TrimSpace(got) != foreign {
		t.Errorf("routes: %s", got)
	}
	s.node.IP("route delete " + foreign) // the cure that was told
	p.until("in place", func(s api.Status) bool { return find(s, api.OwnerAgent, directName).Condition == api.InPlace })
	s.node.IP("route prepend " + foreign)
	p.until("overruled", func(s api.Status) bool {
		return find(s, api.OwnerAgent, directName).Reason == "another's route comes before it: "+foreign+". Remove that (ip route delete "+foreign+")"
	})
	if got := s.node.IP("route show 172.20.1.0/24"); strings.Count(got, "\n") != 2 {
		t.Errorf("both routes were to stay:\n%s", got)
	}
}

func TestSecondAgent(t *testing.T) {
	ns := nstest.New(t)
	dir := t.TempDir()
	p := start(t, ns, dir, "")
	second := ns.Command(t.Context(), os.Args[0], "--run", dir, "--data", dir, "--bpf", filepath.Join(dir, "bpf"))
	second.Env = append(os.Environ(), asAgent+"=1")
	out, err := second.CombinedOutput()
	var exit *exec.ExitError
	want := fmt.Sprintf("agent: an agent runs here already: pid %d holds %s/agent.lock\n", p.cmd.Process.Pid, dir)
	if !errors.As(err, &exit) || exit.ExitCode() != exitError || string(out) != want {
		t.Errorf("%v: %s\nwant %s", err, out, want)
	}
	p.status() // the first one is well
}

func TestCorruptState(t *testing.T) {
	s := newStudy(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "desired.json"), []byte(`{"generation`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, s.node, dir, "")
	if !strings.Contains(p.logged(), "corrupt state file") {
		t.Errorf("the log does not tell:\n%s", p.logged())
	}
	p.settle(studyState())
	asSettled(t, p)
}

func TestInvalid(t *testing.T) {
	p := start(t, nstest.New(t), t.TempDir(), "")
	state := studyState()
	state.Sysctls[0].Name = "net/../kernel/hostname"
	_, err := api.PutState.Call(t.Context(), p.Client, state)
	if !errors.Is(err, api.ErrInvalid) {
		t.Errorf("a sysctl elsewhere: %v", err)
	}
	_, err = api.LookupRoutes.Call(t.Context(), p.Client, api.LookupRequest{Queries: []api.Lookup{{}}})
	if !errors.Is(err, api.ErrInvalid) {
		t.Errorf("a lookup of nothing: %v", err)
	}
	answer, err := api.LookupRoutes.Call(t.Context(), p.Client, api.LookupRequest{Queries: []api.Lookup{{To: addr("8.8.8.8")}, {To: addr("127.0.0.1")}}})
	if err != nil || answer.Decisions[0].Error != "network is unreachable" || answer.Decisions[1].Type != "local" {
		t.Errorf("lookups: %+v, %v", answer, err)
	}
	if s := p.status(); s.Generation != "" {
		t.Errorf("an invalid state was taken: %+v", s)
	}
}

func TestCommandLine(t *testing.T) {
	s := newStudy(t)
	p := start(t, s.node, t.TempDir(), "")
	p.settle(studyState())
	for _, test := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{}, exitUsage, "", "usage:"},
		{[]string{"--run", "/x"}, exitUsage, "", "usage:"},
		{[]string{"--mood", "good"}, exitUsage, "", "flag provided but not defined"},
		{[]string{"dance"}, exitUsage, "", "usage:"},
		{[]string{"version"}, exitOK, "(go1.", ""},
		{[]string{"status", "--run", p.dir}, exitOK, "agent  route    172.20.1.0/24 via 192.168.10.101              in place   0       \n", ""},
		{[]string{"status", "--run", p.dir, "-o", "json"}, exitOK, `"condition": "refused"`, ""},
		{[]string{"status", "--run", p.dir, "-o", "xml"}, exitUsage, "", "usage:"},
		{[]string{"status", "--run", "/nowhere"}, exitError, "", "no such file or directory"},
		{[]string{"--run", t.TempDir() + strings.Repeat("/long", 30), "--data", t.TempDir(), "--bpf", t.TempDir()}, exitError, "", "choose a shorter run directory"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(test.args, &stdout, &stderr)
		if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%v: exit code %d, want %d\n%s%s", test.args, code, test.code, &stdout, &stderr)
		}
	}
}
