//go:build linux && amd64

package vmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// user is somebody at a terminal with a labctl, a lab, and a directory of their own.
type user struct {
	t *testing.T
	// labctl is the program's path.
	labctl string
	lab    string
	dir    string
	// file is the topology.
	file string
}

// On an emulated processor everything takes its time; what hangs fails, and before
// go test's own limit, which would not say what was seen.
const (
	patience = 8 * time.Minute
	toolTime = 2 * time.Minute // of a program that asks one thing
	pause    = 500 * time.Millisecond
)

// command is labctl, ready to run.
func (u user) command(args ...string) *exec.Cmd {
	cmd := exec.Command(u.labctl, args...)
	cmd.Env = append(os.Environ(), "LABCTL_LAB="+u.lab, "LABCTL_DATA_DIR="+filepath.Join(u.dir, "data"), "LABCTL_RUN_DIR="+u.runDir())
	cmd.Dir = u.dir
	return cmd
}

// runDir is in the bed's own /run: the paths of sockets are to be short.
func (u user) runDir() string { return filepath.Join("/run", filepath.Base(u.dir)) }

// try runs labctl and returns what it printed, and its exit code.
func (u user) try(args ...string) (stdout, stderr string, code int) {
	u.t.Helper()
	var out, errs bytes.Buffer
	cmd := u.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	killed := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // it may end at that moment
	defer killed.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatalf("labctl %s: %v", strings.Join(args, " "), err)
	}
	u.t.Logf("labctl %s: exit %d after %.1f s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), time.Since(start).Seconds())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// start runs labctl until the test ends, and returns what it has printed so far.
func (u user) start(args ...string) (printed func() string) {
	u.t.Helper()
	file := filepath.Join(u.t.TempDir(), "printed")
	out, err := os.Create(file)
	if err != nil {
		u.t.Fatal(err)
	}
	defer out.Close()
	cmd := u.command(args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended; what it runs on a node ends with it
		killed := time.AfterFunc(toolTime, func() { _ = cmd.Process.Kill() })
		defer killed.Stop()
		_ = cmd.Wait() // a signal is no success
	})
	return func() string {
		text, err := os.ReadFile(file)
		if err != nil {
			u.t.Fatal(err)
		}
		return string(text)
	}
}

// must runs labctl, which has to exit with 0.
func (u user) must(args ...string) string {
	u.t.Helper()
	out, errs, code := u.try(args...)
	if code != 0 {
		u.t.Fatalf("labctl %s: exit %d\n%s\n%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// read runs labctl with -o json, and decodes what it prints.
func (u user) read(into any, args ...string) {
	u.t.Helper()
	out := u.must(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		u.t.Fatalf("labctl %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

// on runs a command on a node or in a pod.
func (u user) on(node string, argv ...string) string {
	u.t.Helper()
	return u.must(append([]string{"exec", node, "--"}, argv...)...)
}

// eventually waits until something holds, and fails with what was seen last.
func (u user) eventually(what string, holds func() (seen string, ok bool)) {
	u.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		seen, ok := holds()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			u.t.Fatalf("%s: not within %s; seen last:\n%s", what, patience, seen)
		}
		time.Sleep(pause)
	}
}

// run runs a program of this machine that must succeed.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := tool(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tool runs a program of this machine, and ends it where it hangs.
func tool(ctx context.Context, argv ...string) (string, error) {
	within, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(within, argv[0], argv[1:]...)
	cmd.WaitDelay = 10 * time.Second // what it started may hold its output
	out, err := cmd.CombinedOutput()
	if err != nil && within.Err() != nil {
		err = within.Err()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out), nil
}

// newUser gives somebody a directory, and a copy of the shipped lab in it.
func newUser(t *testing.T, labctl, name string) user {
	t.Helper()
	u := user{t: t, labctl: labctl, lab: labName, dir: filepath.Join(bed.Dir, name)}
	if err := os.MkdirAll(u.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if u.file, err = bed.WriteLab(u.dir, labName); err != nil {
		t.Fatal(err)
	}
	return u
}
