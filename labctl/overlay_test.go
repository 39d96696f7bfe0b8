//go:build linux

package main

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// rounds is how often a lab goes into its tunnel and out of it again.
const rounds = 10

// TestOverlay takes a lab under load into its tunnel and back, again and again.
// Connections last, whoever looks on the router sees packets between nodes only,
// and in the end all is as it was before.
func TestOverlay(t *testing.T) {
	l := newLoadLab(t)
	before, held := l.tables(), l.held()
	t.Run("verified", func(t *testing.T) {
		l.t = t
		l.stage("overlay")
		l.must("verify")
		l.sees()
	})
	t.Run("mended", func(t *testing.T) {
		l.t = t
		l.mends()
	})
	t.Run("to and fro", func(t *testing.T) {
		l.t = t
		traffic := l.kept()
		var longest time.Duration
		for range rounds {
			for _, stage := range []string{"static-routes", "overlay"} {
				began := time.Now()
				l.stage(stage)
				longest = max(longest, time.Since(began))
			}
		}
		traffic.stop("the lab went into its tunnel and out of it")
		t.Logf("%d times to and fro, each at most %s", rounds, longest.Round(time.Millisecond))
		l.must("verify")
	})
	l.t = t
	l.stage("static-routes")
	if after := l.tables(); after != before {
		t.Errorf("the nodes have\n%s\nbefore the tunnel they had\n%s", after, before)
	}
	l.holds(held, 2*rounds)
	l.must("verify", "--check", "interfaces,routes,tracepath,reach")
	l.goes()
}

// kept are connections that last: from pods, from a node, and by NodePorts from
// outside, to backends on all nodes. None is begun while nodes change, for one of
// them is always the first: what it sends by then is lost, and sent again. How
// soon, depends on how busy the machine is; that none breaks does not.
func (l *loadLab) kept() clients {
	l.t.Helper()
	keep := func(place, echo string) *client {
		return l.start(place, "-echo", echo, "-kept", "8", "-silence", "1m")
	}
	const service = "10.96.0.107:7"
	return clients{
		keep("curl-pod", service), keep("load", service), keep("k8s-w1", service),
		keep("router", "192.168.10.100:30007"), keep("router", "192.168.20.100:30007"),
	}
}

func (l *loadLab) stage(name string) {
	l.t.Helper()
	l.must("up", l.file, "--stage", name)
}

// tables are those of all nodes and of a pod in which a tunnel may leave
// something, without what changes by itself.
func (l *loadLab) tables() string {
	l.t.Helper()
	var b strings.Builder
	show := func(at string, commands ...string) {
		for _, command := range commands {
			b.WriteString("# " + at + ": " + command + "\n")
			lines := strings.Split(l.must(append([]string{"exec", at, "--"}, strings.Fields(command)...)...), "\n")
			slices.Sort(lines)
			b.WriteString(strings.Join(lines, "\n"))
		}
	}
	for _, node := range podNodes {
		show(node, "ip -br link", "ip route show table all", "ip neigh show nud permanent", "bridge fdb show", "ip rule")
	}
	show("curl-pod", "ip route", "ip neigh show nud permanent")
	return b.String()
}

// sees looks at the router while pods of all nodes talk: packets between nodes,
// from and to the tunnel's port, and none with a pod's address.
func (l *loadLab) sees() {
	t := l.t
	t.Helper()
	traffic := l.start("curl-pod", "-http", "10.96.0.180:80", "-echo", "10.96.0.107:7")
	var text bytes.Buffer
	dump := l.command("exec", "router", "--", "timeout", "5", "tcpdump", "-l", "-c", "400", "-nn", "-i", "any", "ip")
	dump.Stdout = &text
	_ = dump.Run() // timeout ends it
	traffic.stop()
	packet := regexp.MustCompile(`IP (\d+\.\d+\.\d+\.\d+)(?:\.(\d+))? > (\d+\.\d+\.\d+\.\d+)(?:\.(\d+))?:`)
	nodes := []string{"192.168.10.100", "192.168.10.101", "192.168.20.100"}
	carriers := 0
	for line := range strings.Lines(text.String()) {
		seen := packet.FindStringSubmatch(line)
		if seen == nil || strings.HasPrefix(line, "\tIP ") || strings.HasPrefix(line, "IP ") {
			continue // what a carrier carries, which tcpdump unpacks
		}
		for _, address := range []string{seen[1], seen[3]} {
			if strings.HasPrefix(address, "172.20.") {
				t.Fatalf("the router sees a pod's address: %s", line)
			}
		}
		if seen[4] == "8472" {
			carriers++
			if !slices.Contains(nodes, seen[1]) || !slices.Contains(nodes, seen[3]) {
				t.Errorf("not between nodes: %s", line)
			}
		}
	}
	if carriers == 0 {
		t.Errorf("the router sees no packets of the tunnel:\n%s", text.String())
	}
	trace := l.must("exec", "k8s-ctr", "--", "tracepath", "-n", "172.20.2.1")
	if !strings.Contains(trace, "pmtu 1450 hops 1 back 1") {
		t.Errorf("tracepath:\n%s", trace)
	}
	// More than one segment each way, to backends on the far side.
	for _, entry := range []string{"192.168.10.100:30080", "192.168.20.100:30080"} {
		for range 6 {
			l.must("exec", "router", "--", "curl", "-sS", "-m", "3", "-o", "/dev/null", "-H", "X: "+strings.Repeat("x", 5000), entry+"/")
		}
	}
}

// mends breaks the tunnel by hand: the agent puts it back, and verify finds
// nothing.
func (l *loadLab) mends() {
	l.t.Helper()
	for _, fault := range []string{
		"ip link delete labctl_vxlan",
		"bridge fdb replace 0a:6c:ac:14:02:01 dev labctl_vxlan dst 192.168.10.77",
		"ip neigh del 172.20.2.1 dev labctl_vxlan",
	} {
		l.must(append([]string{"exec", "k8s-ctr", "--"}, strings.Fields(fault)...)...)
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			verify := l.command("verify", "--check", "interfaces,routes,ping")
			out, err := verify.CombinedOutput()
			if err == nil {
				break
			}
			if time.Now().After(end) {
				l.t.Fatalf("%s is not mended: %v\n%s", fault, err, out)
			}
		}
	}
}
