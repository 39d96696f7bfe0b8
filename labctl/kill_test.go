//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// killLab is a lab whose labctl is run as a process of its own, so that it can be killed.
type killLab struct {
	t    *testing.T
	name string
	dir  string
	file string
}

func newKillLab(t *testing.T) killLab {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatal(err)
	}
	l := killLab{t: t, name: fmt.Sprintf("k%d-%d", os.Getpid(), labs.Add(1)), dir: dir, file: filepath.Join(dir, "lab.yaml")}
	if err := copyLab("native-routing", l.name, l.file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Cleanup(func() { takeDown(l.name, dir) })
	return l
}

func (l killLab) command(args ...string) *exec.Cmd {
	cmd := exec.Command("labctl", args...)
	cmd.Env = append(os.Environ(), "LABCTL_LAB="+l.name, "LABCTL_DATA_DIR="+l.dir+"/data", "LABCTL_RUN_DIR="+l.dir+"/run")
	return cmd
}

// must runs labctl to its end.
func (l killLab) must(args ...string) string {
	l.t.Helper()
	out, err := l.command(args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("labctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (l killLab) up() []string { return []string{"up", l.file} }

// killAfter kills labctl with SIGKILL once it has run for a while.
func (l killLab) killAfter(after time.Duration, args ...string) {
	l.t.Helper()
	cmd := l.command(args...)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have ended by itself
	_ = cmd.Wait()                                                    // killed is what it should be
	timer.Stop()
}

// killAtStep kills labctl as soon as its story tells that the step has ended,
// and says whether it was seen.
func (l killLab) killAtStep(step string, args ...string) bool {
	l.t.Helper()
	cmd := l.command(args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	seen := false
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[1] == step {
			seen = true
			_ = cmd.Process.Kill() // it may have ended by itself
		}
	}
	_ = cmd.Wait() // killed is what it should be
	return seen
}

// converges brings the lab up, verified, and down, with nothing left.
func (l killLab) converges() {
	l.t.Helper()
	l.must(l.up()...)
	l.must("verify", "--check", "interfaces,forwarding,routes,fib,tracepath")
	l.goes()
}

func (l killLab) goes() {
	l.t.Helper()
	l.must("down")
	if left := leftOf(l.name, l.dir); len(left) > 0 {
		l.t.Fatalf("left behind: %v", left)
	}
}

func TestKilledAtEveryStep(t *testing.T) {
	l := newKillLab(t)
	for _, step := range []string{"nodes", "links", "agents", "state", "settle", "prune"} {
		t.Run(step, func(t *testing.T) {
			l.t = t
			if !l.killAtStep(step, l.up()...) {
				t.Fatalf("up did not tell of its step %s", step)
			}
			l.converges()
			l.killAtStep(step, l.up()...)
			l.goes()
		})
	}
	t.Run("down", func(t *testing.T) {
		l.t = t
		l.must(l.up()...)
		if !l.killAtStep("remove", "down") {
			t.Fatal("down did not tell of its step remove")
		}
		l.converges()
	})
}

// TestKilledAtRandom kills up and down again and again, wherever it hits.
func TestKilledAtRandom(t *testing.T) {
	l := newKillLab(t)
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	for range 12 {
		for range 4 {
			l.killAfter(time.Duration(random.Int64N(int64(200*time.Millisecond))), l.up()...)
		}
		if random.IntN(2) == 0 {
			l.must(l.up()...)
		}
		for range 2 {
			l.killAfter(time.Duration(random.Int64N(int64(80*time.Millisecond))), "down", "--lab", l.name)
		}
		if random.IntN(2) == 0 {
			l.converges()
		} else {
			l.goes()
		}
	}
	l.converges()
}

func TestInterrupted(t *testing.T) {
	l := newKillLab(t)
	cmd := l.command(l.up()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(60 * time.Millisecond)
	if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil && !strings.Contains(stderr.String(), "labctl up goes on from here") {
		t.Errorf("%v: %s", err, &stderr)
	}
	if strings.Contains(stderr.String(), "goroutine") {
		t.Errorf("a stack trace: %s", &stderr)
	}
	l.converges()
}

// TestTwoAtOnce: the second up waits for the first, says for whom, and finds nothing to do.
func TestTwoAtOnce(t *testing.T) {
	l := newKillLab(t)
	outputs := make(chan string, 6)
	for range cap(outputs) {
		go func() {
			out, err := l.command(l.up()...).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			outputs <- string(out)
		}()
	}
	unchanged, waited := 0, 0
	var all []string
	for range cap(outputs) {
		out := <-outputs
		all = append(all, out)
		if strings.Contains(out, "is unchanged") {
			unchanged++
		}
		if strings.Contains(out, "waiting for") {
			waited++
		}
	}
	if unchanged != cap(outputs)-1 || waited == 0 {
		t.Errorf("%d of %d found nothing to do, %d waited:\n%s", unchanged, cap(outputs), waited, strings.Join(all, "\n"))
	}
	l.converges()
}

// TestStateFolder: a full disk or a read-only folder is said, and nothing is half made.
func TestStateFolder(t *testing.T) {
	for _, options := range []string{"ro", "size=4k"} {
		t.Run(options, func(t *testing.T) {
			l := newKillLab(t)
			data := filepath.Join(l.dir, "data")
			if err := os.Mkdir(data, 0o755); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", data).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Cleanup(func() { _ = exec.Command("umount", "-l", data).Run() }) // unmounted below where all went well
			out, err := l.command(l.up()...).CombinedOutput()
			if err == nil {
				t.Fatalf("up on a folder that is %s: %s", options, out)
			}
			if !strings.Contains(string(out), data) || strings.Contains(string(out), "goroutine") {
				t.Errorf("want the folder named, got: %s", out)
			}
			if out, err := exec.Command("umount", data).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			l.converges()
		})
	}
}
