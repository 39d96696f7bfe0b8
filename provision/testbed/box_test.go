//go:build linux && amd64

package testbed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mmdebstrap mounts as the real one does, and is stuck then, with a child of its own.
const stuckMmdebstrap = `#!/bin/sh
for root; do case $root in /*/root) break;; esac; done
mkdir -p "$root/proc" "$root/dev/shm"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm"
mkfifo "$root/../stuck"
cat "$root/../stuck" &
: >"$root/../mounted"
wait
`

// TestBuildIsCutShort: whatever moment the builder is killed at, no mount of its is
// left for the next one to walk into, and no process.
func TestBuildIsCutShort(t *testing.T) {
	bin, cache := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "mmdebstrap"), []byte(stuckMmdebstrap), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for range 2 { // the second finds what the first has left
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := buildBox(ctx, cache)
			ended <- err
		}()
		for !there(filepath.Join(cache, "box-build", "mounted")) {
			select {
			case err := <-ended:
				t.Fatalf("it ended by itself: %v", err)
			case <-time.After(10 * time.Millisecond):
			}
		}
		if seen := mountsBelow(t, cache); seen != "" {
			t.Errorf("this machine sees its mounts:\n%s", seen)
		}
		cancel()
		if err := <-ended; err == nil {
			t.Error("it was cut short, and is well")
		}
		if there(filepath.Join(cache, "box-build")) {
			t.Error("its files are left")
		}
		if left := users(t, cache); left != "" {
			t.Errorf("processes of its are left:\n%s", left)
		}
	}
}

func there(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, os.ErrNotExist)
}

// mountsBelow lists what is mounted below dir.
func mountsBelow(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var below strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " "+dir+"/") {
			below.WriteString(line)
		}
	}
	return below.String()
}

// users lists the processes that have dir in their command lines.
func users(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found strings.Builder
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), dir) { // it may have ended
			found.WriteString(file + ": " + strings.ReplaceAll(string(text), "\x00", " ") + "\n")
		}
	}
	return found.String()
}
