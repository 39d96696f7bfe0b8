//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on an OS thread of its own, which may change its namespaces:
// the thread ends with f. It waits for f.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked, so that the runtime ends the thread.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and its namespaces are what /proc shows
			// as the process's. Keep it locked while another thread does the work.
			result <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		result <- f()
	}()
	return <-result
}

// errNotNamespace is a path on which no namespace is mounted.
var errNotNamespace = errors.New("no namespace is mounted there")

// openNS opens a namespace's file, and fails with errNotNamespace where it is a
// file and nothing more.
func openNS(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		f.Close()
		return nil, fmt.Errorf("statfs %s: %w", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, errNotNamespace)
	}
	return f, nil
}

// absent says that err means "there is no such namespace", whole or in part.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, errNotNamespace)
}

// enter moves the calling thread.
func enter(files ...*os.File) error {
	for _, f := range files {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("enter %s: %w", f.Name(), err)
		}
	}
	return nil
}

// inode is the number of a namespace, which /proc/<pid>/ns shows too.
func inode(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return st.Ino, nil
}
