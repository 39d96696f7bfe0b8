//go:build linux

package pod

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// exec is a shell's word on what it could not do.
func TestExec(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	p := curlPod()
	p.Spec.Containers[0].Env = map[string]string{"GREETING": "hello world", "HOME": "/tmp"}
	p.Spec.Containers[0].Dir = "/usr"
	m.settle(state(p))
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		argv []string
		code int
		out  string
	}{
		{"curl-pod", []string{"sh", "-c", "exit 7"}, 7, ""},
		{"default/curl-pod", []string{"sh", "-c", "kill -TERM $$"}, -1, ""},
		{"curl-pod", []string{"sh", "-c", `echo "$GREETING $HOME $HOSTNAME $PWD"`}, 0, "hello world /tmp curl-pod /usr\n"},
		{"curl-pod", []string{"nosuchcommand"}, 127, "agent exec: nosuchcommand: executable file not found in $PATH\n"},
		{"curl-pod", []string{"/nosuch/command"}, 127, ""},
		{"curl-pod", []string{script}, 126, ""},
		{"other", []string{"true"}, 1, "agent exec: pod default/other: no such pod on this node; it has default/curl-pod\n"},
	} {
		out, code := m.exec(test.name, test.argv...)
		if code != test.code || test.out != "" && out != test.out {
			t.Errorf("%s %q: exit code %d, %q; want %d, %q", test.name, test.argv, code, out, test.code, test.out)
		}
	}
	if _, code := m.exec("curl-pod", "-c"); code == 0 {
		t.Error("a command that begins with a dash")
	}
	// What is run so ends with the container's cgroup.
	group := m.in("curl-pod", "grep", "0::", "/proc/self/cgroup")
	if !strings.HasSuffix(strings.TrimSpace(group), "/pods/"+p.UID+"/main") {
		t.Errorf("exec is in %s", group)
	}
	if err := unix.Kill(m.pod("curl-pod").PID, unix.SIGSTOP); err != nil { // it is still a pod
		t.Fatal(err)
	}
	m.in("curl-pod", "true")
	_ = unix.Kill(m.pod("curl-pod").PID, unix.SIGCONT)
}

// Without a command there is a shell, with the terminal that there is.
func TestExecShell(t *testing.T) {
	m := newMachine(t, cgroup2(t))
	m.settle(state(curlPod()))
	cmd := exec.Command(m.config.Executable, "exec", "-it", "--data", m.config.DataDir, "curl-pod")
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	read := func(want string) {
		t.Helper()
		text, buffer := "", make([]byte, 1<<10)
		if err := terminal.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for !strings.Contains(text, want) {
			n, err := terminal.Read(buffer)
			if err != nil {
				t.Fatalf("%q: no %q: %v", text, want, err)
			}
			text += string(buffer[:n])
		}
	}
	read("root@curl-pod:/# ")
	if _, err := terminal.WriteString("sleep 100\n"); err != nil {
		t.Fatal(err)
	}
	m.until("the sleeper", func() bool { return slices.Contains(programs(curlPod().UID), "sleep") })
	if _, err := terminal.WriteString("\x03"); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	read("root@curl-pod:/# ")
	if _, err := terminal.WriteString("exit 5\n"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d", code)
	}
}
