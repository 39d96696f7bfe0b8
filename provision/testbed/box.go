//go:build linux && amd64

package testbed

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// recipe is all that the box is made from, beside Debian's packages.
//
//go:embed box
var recipe embed.FS

// buildBox returns the box's file. It is built where the cache has none of this
// recipe, which takes about a minute; boxes of other recipes go.
func buildBox(ctx context.Context, cache string) (string, error) {
	// Two at once: the second finds what the first has built.
	lock := flock.New(filepath.Join(cache, "box.lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return "", err
	}
	defer lock.Close()
	box, err := boxFile(cache)
	if err != nil {
		return "", err
	}
	others, err := filepath.Glob(filepath.Join(cache, "box-*"))
	if err != nil {
		return "", err
	}
	for _, other := range others {
		if other == box {
			return box, nil
		}
	}
	work := filepath.Join(cache, "box-build")
	for _, stale := range append(others, work) {
		if err := os.RemoveAll(stale); err != nil {
			return "", err
		}
	}
	defer os.RemoveAll(work)
	if err := os.CopyFS(filepath.Join(work, "recipe"), recipe); err != nil {
		return "", err
	}
	fmt.Fprintln(os.Stderr, "test bed: building the box from Debian's packages, which takes about a minute")
	if out, err := builder(ctx, work).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return box, os.Rename(filepath.Join(work, "box.tar"), box)
}

// builder runs the recipe, which mounts /proc, /sys and more below work. In
// namespaces of their own these mounts, and all that it has started, end with it
// however it ends: what clears work away afterwards must not find them there.
func builder(ctx context.Context, work string) *exec.Cmd {
	build := exec.CommandContext(ctx, "sh", filepath.Join(work, "recipe", "box", "build.sh"), work)
	build.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS, // this way all mounts are private from the start
		Pdeathsig:    syscall.SIGKILL,
	}
	return build
}

// Absent says why no bed can be entered at once: what this machine lacks, or that
// the box has not been built yet; nothing where it can.
func Absent() string {
	if err := fit(); err != nil {
		return err.Error()
	}
	cache, err := cacheDir()
	if err != nil {
		return err.Error()
	}
	box, err := boxFile(cache)
	if err != nil {
		return err.Error()
	}
	if _, err := os.Stat(box); err != nil {
		return "there is no test box yet (make test builds it)"
	}
	return ""
}

// boxFile is the box of this recipe, which may not be there.
func boxFile(cache string) (string, error) {
	digest, err := recipeDigest()
	return filepath.Join(cache, "box-"+digest+".tar"), err
}

// recipeDigest is short enough for a file name and long enough to tell recipes apart.
func recipeDigest() (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(recipe, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := recipe.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(text), text)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}
