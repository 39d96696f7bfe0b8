//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loadLab is a lab with traffic in it.
type loadLab struct {
	killLab
	random *rand.Rand
}

// The services that are under load. Both have backends on several nodes.
const loadManifest = `
{apiVersion: v1, kind: Pod, metadata: {name: load}, spec: {nodeName: k8s-w0, terminationGracePeriodSeconds: 0,
  containers: [{name: load, image: nicolaka/netshoot, command: [tail, -f, /dev/null]}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 3
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: echo, image: nicolaka/netshoot, command: ["LABLOAD", -serve, ":7"], ports: [{containerPort: 7}]}]
---
{apiVersion: v1, kind: Service, metadata: {name: echo}, spec: {type: NodePort, clusterIP: 10.96.0.107, selector: {app: echo}, ports: [{port: 7, nodePort: 30007}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, clusterIP: 10.96.0.180, selector: {app: webpod}, ports: [{port: 80, nodePort: 30080}]}}
`

// podNodes are the nodes that carry pods.
var podNodes = []string{"k8s-ctr", "k8s-w1", "k8s-w0"}

func newLoadLab(t *testing.T) *loadLab {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	t.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0") // of each labctl that runs here
	l := &loadLab{newKillLab(t), rand.New(rand.NewPCG(seed, 0))}
	t.Cleanup(func() {
		if t.Failed() {
			l.tellAgents()
		}
	})
	l.must("up", l.file, "--stage", "static-routes")
	labload, err := exec.LookPath("labload")
	if err != nil {
		t.Fatal(err)
	}
	l.apply(strings.ReplaceAll(loadManifest, "LABLOAD", labload))
	return l
}

func (l *loadLab) apply(manifest string) {
	l.t.Helper()
	cmd := l.command("apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("labctl apply: %v\n%s\n%s", err, out, manifest)
	}
}

// tellAgents shows what agents complained of, when a test has failed.
func (l *loadLab) tellAgents() {
	for _, node := range podNodes {
		log, _ := os.ReadFile(filepath.Join(l.dir, "data", l.name, "nodes", node, "agent.log")) // there may be none
		for line := range strings.Lines(string(log)) {
			if !strings.Contains(line, "level=INFO") {
				l.t.Logf("agent of %s: %s", node, strings.TrimSpace(line))
			}
		}
	}
}

// client is load that runs in a pod or on a node.
type client struct {
	t     *testing.T
	place string
	cmd   *exec.Cmd
	in    io.Closer
	out   *bufio.Reader
	opens bool // connections that are not kept
}

// start starts load in a pod or on a node.
func (l *loadLab) start(place string, args ...string) *client {
	l.t.Helper()
	labload, err := exec.LookPath("labload")
	if err != nil {
		l.t.Fatal(err)
	}
	c := &client{t: l.t, place: place, opens: slices.Contains(args, "-http"), cmd: l.command(append([]string{"exec", place, "--", labload}, args...)...)}
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	if _, err := c.out.ReadString('\n'); err != nil {
		_ = c.cmd.Wait()
		l.t.Fatalf("load in %s: %v", place, err)
	}
	return c
}

// stop ends the load, and returns what the client saw.
func (c *client) stop() loadReport {
	c.t.Helper()
	var r loadReport
	_ = c.in.Close() // a client that has ended already is seen below
	if err := json.NewDecoder(c.out).Decode(&r); err != nil {
		c.t.Errorf("load in %s: %v", c.place, err)
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("load in %s: %v", c.place, err)
	}
	return r
}

// clients are all of a test: new and kept connections by the socket's way from
// pods and a node, and by a NodePort from outside of the cluster.
type clients []*client

func (l *loadLab) traffic() clients {
	l.t.Helper()
	inside := []string{"-http", "10.96.0.180:80", "-echo", "10.96.0.107:7"}
	return clients{
		l.start("curl-pod", inside...),
		l.start("load", inside...),
		l.start("k8s-w1", inside...),
		l.start("router", "-http", "192.168.10.100:30080", "-echo", "192.168.20.100:30007"),
	}
}

