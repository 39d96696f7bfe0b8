//go:build linux

package mounts_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/mounts"
)

// below lists what is mounted below /sys, with its type.
const below = "awk '$5 ~ \"^/sys/\" {print $5, $(NF-2)}' /proc/self/mountinfo"

// TestSurroundings works on a thread that ends with it, in a network namespace
// that ends with the thread.
func TestSurroundings(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for path, text := range map[string]string{from: "mine\n", to: "the machine's\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outside, err := exec.Command("sh", "-c", below).Output()
	if err != nil {
		t.Fatal(err)
	}
	got, missing := "", error(nil)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			if err := errors.Join(mounts.Private(), mounts.RenewSys(), mounts.Bind(from, to), mounts.Bind(from, to+"-that-is-not")); err != nil {
				return err
			}
			missing = mounts.Bind(from+"-that-is-not", to)
			out, err := exec.Command("sh", "-c", "ls /sys/class/net; cat "+to+"; "+below).CombinedOutput()
			got = string(out)
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if want := "lo\nmine\n" + string(outside); got != want {
		t.Errorf("inside:\n%s\nwant:\n%s", got, want)
	}
	if !errors.Is(missing, os.ErrNotExist) {
		t.Errorf("bind a file that is not there: %v", missing)
	}
	if text, err := os.ReadFile(to); err != nil || string(text) != "the machine's\n" {
		t.Errorf("outside: %q, %v", text, err)
	}
	// Not /proc/self: the thread above may have been the process's first.
	points, err := mounts.Read("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if strings.HasPrefix(p.Path, dir) {
			t.Errorf("a mount went back: %+v", p)
		}
	}
}
