//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/native-routing/labctl/labctl/explain"
)

// explained is a fault that is made by hand, and what explain must say of it.
type explained struct {
	name string
	// make and undo are lines "PLACE: COMMAND", run on a node or in a pod.
	make, undo []string
	ask        string // the arguments of explain
	cause      explain.Cause
	leg        explain.Leg
	at         string // the place, as explain names it
	says       string // in the reason
	// arrives is set where the cause loses nothing.
	arrives bool
	// noCure is set where no command mends it.
	noCure bool
}

// catalogue is every fault that a student can make, on the lab with static
// routes. W0, W1 and CTR stand for the pods of webpod on those nodes.
var catalogue = []explained{
	{name: "no route", make: []string{"router: ip route del 172.20.2.0/24", "router: ip route del default"},
		undo: []string{"router: ip route add default via 10.0.2.2 dev eth0 proto dhcp src 10.0.2.15 metric 100"},
		ask:  "curl-pod W0", cause: explain.NoRoute, leg: explain.Request, at: "router", says: "router has no route for 172.20.2.0/24"},
	{name: "default route leak", make: []string{"router: ip route del 172.20.2.0/24"},
		ask: "curl-pod W0", cause: explain.DefaultRoute, leg: explain.Request, at: "router", says: "out of eth0 (default via 10.0.2.2)"},
	{name: "no way back", make: []string{"router: ip route del 172.20.0.0/24"},
		ask: "curl-pod W0", cause: explain.DefaultRoute, leg: explain.Reply, at: "router", says: "no route for 172.20.0.0/24"},
	{name: "one backend of three", make: []string{"router: ip route del 172.20.2.0/24"},
		ask: "curl-pod webpod", cause: explain.DefaultRoute, leg: explain.Request, at: "router", says: "router sends it out of eth0"},
	{name: "wrong more specific route", make: []string{"router: ip route add 172.20.2.0/28 via 192.168.10.101"},
		ask: "curl-pod W0", cause: explain.WrongRoute, leg: explain.Request, at: "router", says: "172.20.2.0/28 via 192.168.10.101 dev eth1"},
	{name: "blackhole", make: []string{"router: ip route add blackhole 172.20.2.0/28"},
		ask: "curl-pod W0", cause: explain.Blackhole, leg: explain.Request, at: "router", says: "blackhole 172.20.2.0/28"},
	{name: "unreachable", make: []string{"router: ip route add unreachable 172.20.2.0/28"},
		ask: "curl-pod W0", cause: explain.Unreachable, leg: explain.Request, at: "router", says: "unreachable 172.20.2.0/28"},
	{name: "prohibit", make: []string{"router: ip route add prohibit 172.20.2.0/28"},
		ask: "curl-pod W0", cause: explain.Prohibit, leg: explain.Request, at: "router", says: "prohibit 172.20.2.0/28"},
	{name: "a rule", make: []string{"router: ip rule add pref 100 to 172.20.2.0/24 prohibit"},
		ask: "curl-pod W0", cause: explain.Prohibit, leg: explain.Request, at: "router", says: "100: from all to 172.20.2.0/24 prohibit"},
	{name: "silent neighbour", make: []string{"router: ip route replace 172.20.2.0/24 via 192.168.20.77"},
		undo: []string{"router: ip route replace 172.20.2.0/24 via 192.168.20.100 proto static"},
		ask:  "curl-pod W0", cause: explain.SilentNeighbour, leg: explain.Request, at: "router", says: "192.168.20.77"},
	{name: "wrong neighbour", make: []string{"router: ip neigh replace 192.168.20.100 lladdr 02:00:00:00:00:99 nud permanent dev eth2"},
		ask: "k8s-ctr k8s-w0", cause: explain.WrongNeighbour, leg: explain.Request, at: "router", says: "02:00:00:00:00:99"},
	{name: "link down on the way", make: []string{"router: ip link set eth2 down"},
		undo: []string{"router: ip link set eth2 up"},
		ask:  "k8s-w0 k8s-ctr", cause: explain.LinkDown, leg: explain.Request, at: "router", says: "eth2 of router is down"},
	{name: "link down at the end", make: []string{"k8s-w1: ip link set eth1 down"},
		undo: []string{"k8s-w1: ip link set eth1 up"},
		ask:  "k8s-ctr k8s-w1", cause: explain.LinkDown, leg: explain.Request, at: "k8s-w1", says: "eth1 of k8s-w1 is down"},
	{name: "link down in a pod", make: []string{"W1: ip link set eth0 down"},
		undo: []string{"W1: ip link set eth0 up", "W1: ip route replace 172.20.1.1 dev eth0", "W1: ip route replace default via 172.20.1.1"},
		ask:  "curl-pod W1", cause: explain.LinkDown, leg: explain.Request, at: "W1", says: "eth0 of webpod"},
	{name: "forwarding off", make: []string{"router: sysctl -qw net.ipv4.ip_forward=0"},
		ask: "curl-pod W0", cause: explain.ForwardingOff, leg: explain.Request, at: "router", says: "what comes in by eth1"},
	{name: "forwarding off on one interface", make: []string{"router: sysctl -qw net.ipv4.conf.eth2.forwarding=0"},
		ask: "curl-pod W0", cause: explain.ForwardingOff, leg: explain.Reply, at: "router", says: "what comes in by eth2"},
	{name: "reverse path filter", make: []string{"router: sysctl -qw net.ipv4.conf.eth1.rp_filter=1", "router: ip route add 172.20.0.2/31 via 192.168.20.100"},
		undo: []string{"router: sysctl -qw net.ipv4.conf.eth1.rp_filter=0"},
		ask:  "curl-pod W0", cause: explain.ReversePath, leg: explain.Request, at: "router", says: "172.20.0.2/31 via 192.168.20.100"},
	{name: "MTU", make: []string{"router: ip link set eth2 mtu 1400"},
		ask: "curl-pod W0 --size 1500", cause: explain.TooBig, leg: explain.Request, at: "router", says: "eth2 of router passes 1400"},
	{name: "loop", make: []string{"router: ip route replace 172.20.2.0/24 via 192.168.10.101"},
		undo: []string{"router: ip route replace 172.20.2.0/24 via 192.168.20.100 proto static"},
		ask:  "curl-pod W0", cause: explain.Loop, leg: explain.Request, at: "router", says: "router, k8s-w1"},
	{name: "nft", make: []string{"router: nft add table ip student", "router: nft add chain ip student guard { type filter hook forward priority 0 ; policy accept ; }",
		"router: nft add rule ip student guard ip daddr 172.20.2.0/24 tcp dport 80 drop"},
		undo: []string{"router: nft delete table ip student"},
		ask:  "curl-pod W0:80", cause: explain.Firewall, leg: explain.Request, at: "router", says: "nft ip student guard"},
	{name: "nft, policy", make: []string{"router: nft add table ip student", "router: nft add chain ip student guard { type filter hook forward priority 0 ; policy drop ; }",
		"router: nft add rule ip student guard ct state new accept"},
		undo: []string{"router: nft delete table ip student"},
		ask:  "curl-pod W0", cause: explain.Firewall, leg: explain.Reply, at: "router", says: "policy drop"},
	{name: "iptables", make: []string{"router: iptables -A FORWARD -s 172.20.0.0/24 -p icmp -j REJECT"},
		undo: []string{"router: iptables -F FORWARD"},
		ask:  "curl-pod W0", cause: explain.Firewall, leg: explain.Request, at: "router", says: "FORWARD: -s 172.20.0.0/24 -p icmp"},
	{name: "iptables-legacy in a node's input", make: []string{"k8s-w0: iptables-legacy -A INPUT -p icmp -j DROP"},
		undo: []string{"k8s-w0: iptables-legacy -F INPUT"},
		ask:  "k8s-ctr k8s-w0", cause: explain.Firewall, leg: explain.Request, at: "k8s-w0", says: "iptables-legacy filter INPUT"},
	{name: "echoes ignored", make: []string{"k8s-w0: sysctl -qw net.ipv4.icmp_echo_ignore_all=1"},
		ask: "k8s-ctr k8s-w0", cause: explain.EchoIgnored, leg: explain.Request, at: "k8s-w0", says: "icmp_echo_ignore_all"},
	{name: "address gone", make: []string{"router: ip addr del 192.168.10.200/24 dev eth1"},
		undo: []string{"router: ip addr replace 192.168.10.200/24 dev eth1"},
		ask:  "router k8s-ctr", cause: explain.NoAddress, leg: explain.Request, at: "router", says: "eth1 of router has lost its address 192.168.10.200/24"},
	{name: "link down, and its routes with it", make: []string{"router: ip link set eth2 down"},
		undo: []string{"router: ip link set eth2 up"},
		ask:  "curl-pod W0", cause: explain.LinkDown, leg: explain.Request, at: "router", says: "eth2 of router is down"},
	{name: "no backend", ask: "curl-pod nobody", cause: explain.NoBackend, leg: explain.Request, at: "curl-pod", says: "default/nobody", noCure: true},
	{name: "a service by ping", ask: "curl-pod webpod --proto icmp", cause: explain.NotForIt, leg: explain.Request, at: "k8s-ctr", says: "the address of a service", noCure: true},
	{name: "no such pod", ask: "curl-pod 172.20.2.77", cause: explain.NoPod, leg: explain.Request, at: "k8s-w0", says: "no pod with the address 172.20.2.77", noCure: true},
	{name: "out of the lab", ask: "k8s-ctr 203.0.113.9", cause: explain.LeftLab, leg: explain.Request, at: "k8s-ctr", says: "where the lab ends", noCure: true},
	{name: "a pod without routes", make: []string{"W1: ip route del default"},
		ask: "curl-pod W1", cause: explain.NoRoute, leg: explain.Reply, at: "W1", says: "has no route for 172.20.0.0/24"},
	{name: "its own address as source", make: []string{"router: ip addr add 192.168.10.100/32 dev lo"},
		ask: "k8s-ctr k8s-w0", cause: explain.Martian, leg: explain.Request, at: "router", says: "192.168.10.100 is an address of router itself"},
	{name: "an address that is another's", make: []string{"router: ip addr add 192.168.20.100/32 dev lo"},
		undo: []string{"router: ip addr del 192.168.20.100/32 dev lo"},
		ask:  "k8s-ctr k8s-w0", cause: explain.ForeignAddress, leg: explain.Request, at: "router", says: "takes what is for k8s-w0", arrives: true},
	{name: "masqueraded by a rule", make: []string{"k8s-ctr: iptables -t nat -A POSTROUTING -s 172.20.0.0/24 -d 192.168.20.0/24 -o eth1 -j MASQUERADE"},
		undo: []string{"k8s-ctr: iptables -t nat -F POSTROUTING"},
		ask:  "curl-pod k8s-w0", cause: explain.Masqueraded, leg: explain.Request, at: "k8s-ctr", says: "-j MASQUERADE", arrives: true},
	{name: "asymmetric return", make: []string{"k8s-w1: ip route add 192.168.10.100 via 192.168.10.200"},
		undo: []string{"k8s-w1: ip route del 192.168.10.100"},
		ask:  "k8s-ctr k8s-w1", cause: explain.Asymmetric, leg: explain.Reply, at: "router", says: "k8s-ctr, k8s-w1 there, k8s-w1, router, k8s-ctr back", arrives: true},
}

