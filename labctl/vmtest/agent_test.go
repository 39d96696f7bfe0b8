//go:build linux && amd64

package vmtest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/native-routing/labctl/labctl/check"
)

// build builds labctl as make does; with a version, one whose agent for these
// machines is of that version.
func build(t *testing.T, file, version string) {
	t.Helper()
	env := append(os.Environ(), "CGO_ENABLED=0")
	args := []string{"build", "-trimpath", "-o", file}
	if version != "" {
		agent := file + ".agent"
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", agent, "../../agent")
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build an agent: %v\n%s", err, out)
		}
		embedded, err := filepath.Abs("../../agent/embedded/bin/agent-linux-amd64")
		if err != nil {
			t.Fatal(err)
		}
		overlay, err := json.Marshal(map[string]map[string]string{"Replace": {embedded: agent}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+".overlay", overlay, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-overlay", file+".overlay")
	}
	cmd := exec.Command("go", append(args, "../../labctl")...)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build labctl: %v\n%s", err, out)
	}
}

// stream is one connection from curl-pod to a webpod on another node, a request
// on it every 200 ms until the test ends.
type stream struct{ printed func() string }

// startStream starts the requests, and waits for the first to be answered.
func (u user) startStream(address string) stream {
	u.t.Helper()
	// curl keeps back what it writes to its standard output.
	s := stream{u.start("exec", "curl-pod", "--", "curl", "-sS", "-m", "60", "--rate", "300/m",
		"-o", "/dev/null", "-w", `%{stderr}%{num_connects} %{http_code}\n`, "http://"+address+"/?[1-100000]")}
	s.goesOn(u)
	return s
}

// answers has a line for each request that has ended.
func (s stream) answers() []string {
	lines := strings.Split(s.printed(), "\n")
	return lines[:len(lines)-1] // the last one is not whole
}

// goesOn waits until a request is answered that was not yet.
func (s stream) goesOn(u user) {
	u.t.Helper()
	before := len(s.answers())
	u.eventually("another request is answered", func() (string, bool) {
		now := s.answers()
		return strings.Join(now, "\n"), len(now) > before
	})
}

// unbroken waits for one more answer: all were right, and by the first connection.
func (s stream) unbroken(u user) {
	u.t.Helper()
	s.goesOn(u)
	answers := s.answers()
	for i, line := range answers {
		want := "0 200"
		if i == 0 {
			want = "1 200"
		}
		if line != want {
			u.t.Errorf("request %d of %d: %q, want %q", i+1, len(answers), line, want)
		}
	}
}

// webpodOn is the address of the webpod on a node.
func (u user) webpodOn(node string) string {
	u.t.Helper()
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ NodeName string }
			Status   struct{ PodIP string }
		}
	}
	u.read(&pods, "get", "pods")
	for _, pod := range pods.Items {
		if strings.HasPrefix(pod.Metadata.Name, "webpod-") && pod.Spec.NodeName == node {
			return pod.Status.PodIP
		}
	}
	u.t.Fatalf("no webpod on %s", node)
	return ""
}

// testStages enters the stages in which all pods reach each other, and stays in
// the last of them.
func testStages(u user) {
	for _, stage := range []string{"overlay", "bgp", "static-routes"} {
		u.must("stage", stage, "--no-verify")
		report := u.verified()
		// Who is beyond the tunnel's ends has no way to a pod.
		if failures := len(report.Results) - report.Summary[check.OK]; failures > 0 && stage != "overlay" {
			u.t.Errorf("%s: %d checks are not ok", stage, failures)
		}
	}
}

// agentPID is the number of the agent's process on a node; 0 where none answers.
func (u user) agentPID(node string) int {
	u.t.Helper()
	report, _ := u.status()
	for _, n := range report.Nodes {
		if n.Name == node && n.Agent != nil {
			return n.Agent.Version.PID
		}
	}
	return 0
}

// testAgentKilled: systemd starts it anew, and packets do not notice.
func testAgentKilled(u user) {
	const node = "k8s-w1"
	before := u.agentPID(node)
	traffic := u.startStream(u.webpodOn(node))
	u.on(node, "kill", "-KILL", strconv.Itoa(before))
	u.eventually("another agent runs", func() (string, bool) {
		now := u.agentPID(node)
		return strconv.Itoa(now), now != 0 && now != before
	})
	u.healthy()
	traffic.unbroken(u)
}

// testAgentUpgraded: another labctl brings another agent, under traffic.
func testAgentUpgraded(u user) {
	const version = "0.1.1-upgraded"
	u.labctl = filepath.Join(bed.Dir, "labctl-upgraded")
	build(u.t, u.labctl, version)
	traffic := u.startStream(u.webpodOn("k8s-w1"))
	u.must("up", u.file, "--stage", "static-routes")
	status, _ := u.status()
	for _, n := range status.Nodes {
		if n.Agent == nil || n.Agent.Version.Version != version {
			u.t.Errorf("%s has not the new agent: %+v", n.Name, n.Agent)
		}
	}
	traffic.unbroken(u)
}