// stop ends all, fails the test for each failure that a user would have seen,
// and returns who was served when.
func (all clients) stop(during string) map[string]served {
	who := map[string]served{}
	for _, c := range all {
		c.t.Helper()
		r := c.stop()
		c.t.Logf("%s: %d connections, longest %s; %d pings on kept ones, longest %s; %d failures", c.place,
			r.Opened, r.LongestOpened.Round(time.Millisecond), r.Pings, r.LongestPing.Round(time.Millisecond), len(r.Failures))
		if c.opens && r.Opened == 0 || r.Pings == 0 {
			c.t.Errorf("there was no load from %s", c.place)
		}
		for i, f := range r.Failures {
			if i == 10 {
				c.t.Errorf("and %d more", len(r.Failures)-i)
				break
			}
			c.t.Errorf("while %s, a user in %s saw: %s", during, c.place, f)
		}
		for host, s := range r.Served {
			sum := who[host]
			sum.Connections += s.Connections
			if s.Last.After(sum.Last) {
				sum.Last = s.Last
			}
			who[host] = sum
		}
	}
	return who
}

// agentPID is the process of a node's agent, 0 where none runs.
func (l *loadLab) agentPID(node string) int {
	l.t.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, "run", l.name, "nodes", node, "agent.lock"))
	if err != nil {
		l.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0 // it is starting
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), l.dir) {
		return 0
	}
	return pid
}

// killAgents kills every node's agent with SIGKILL.
func (l *loadLab) killAgents() {
	l.t.Helper()
	for _, node := range append([]string{"router"}, podNodes...) {
		pid := l.agentPID(node)
		if pid == 0 {
			l.t.Fatalf("the agent of %s does not run", node)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			l.t.Fatalf("kill the agent of %s: %v", node, err)
		}
	}
}

func (l *loadLab) upTo(most time.Duration) time.Duration {
	return time.Duration(l.random.Int64N(int64(most)))
}

func (l *loadLab) pause(most time.Duration) { time.Sleep(l.upTo(most)) }

// TestLoadWhileAgentsAreKilled kills all agents again and again: whoever talks
// to a service does not notice, and nothing is left over.
func TestLoadWhileAgentsAreKilled(t *testing.T) {
	l := newLoadLab(t)
	const rounds = 20
	traffic := l.traffic()
	held := l.held()
	for range rounds {
		l.killAgents()
		l.pause(150 * time.Millisecond)
		l.must(l.up()...)
		l.pause(150 * time.Millisecond)
	}
	traffic.stop("agents were killed")
	l.holds(held, rounds)
	l.resolves()
	l.goes()
}

// namesBack is how soon after labctl up returned names must resolve.
const namesBack = time.Second

// resolves kills agents, which are the name servers, while a pod asks: names do
// not resolve as long as the node's own agent is away, and at no other time.
func (l *loadLab) resolves() {
	l.t.Helper()
	type away struct{ from, to time.Time }
	var windows []away
	queries := l.start("load", "-dns", "10.96.0.10:53", "-name", "webpod.default.svc.cluster.local.")
	for range 3 {
		time.Sleep(namesBack + l.upTo(300*time.Millisecond))
		w := away{from: time.Now()}
		l.killAgents()
		l.must(l.up()...)
		w.to = time.Now()
		windows = append(windows, w)
	}
	time.Sleep(namesBack + queryPatience)
	r := queries.stop()
	if r.Queries == 0 {
		l.t.Error("no name resolved at all")
	}
	var longest time.Duration
	for _, f := range r.Failures {
		inside := false
		for _, w := range windows {
			if !f.Began.Before(w.from.Add(-queryPatience)) && f.Began.Before(w.to.Add(namesBack)) {
				inside = true
				longest = max(longest, f.Began.Add(f.Took).Sub(w.from))
			}
		}
		if !inside {
			l.t.Errorf("a pod could not resolve webpod though its node's agent ran: %s", f)
		}
	}
	l.t.Logf("names: %d resolved, %d failed, all within %s after the agent was killed", r.Queries, len(r.Failures), longest.Round(time.Millisecond))
}
