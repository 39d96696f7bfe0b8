//go:build linux && amd64

package vmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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

// On an emulated processor everything takes its time; what hangs fails.
const (
	patience = 10 * time.Minute
	pause    = 500 * time.Millisecond
)

// command is labctl, ready to run.
func (u user) command(args ...string) *exec.Cmd {
	cmd := exec.Command(u.labctl, args...)
	cmd.Env = append(os.Environ(), "LABCTL_LAB="+u.lab, "LABCTL_DATA_DIR="+filepath.Join(u.dir, "data"), "LABCTL_RUN_DIR="+filepath.Join(u.dir, "run"))
	cmd.Dir = u.dir
	return cmd
}

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
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// emulated are a node's resources on a processor that is emulated, in a test.
const emulated = "resources: {cpus: 1, memoryMiB: 288}"

var resources = regexp.MustCompile(`resources: \{.*\}`)

// copyTopology writes the shipped lab under a name, for VMs from the test box
// where there is one, and its workloads beside it.
func copyTopology(t *testing.T, name, box, file string) {
	t.Helper()
	const from = "../../topologies/"
	text, err := os.ReadFile(from + "native-routing.yaml")
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), "name: native-routing", "name: "+name, 1)
	if box != "" {
		edited = resources.ReplaceAllString(edited, emulated)
		const study = "{box: bento/ubuntu-24.04, boxVersion: 202502.21.0, provider: virtualbox}"
		if !strings.Contains(edited, study) {
			t.Fatalf("the shipped lab has no %s", study)
		}
		edited = strings.Replace(edited, study, "{box: "+box+", provider: libvirt}", 1)
	}
	if err := os.WriteFile(file, []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(filepath.Dir(file), "workloads"), os.DirFS(from+"workloads")); err != nil {
		t.Fatal(err)
	}
}
