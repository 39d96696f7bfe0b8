//go:build linux

package pod

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// A verdict changes after enough results in a row, as the kubelet's.
func TestTally(t *testing.T) {
	for _, test := range []struct {
		failures, successes int
		passing             bool
		results, want       string
	}{
		{3, 1, false, "-+---+", "-+++-+"},
		{3, 1, true, "--+--+---", "++++++++-"},
		{1, 3, false, "++-+++-", "-----+-"},
		{1, 1, true, "-+-", "-+-"},
	} {
		tally := tally{failures: test.failures, successes: test.successes, passing: test.passing}
		got := ""
		for _, r := range test.results {
			before := tally.passing
			if changed := tally.note(r == '+'); changed != (before != tally.passing) {
				t.Errorf("%+v: says changed=%v", test, changed)
			}
			got += map[bool]string{true: "+", false: "-"}[tally.passing]
		}
		if got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestBackOff(t *testing.T) {
	var got []string
	delay := time.Duration(0)
	for i := range 12 {
		ran := time.Second
		if i == 11 {
			ran = backOffReset
		}
		delay = nextBackOff(delay, ran, i == 0)
		got = append(got, delay.String())
	}
	if want := "0s 1s 2s 4s 8s 16s 32s 1m4s 2m8s 4m16s 5m0s 0s"; strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestPhase(t *testing.T) {
	creating := container{State: waiting, Reason: reasonCreating}
	runs := container{State: running}
	crashed := container{State: waiting, Reason: reasonBackOff, ExitCode: 1}
	done := container{State: terminated}
	failed := container{State: terminated, ExitCode: 1}
	for _, test := range []struct {
		policy     string
		containers []container
		want       api.Phase
	}{
		{"Always", []container{creating}, api.PodPending},
		{"Always", []container{runs, creating}, api.PodPending},
		{"Always", []container{runs}, api.PodRunning},
		{"Always", []container{crashed}, api.PodRunning},
		{"Always", []container{done}, api.PodRunning},
		{"OnFailure", []container{failed}, api.PodRunning},
		{"OnFailure", []container{done, runs}, api.PodRunning},
		{"OnFailure", []container{done, done}, api.PodSucceeded},
		{"Never", []container{done, failed}, api.PodFailed},
		{"Never", []container{done, runs}, api.PodRunning},
	} {
		if got := phase(test.policy, test.containers); got != test.want {
			t.Errorf("%s %+v: %s, want %s", test.policy, test.containers, got, test.want)
		}
	}
}

// What a new sandbox makes of the containers of one that was killed.
func TestSucceed(t *testing.T) {
	now := time.Now()
	before := now.Add(-time.Minute)
	for _, test := range []struct {
		policy    string
		old, want container
	}{
		{"Always", container{State: running, PID: 7, Restarts: 2}, container{State: waiting, Reason: reasonCreating, Restarts: 3, LastEnded: now, LastExitCode: 137}},
		{"Never", container{State: running, PID: 7}, container{State: terminated, Reason: reasonError, ExitCode: 137, LastEnded: now, LastExitCode: 137}},
		{"Never", container{State: terminated, Reason: reasonCompleted}, container{State: terminated, Reason: reasonCompleted}},
		{"OnFailure", container{State: terminated, Reason: reasonError, ExitCode: 1, LastEnded: before, LastExitCode: 1},
			container{State: waiting, Reason: reasonCreating, Restarts: 1, LastEnded: before, LastExitCode: 1}},
		{"Always", container{State: waiting, Reason: reasonBackOff, Restarts: 4}, container{State: waiting, Reason: reasonCreating, Restarts: 4}},
	} {
		if got := succeed(test.old, test.policy, now); got != test.want {
			t.Errorf("%s %+v:\n%+v, want\n%+v", test.policy, test.old, got, test.want)
		}
	}
}

func TestHosts(t *testing.T) {
	p := api.Pod{Address: netip.MustParseAddr("172.20.0.7"), Spec: &api.PodSpec{Hostname: "web"}}
	got := podHosts(p, "# Made by labctl.\n127.0.0.1 localhost\n127.0.1.1 k8s-ctr\n::1 ip6-localhost\n192.168.10.101 k8s-w1 # worker\n\n192.168.10.200  router gw\n")
	if want := "127.0.0.1\tlocalhost\n172.20.0.7\tweb\n192.168.10.101\tk8s-w1\n192.168.10.200\trouter\tgw\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestReplaces(t *testing.T) {
	base := func() record {
		s := state(webPod(10, "web"))
		return record{Lab: s.Lab, Node: s.Node, Pod: s.Cluster.Pods[0], Network: *s.Pods, Endpoint: 16}
	}
	for name, test := range map[string]struct {
		change func(*record)
		want   bool
	}{
		"nothing":  {func(*record) {}, false},
		"identity": {func(r *record) { r.Pod.Identity++ }, false},
		"grace":    {func(r *record) { r.Pod.Grace++ }, false},
		"MTU":      {func(r *record) { r.Network.MTU-- }, false},
		"program":  {func(r *record) { r.Pod.Spec.Containers[0].Argv = nil }, true},
		"address":  {func(r *record) { r.Pod.Address = r.Pod.Address.Next() }, true},
		"gateway":  {func(r *record) { r.Network.Gateway = r.Network.Gateway.Next() }, true},
		"resolver": {func(r *record) { r.Pod.Spec.Search = nil }, true},
	} {
		r := base()
		test.change(&r)
		if got := r.replaces(base()); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMACs(t *testing.T) {
	pod, node := macs("study", "1")
	again, _ := macs("study", "1")
	other, _ := macs("other", "1")
	if pod[0]&3 != 2 || node[0]&3 != 2 || pod.String() == node.String() || pod.String() != again.String() || pod.String() == other.String() {
		t.Errorf("%s %s %s", pod, node, other)
	}
}

// A container that talks without end keeps the disk.
func TestOutputIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.log")
	o, err := openOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := o.pipe()
	if err != nil {
		t.Fatal(err)
	}
	line := append(bytes.Repeat([]byte{'x'}, 1023), '\n')
	for range 5 << 10 {
		if _, err := pipe.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(pipe, "last\n"); err != nil {
		t.Fatal(err)
	}
	pipe.Close()
	o.close()
	var total int64
	for _, name := range []string{path, path + ".1"} {
		info, err := os.Stat(name)
		if err != nil || info.Size() > maxLog {
			t.Errorf("%s: %v, %v", name, info, err)
			continue
		}
		total += info.Size()
	}
	text, _ := os.ReadFile(path)
	if !bytes.HasSuffix(text, []byte("last\n")) || total < maxLog {
		t.Errorf("%d bytes are kept, the last %q", total, text[max(0, len(text)-10):])
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 2 {
		t.Errorf("files: %v", entries)
	}
}

func TestParseExec(t *testing.T) {
	for _, test := range []struct {
		args string
		want string
	}{
		{"--data /d default/web -- ip addr", "/d default/web [] [ip addr]"},
		{"-it --data /d web -c main -- ls -l", "/d default/web [main] [ls -l]"},
		{"--data /d default/web -- -c side -it -- ls -l", "/d default/web [side] [ls -l]"}, // as labctl passes it on
		{"--data /d default/web -- -c side ls", "/d default/web [side] [ls]"},
		{"--data /d web -- --container=side --stdin --tty -- sh -c x", "/d default/web [side] [sh -c x]"},
		{"--data /d web -- sh -- -c", "/d default/web [] [sh -- -c]"},
		{"--data /d web -- -nosuch", "error"},
		{"-i -t --data=/d -c main kube-system/web sh -c x", "/d kube-system/web [main] [sh -c x]"},
		{"--data /d web", "/d default/web [] []"},
		{"web -- ls", "error"},
		{"--data /d", "error"},
		{"--data /d --nosuch web", "error"},
	} {
		e, err := parseExec(strings.Fields(test.args), io.Discard)
		got := fmt.Sprintf("%s %s [%s] %v", e.data, e.key, e.container, e.argv)
		if err != nil {
			got = "error"
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.args, got, test.want)
		}
	}
}
