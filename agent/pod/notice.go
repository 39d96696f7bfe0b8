//go:build linux

package pod

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// notices hear of what happens in pods' directories (inotify(7)): a file that
// was replaced, which is the sandbox's word, one closed that was open for
// writing, which is the lock when the sandbox ends, and one that was removed,
// which none should be.
type notices struct {
	file *os.File

	mu     sync.Mutex
	heard  map[int32]func()
	closed bool
}

func openNotices() (*notices, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w (raise fs.inotify.max_user_instances)", err)
	}
	return &notices{file: os.NewFile(uintptr(fd), "inotify"), heard: make(map[int32]func())}, nil
}

// add calls heard, which must not block, at each notice from dir. The watch
// goes with the directory.
func (n *notices) add(dir string, heard func()) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	conn, err := n.file.SyscallConn()
	if err != nil {
		return err
	}
	watch := 0
	var failure error
	err = conn.Control(func(fd uintptr) {
		watch, failure = unix.InotifyAddWatch(int(fd), dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_ONLYDIR)
	})
	if err = errors.Join(err, failure); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	n.heard[int32(watch)] = heard
	return nil
}

// listen works until close.
func (n *notices) listen() {
	buffer := make([]byte, 8<<10)
	for {
		count, err := n.file.Read(buffer)
		if err != nil {
			return // closed
		}
		// struct inotify_event: wd, mask, cookie, len, name.
		for b := buffer[:count]; len(b) >= unix.SizeofInotifyEvent; {
			watch := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			length := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			name := ""
			if length <= len(b) {
				name = unix.ByteSliceToString(b[unix.SizeofInotifyEvent:length])
			}
			if name == "" || name == lockFile || name == statusFile || name == recordFile {
				n.tell(watch, mask)
			}
			b = b[min(length, len(b)):]
		}
	}
}

func (n *notices) tell(watch int32, mask uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if mask&unix.IN_Q_OVERFLOW != 0 {
		for _, heard := range n.heard {
			heard()
		}
	}
	if heard := n.heard[watch]; heard != nil {
		heard()
	}
	if mask&unix.IN_IGNORED != 0 {
		delete(n.heard, watch)
	}
}

func (n *notices) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	_ = n.file.Close()
}