// Every fault of the catalogue is made, explained with its true cause and place,
// mended as explain says, and explained to be gone.
func TestExplainCatalogue(t *testing.T) {
	l := newKillLab(t)
	l.must(append(l.up(), "--stage", "static-routes", "-q")...)
	manifest := filepath.Join(l.dir, "nobody.yaml")
	if err := os.WriteFile(manifest, []byte("apiVersion: v1\nkind: Service\nmetadata: {name: nobody}\nspec:\n  selector: {app: nobody}\n  ports: [{port: 80}]\n"+
		"---\napiVersion: v1\nkind: Service\nmetadata: {name: outside}\nspec:\n  type: NodePort\n  selector: {app: webpod}\n  ports: [{port: 80, nodePort: 31080}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l.must("apply", "-f", manifest)
	pods := l.webpods()
	t.Run("arrive", func(t *testing.T) {
		l := l
		l.t = t
		l.arrive("curl-pod webpod", "k8s-w0 webpod", "router 192.168.10.101:31080", "curl-pod k8s-w1:31080", "curl-pod 10.10.1.200", "curl-pod k8s-w0", "k8s-ctr k8s-ctr", "router curl-pod", "curl-pod deploy/webpod --size 1500")
		l.stale()
	})
	for _, fault := range catalogue {
		t.Run(fault.name, func(t *testing.T) {
			l := l
			l.t = t
			for _, line := range fault.make {
				l.on(pods, line)
			}
			report := l.explain(pods, fault.ask)
			fault.check(t, pods, report)
			if !fault.arrives && !fault.noCure {
				l.cured(pods, fault.ask, report)
			}
			for _, line := range fault.undo {
				l.on(pods, line)
			}
			l.must("up", "-q")
		})
	}
}

// Services from everywhere, and what leaves the cluster: all that is translated
// on the way is predicted as it is seen.
func (l killLab) arrive(asks ...string) {
	for _, ask := range asks {
		if r := l.explain(nil, ask); !r.Verdict.Arrives || r.Headline != "" {
			l.t.Errorf("explain %s: %s\n%s", ask, r.Headline, r.Verdict.Sentence)
		}
	}
}

// stale leaves a connection in the router's connection tracking that a rule of
// its firewall does not translate so any more, and explains it.
func (l killLab) stale() {
	nat := func(to string) {
		l.must("exec", "router", "--", "nft", "add table ip student; flush table ip student; add chain ip student away { type nat hook prerouting priority -100 ; }; "+
			"add rule ip student away ip daddr 10.10.1.200 udp dport 9999 dnat to "+to)
	}
	defer l.must("exec", "router", "--", "nft", "delete table ip student")
	nat("192.168.20.77")
	l.must("exec", "k8s-ctr", "--", "bash", "-c", "echo > /dev/udp/10.10.1.200/9999")
	nat("192.168.20.100")
	tracked := l.must("exec", "router", "--", "cat", "/proc/net/nf_conntrack")
	port := regexp.MustCompile(`sport=(\d+) dport=9999`).FindStringSubmatch(tracked)
	if port == nil {
		l.t.Fatalf("nothing is tracked: %s", tracked)
	}
	for source, want := range map[string]string{port[1]: "stale-conntrack, request at router", "1024": "neither"} {
		r := l.explain(nil, "k8s-ctr 10.10.1.200:9999 --proto udp --source-port "+source)
		got := "neither"
		if len(r.Verdict.Findings) > 0 {
			got = fmt.Sprintf("%s, %s at %s", r.Verdict.Findings[0].Cause, r.Verdict.Findings[0].Leg, r.Verdict.Findings[0].Place.Name())
		}
		if got != want {
			l.t.Errorf("from port %s: want %s, got %s: %s", source, want, got, r.Verdict.Sentence)
		}
	}
}

// webpods are the names of webpod's pods, by the last part of their node's.
func (l killLab) webpods() map[string]string {
	pods := map[string]string{}
	for line := range strings.Lines(l.must("get", "pods", "-o", "wide")) {
		fields := strings.Fields(line)
		for short, node := range map[string]string{"W0": "k8s-w0", "W1": "k8s-w1", "CTR": "k8s-ctr"} {
			if strings.HasPrefix(line, "webpod-") && strings.Contains(line, " "+node+" ") {
				pods[short] = fields[0]
			}
		}
	}
	if len(pods) != 3 {
		l.t.Fatalf("want a webpod on each node, have %v", pods)
	}
	return pods
}

func named(pods map[string]string, text string) string {
	for short, name := range pods {
		text = strings.ReplaceAll(text, short, name)
	}
	return text
}

// on runs a line of the catalogue.
func (l killLab) on(pods map[string]string, line string) {
	l.t.Helper()
	place, command, _ := strings.Cut(named(pods, line), ": ")
	l.must(append([]string{"exec", place, "--"}, strings.Fields(command)...)...)
}

func (l killLab) explain(pods map[string]string, ask string) explain.Report {
	l.t.Helper()
	var report explain.Report
	out, ended := l.command(append([]string{"explain", "-o", "json", "--timeout", "300ms"}, strings.Fields(named(pods, ask))...)...).Output()
	code := exitCode(ended)
	if code != 0 && code != 3 {
		l.t.Fatalf("explain %s: %v", ask, ended)
	}
	if err := json.Unmarshal(out, &report); err != nil {
		l.t.Fatalf("explain %s: %v\n%s", ask, err, out)
	}
	if (code == 0) != report.Verdict.Arrives {
		l.t.Fatalf("explain %s exits with %d, and says: %s", ask, code, report.Verdict.Sentence)
	}
	return report
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return 0
}

func (e explained) check(t *testing.T, pods map[string]string, r explain.Report) {
	t.Helper()
	findings := r.Verdict.Findings
	if e.arrives {
		findings = r.Verdict.Remarks
	}
	if r.Verdict.Arrives != e.arrives || len(findings) == 0 {
		t.Fatalf("arrives %v, findings %v: %s", r.Verdict.Arrives, findings, r.Verdict.Sentence)
	}
	f := findings[0]
	got := fmt.Sprintf("%s, %s at %s", f.Cause, f.Leg, f.Place.Name())
	want := fmt.Sprintf("%s, %s at %s", e.cause, e.leg, named(pods, e.at))
	if got != want || !strings.Contains(f.Reason, e.says) {
		t.Errorf("want %s, with %q; got %s: %s", want, e.says, got, r.Verdict.Sentence)
	}
	if r.Headline != "" {
		t.Errorf("seen is not what was predicted: %s", r.Headline)
	}
}

// cured types what the findings say, one after another, and wants the packet to
// arrive then.
func (l killLab) cured(pods map[string]string, ask string, r explain.Report) {
	l.t.Helper()
	for _, f := range r.Verdict.Findings {
		if len(f.Cures) == 0 {
			l.t.Fatalf("no cure for: %s", f.Reason)
		}
		shell := exec.Command("sh", "-c", f.Cures[0])
		shell.Env = l.command().Env
		if out, err := shell.CombinedOutput(); err != nil {
			l.t.Fatalf("%s: %v\n%s", f.Cures[0], err, out)
		}
	}
	if after := l.explain(pods, ask); !after.Verdict.Arrives {
		l.t.Errorf("after %v: %s", r.Verdict.Findings, after.Verdict.Sentence)
	}
}
