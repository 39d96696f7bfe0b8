//go:build linux

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The files in an agent's run directory.
const (
	SocketName = "agent.sock"
	lockName   = "agent.lock"
)

// maxSocketPath is what sun_path holds (unix(7)), without the NUL at the end.
const maxSocketPath = 107

// ErrRunning is an agent that holds the run directory already.
var ErrRunning = errors.New("an agent runs here already")

// acquire takes the run directory's lock, which the kernel gives back when the
// process ends, however it ends. The file holds the pid.
func acquire(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = lockSoon(f)
	if err == nil {
		err = writePID(f)
	}
	if err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			var pid [16]byte
			n, _ := f.Read(pid[:])
			return nil, fmt.Errorf("%w: pid %s holds %s", ErrRunning, strings.TrimSpace(string(pid[:n])), path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// listen opens the agent's socket for its own user only, in place of one that a
// dead agent left behind. The caller holds the lock.
func listen(ctx context.Context, dir string) (net.Listener, error) {
	path := filepath.Join(dir, SocketName)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen on %s: the path has %d bytes, and a unix socket's holds %d: choose a shorter run directory",
			path, len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	// The umask, because between bind and a chmod anyone could connect.
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}

// lockSoon takes the lock, and tries again for a moment: who only asks whether
// an agent runs holds it for an instant.
func lockSoon(f *os.File) error {
	const tries, pause = 20, 5 * time.Millisecond
	for try := 1; ; try++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if try == tries || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(pause)
	}
}
