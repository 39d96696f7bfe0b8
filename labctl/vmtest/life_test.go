//go:build linux && amd64

package vmtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/native-routing/labctl/labctl/check"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/provision"
)

// labName is the VMs' lab. The same topology on namespaces has the same name
// elsewhere, so that both reports are of the same lab.
const labName = "vms"

// TestLab takes the shipped lab on VMs through its life, each part from where
// the one before left it.
func TestLab(t *testing.T) {
	if testing.Short() {
		t.Skip("boots virtual machines")
	}
	u := newUser(t, filepath.Join(bed.Dir, "labctl"), "user")
	build(t, u.labctl, "")
	before := leftOf(t, u)
	for _, part := range []struct {
		name string
		run  func(user)
	}{
		{"Up", testUp},
		{"Verify", testVerify},
		{"Unchanged", testUnchanged},
		{"Beside", testBeside},
		{"Exec", testExec},
		{"SSH", testSSH},
		{"Workloads", testWorkloads},
		{"Parity", testParity},
		{"Explain", testExplain},
		{"Capture", testCapture},
		{"HaltAndStart", testHaltAndStart},
		{"RouterReboots", testRouterReboots},
		{"Stages", testStages},
		{"AgentKilled", testAgentKilled},
		{"AgentUpgraded", testAgentUpgraded},
		{"NodeDown", testNodeDown},
		{"MachineLost", testMachineLost},
		{"Conformance", testConformance},
		{"Down", func(u user) { testDown(u, before) }},
	} {
		ok := t.Run(part.name, func(t *testing.T) {
			mine := u
			mine.t = t
			part.run(mine)
		})
		if !ok && part.name == "Up" {
			t.Fatal("without a lab nothing else can be tried")
		}
	}
}

func testUp(u user) {
	out := u.must("up", u.file, "--provider", "vagrant")
	if !strings.Contains(out, "Lab "+labName+" is up") {
		u.t.Errorf("up says:\n%s", out)
	}
}

// verified verifies, and wants the lab as healthy as its stage says: of what is
// not it prints all, for nobody sees it twice.
func (u user) verified(args ...string) check.Report {
	u.t.Helper()
	out, errs, code := u.try(append([]string{"verify", "-o", "json"}, args...)...)
	var report check.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		u.t.Fatalf("labctl verify: exit %d, %v in %s\n%s", code, err, out, errs)
	}
	for _, r := range report.Results {
		if r.Outcome != check.OK && r.Outcome != check.ExpectedFailure {
			u.t.Errorf("%s %s: %s\nexpected %s\nseen %s\n%+v", r.Group, r.Name, r.Outcome, r.Expected, r.Seen, r.Causes)
		}
	}
	u.t.Logf("%d checks, %v", len(report.Results), report.Summary)
	if code != 0 {
		u.t.Errorf("labctl verify: exit %d\n%s", code, errs)
	}
	return report
}

func testVerify(u user) {
	report := u.verified()
	if report.Summary[check.OK] < 100 || report.Summary[check.ExpectedFailure] < 10 {
		u.t.Errorf("verified no more than %v", report.Summary)
	}
	lost := slices.ContainsFunc(report.Results, func(r check.Result) bool {
		return r.Group == check.Ping && r.Outcome == check.ExpectedFailure && strings.Contains(r.Seen, "lost at router (leaves by eth0)")
	})
	if !lost {
		u.t.Error("no echo is seen to be lost at the router, by eth0")
	}
	// 6.1 has no tcx: the programs hang on clsact.
	if out := u.on("k8s-ctr", "uname", "-r"); !strings.HasPrefix(out, "6.1.") {
		u.t.Errorf("the kernel is %s", out)
	}
	if out := u.on("k8s-ctr", "tc", "filter", "show", "dev", "eth1", "ingress"); !strings.Contains(out, "bpf") {
		u.t.Errorf("eth1's ingress has no program on clsact:\n%s", out)
	}
}

func testUnchanged(u user) {
	if out := u.must("up", u.file); !strings.Contains(out, "is unchanged") {
		u.t.Errorf("a second up changed:\n%s", out)
	}
	status, code := u.status()
	if !status.Healthy() || code != 0 {
		u.t.Errorf("exit %d, status: %+v", code, status.Nodes)
	}
}

// status is the lab's, with the command's exit code.
func (u user) status() (lab.StatusReport, int) {
	u.t.Helper()
	var report lab.StatusReport
	out, errs, code := u.try("status", "-o", "json")
	decode(u.t, out+errs, out, &report)
	return report, code
}

