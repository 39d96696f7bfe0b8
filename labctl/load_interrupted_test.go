//go:build linux

package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// killApply kills labctl apply with SIGKILL once it has run for a while.
func (l *loadLab) killApply(after time.Duration, manifest string) {
	l.t.Helper()
	cmd := l.command("apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have ended by itself
	_ = cmd.Wait()                                                    // killed is what it should be
	timer.Stop()
}

// pods are all pods that labctl has, but for those that are ending.
func (l *loadLab) pods() []string {
	l.t.Helper()
	var pods []string
	for line := range strings.Lines(l.must("get", "pods", "-A", "-o", "wide", "--no-headers")) {
		f := strings.Fields(line)
		if f[3] == "Terminating" {
			continue
		}
		if f[3] != "Running" || f[2] != "1/1" {
			l.t.Errorf("a user sees a pod that does not run: %s", line)
		}
		pods = append(pods, f[0]+"/"+f[1])
	}
	slices.Sort(pods)
	return pods
}

// real are the pods that there are in truth: sandboxes, cgroups and folders.
func (l *loadLab) real() (sandboxes, cgroups, folders int) {
	l.t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), "sandbox\x00hold\x00"+l.dir) {
			sandboxes++
		}
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		found, _ := filepath.Glob(filepath.Join(root, "labctl."+l.name, "*", "pods", "*"))
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.IsDir() {
				cgroups++
			}
		}
	}
	found, _ := filepath.Glob(filepath.Join(l.dir, "data", l.name, "nodes", "*", "pods", "*"))
	return sandboxes, cgroups, len(found)
}

// only waits until nothing is there of pods that labctl does not have.
func (l *loadLab) only(pods int) {
	l.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		sandboxes, cgroups, folders := l.real()
		if sandboxes == pods && cgroups == pods && folders == pods {
			return
		}
		if time.Now().After(deadline) {
			l.t.Errorf("labctl get shows %d pods, and there are %d sandboxes, %d cgroups and %d folders: some are of pods that nobody has any more", pods, sandboxes, cgroups, folders)
			return
		}
	}
}

// frontends are the numbers of a node's frontends by their addresses.
func (l *loadLab) frontends(node string) map[string]string {
	l.t.Helper()
	ids := map[string]string{}
	for line := range strings.Lines(l.must("dbg", node, "service", "list")) {
		if f := strings.Fields(line); len(f) > 2 && strings.Contains(f[1], "/") {
			ids[f[1]] = f[0]
		}
	}
	if len(ids) == 0 {
		l.t.Errorf("%s has no frontends", node)
	}
	return ids
}

// TestApplyInterrupted kills apply at any moment, and agents with it: the next
// one ends where it should, and nobody who has nothing to do with it notices.
func TestApplyInterrupted(t *testing.T) {
	l := newLoadLab(t)
	l.apply(fmt.Sprintf(webpodManifest, 3, 0))
	before := map[string]map[string]string{}
	for _, node := range podNodes {
		before[node] = l.frontends(node)
	}
	echo := l.start("curl-pod", "-echo", "10.96.0.107:7")
	for round := range 3 {
		for range 4 {
			l.killApply(l.upTo(150*time.Millisecond), fmt.Sprintf(webpodManifest, 1+l.random.IntN(6), l.random.IntN(3)))
		}
		if round%2 == 1 {
			l.killAgents()
		}
		replicas := 1 + l.random.IntN(5)
		final := fmt.Sprintf(webpodManifest, replicas, round)
		if round%2 == 1 {
			l.must(l.up()...) // the topology's own webpod is applied with it
		}
		l.apply(final)
		if n := len(l.webpods()); n != replicas {
			t.Errorf("apply was killed and repeated: %d pods of webpod, want %d", n, replicas)
		}
		pods := l.pods()
		l.only(len(pods))
		for _, node := range podNodes {
			if is := l.frontends(node); !maps.Equal(is, before[node]) {
				t.Errorf("%s: the numbers of services are %v, and were %v", node, is, before[node])
			}
		}
	}
	r := echo.stop()
	t.Logf("%d pings on kept connections, longest %s", r.Pings, r.LongestPing.Round(time.Millisecond))
	for _, f := range r.Failures {
		t.Errorf("while apply was killed, a user of another service saw: %s", f)
	}
	l.goes()
}

// TestDownAndUp takes a lab down in the middle of its work and up again: what
// its topology says is there again under the same names and addresses.
func TestDownAndUp(t *testing.T) {
	l := newLoadLab(t)
	traffic := l.traffic()
	l.killAfter(l.upTo(80*time.Millisecond), "down")
	l.must("down")
	for _, c := range traffic {
		_ = c.in.Close()
		_ = c.cmd.Wait() // it was killed with the lab
	}
	if left := leftOf(l.name, l.dir); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
	see := func() string {
		l.must("up", l.file, "--stage", "static-routes")
		var lines []string
		for line := range strings.Lines(l.must("get", "pods", "-o", "wide", "--no-headers")) {
			f := strings.Fields(line)
			lines = append(lines, strings.Join([]string{f[0], f[5], f[6]}, " "))
		}
		return strings.Join(lines, "\n") + "\n" + strings.Fields(l.must("get", "svc", "webpod", "--no-headers"))[2]
	}
	first := see()
	l.killAfter(l.upTo(80*time.Millisecond), "down")
	l.must("down")
	if again := see(); again != first {
		t.Errorf("after down and up a user sees\n%s\nand before\n%s", again, first)
	}
	l.only(strings.Count(first, "\n"))
	l.goes()
}
