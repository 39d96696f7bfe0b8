package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/providertest"
	"github.com/native-routing/labctl/provision/remote/sshtest"
)

// to is how to reach a daemon; the pins are the test's own.
func to(t *testing.T, d *sshtest.Daemon) Config {
	t.Helper()
	return Config{
		Node: "k8s-ctr", Host: "127.0.0.1", Port: d.Port, KeyFile: d.Client.File,
		KnownHosts: filepath.Join(t.TempDir(), "known_hosts"), Patience: 20 * time.Second,
	}
}

func output(t *testing.T, c *Client, argv ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if err := c.Run(t.Context(), provision.Command{Argv: argv, Stdout: &out, Stderr: &errs}); err != nil {
		t.Fatalf("%q: %v: %s", argv, err, errs.String())
	}
	return out.String()
}

func TestRunOnSSHD(t *testing.T) {
	t.Parallel()
	providertest.Commands(t, dial(t, to(t, sshtest.NewDaemon(t))))
}

func TestCancelLeavesNoProcess(t *testing.T) {
	t.Parallel()
	c := dial(t, to(t, sshtest.NewDaemon(t)))
	for name, script := range map[string]string{
		"plain":            "sleep 1001",
		"children":         "sleep 1002 & sleep 1002 & wait",
		"deaf":             "trap '' TERM HUP; sleep 1003 & sleep 1003; sleep 1003",
		"sessions":         "setsid sleep 1004 & setsid -f sleep 1004; sleep 1004",
		"daemon":           "setsid -f sh -c 'trap \"\" TERM HUP; sleep 1005; sleep 1005' </dev/null >/dev/null 2>&1; sleep 1005",
		"output not taken": "setsid -f sleep 1006; yes",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			command := provision.Command{Argv: []string{"sh", "-c", script}, Stdout: io.Discard}
			if name == "output not taken" {
				r, w := io.Pipe()
				defer r.Close()
				command.Stdout = w
			}
			err := c.Run(ctx, command)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, want the context's error", err)
			}
			t.Logf("took %s", time.Since(start))
			if out := output(t, c, "ps", "-e", "-o", "args"); strings.Contains(out, "sleep 100") {
				t.Errorf("still running: %s", out)
			}
		})
	}
}

func TestPutOnSSHD(t *testing.T) {
	t.Parallel()
	c := dial(t, to(t, sshtest.NewDaemon(t)))
	dir := t.TempDir()
	path := filepath.Join(dir, "a b", "it's")
	big := bytes.Repeat([]byte("0123456789\n"), 100_000)
	for _, step := range []struct {
		content string
		mode    os.FileMode
		changed bool
	}{
		{"one\n", 0o644, true}, {"one\n", 0o644, false}, {"one\n", 0o755, true}, {"two\n", 0o755, true},
		{"", 0o600, true}, {"", 0o600, false}, {string(big), 0o755, true}, {string(big), 0o755, false},
	} {
		changed, err := c.Put(t.Context(), provision.File{Path: path, Mode: step.mode, Content: []byte(step.content)})
		if err != nil || changed != step.changed {
			t.Fatalf("%.10q %o: changed %t, %v", step.content, step.mode, changed, err)
		}
		have, err := os.ReadFile(path)
		info, _ := os.Stat(path)
		if err != nil || string(have) != step.content || info.Mode().Perm() != step.mode {
			t.Fatalf("%.10q %o: it is %.10q %o, %v", step.content, step.mode, have, info.Mode().Perm(), err)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}