// healthy waits until all nodes run and their agents hold what they should.
func (u user) healthy() {
	u.t.Helper()
	u.eventually("the lab is healthy", func() (string, bool) {
		report, code := u.status()
		var seen []string
		for _, n := range report.Nodes {
			seen = append(seen, n.Name+" "+string(n.State)+" "+n.Detail+" "+n.AgentError)
		}
		return strings.Join(seen, "\n"), code == 0 && report.Healthy()
	})
}

// wantState looks at one node, and wants the others to run.
func (u user) wantState(node string, want ...provision.NodeState) {
	u.t.Helper()
	report, _ := u.status()
	for _, n := range report.Nodes {
		allowed := []provision.NodeState{provision.NodeRunning}
		if n.Name == node {
			allowed = want
		}
		if !slices.Contains(allowed, n.State) {
			u.t.Errorf("%s is %s (%s), want %v", n.Name, n.State, n.Detail, allowed)
		}
	}
}

func testExec(u user) {
	if out := u.on("k8s-w1", "hostname"); out != "k8s-w1\n" {
		u.t.Errorf("k8s-w1 calls itself %q", out)
	}
	addresses := u.on("router", "ip", "-br", "-4", "addr")
	for _, want := range []string{"192.168.10.200/24", "192.168.20.200/24", "10.10.1.200/24", "10.10.2.200/24"} {
		if !strings.Contains(addresses, want) {
			u.t.Errorf("the router has no %s:\n%s", want, addresses)
		}
	}
	if out := u.on("router", "ip", "-d", "link", "show", "loop1"); !strings.Contains(out, "dummy") {
		u.t.Errorf("loop1 is no dummy:\n%s", out)
	}
	if out := u.on("k8s-ctr", "tracepath", "-n", "192.168.20.100"); !strings.Contains(out, "192.168.10.200") || !strings.Contains(out, "pmtu 1500 hops 2 back 2") {
		u.t.Errorf("tracepath says:\n%s", out)
	}
	if _, _, code := u.try("exec", "router", "--", "sh", "-c", "exit 7"); code != 7 {
		u.t.Errorf("exit 7 became %d", code)
	}
}

// testSSH is ssh as the study uses it: from here, and from node to node by name.
func testSSH(u user) {
	config := filepath.Join(u.dir, "ssh.config")
	if err := os.WriteFile(config, []byte(u.must("ssh-config")), 0o600); err != nil {
		u.t.Fatal(err)
	}
	for _, node := range []string{"router", "k8s-ctr", "k8s-w1", "k8s-w0"} {
		if out := run(u.t, "ssh", "-F", config, node, "hostname"); out != node+"\n" {
			u.t.Errorf("ssh %s: %q", node, out)
		}
	}
	if out := run(u.t, "ssh", "-F", config, "k8s-ctr", "ssh", "-o", "BatchMode=yes", "vagrant@k8s-w1", "hostname"); !strings.HasSuffix(out, "k8s-w1\n") {
		u.t.Errorf("ssh from k8s-ctr to k8s-w1: %q", out)
	}
}

// testWorkloads is the sample application: two of three answer.
func testWorkloads(u user) {
	if out := u.must("get", "pods", "-o", "wide"); strings.Count(out, "Running") != 4 {
		u.t.Errorf("pods:\n%s", out)
	}
	out := u.on("curl-pod", "sh", "-c", "for i in $(seq 20); do curl -s -m 2 webpod | grep Hostname || echo timeout; done")
	if !strings.Contains(out, "Hostname: webpod-") || !strings.Contains(out, "timeout") {
		u.t.Errorf("want some to be answered, and some not:\n%s", out)
	}
	if out := u.must("dbg", "k8s-ctr", "service", "list"); strings.Count(out, "(active)") < 3 {
		u.t.Errorf("services:\n%s", out)
	}
}

// testParity holds the VMs against the same lab on namespaces.
func testParity(u user) {
	spaces := newUser(u.t, u.labctl, "spaces")
	defer spaces.must("down")
	spaces.must("up", spaces.file, "--provider", "netns") // whose lab of that name is on VMs
	report := filepath.Join(spaces.dir, "report.json")
	if err := os.WriteFile(report, []byte(spaces.must("verify", "-o", "json")), 0o600); err != nil {
		u.t.Fatal(err)
	}
	out, errs, code := u.try("parity", report, labName)
	u.t.Log(out)
	if code != 0 {
		u.t.Errorf("parity: exit %d: %s", code, errs)
	}
}
