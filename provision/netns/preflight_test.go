//go:build linux

package netns

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
)

// TestNoexec mounts where only this test's thread sees it.
func TestNoexec(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
			return err
		}
		for _, at := range []string{dir, filepath.Join(dir, "not", "there")} {
			f := executable(writable("data directory", at), at)
			if f.Severity != provision.Missing || !strings.Contains(f.Cure, "--data-dir") {
				t.Errorf("%s: %+v", at, f)
			}
		}
		return unix.Unmount(dir, 0)
	}); err != nil {
		t.Fatal(err)
	}
	if f := executable(writable("data directory", dir), dir); f.Severity != provision.Fine {
		t.Errorf("without noexec: %+v", f)
	}
}
