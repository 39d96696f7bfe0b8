//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Names below the pin directory.
const (
	mapsDir     = "maps"
	programsDir = "programs"
	linksDir    = "links"
	// cgroupDevice stands for the node's cgroup in the name of a link.
	cgroupDevice = "cgroup"
)

// A bpffs refuses names with a dot, which devices may have.
var (
	escapeName   = strings.NewReplacer("%", "%25", ".", "%2e")
	unescapeName = strings.NewReplacer("%2e", ".", "%25", "%")
)

// pins is a directory in a bpffs; empty for none, where nothing can be pinned.
type pins string

var errNoPins = errors.New("there is no directory in a bpffs for pins (the agent's flag --bpf)")

func (p pins) path(dir, name string) string {
	return filepath.Join(string(p), dir, escapeName.Replace(name))
}

func (p pins) make() error {
	if p == "" {
		return errNoPins
	}
	for _, dir := range []string{mapsDir, programsDir, linksDir} {
		if err := os.MkdirAll(filepath.Join(string(p), dir), 0o700); err != nil {
			return fmt.Errorf("make the pin directory: %w", err)
		}
	}
	return nil
}

// list are the names in a directory; none if it is not there.
func (p pins) list(dir string) ([]string, error) {
	if p == "" {
		return nil, nil
	}
	found, err := os.ReadDir(filepath.Join(string(p), dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the pinned %s: %w", dir, err)
	}
	names := make([]string, len(found))
	for i, entry := range found {
		names[i] = unescapeName.Replace(entry.Name())
	}
	return names, nil
}

func (p pins) remove(dir, name string) error {
	if err := os.Remove(p.path(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the pin of %s: %w", name, err)
	}
	return nil
}

// detach ends a pinned link at once: one that merely loses its last pin ends only
// when the kernel comes to it.
func (p pins) detach(name string) error {
	if l, err := link.LoadPinnedLink(p.path(linksDir, name), nil); err == nil {
		err = l.Detach()
		_ = l.Close()
		if err != nil && !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.ENOLINK) {
			return fmt.Errorf("detach %s: %w", name, err)
		}
	}
	return p.remove(linksDir, name)
}

// pinnable is a map, a program or a link.
type pinnable interface{ Pin(string) error }

// put pins an object in place of whatever has the name, in one step.
func (p pins) put(dir, name string, object pinnable) error {
	path := p.path(dir, name)
	err := object.Pin(path)
	if errors.Is(err, fs.ErrExist) {
		temporary := p.path(dir, name+"~new")
		_ = os.Remove(temporary) // of a process that died here
		if err = object.Pin(temporary); err == nil {
			err = os.Rename(temporary, path)
		}
	}
	if err != nil {
		return fmt.Errorf("pin %s: %w", name, err)
	}
	return nil
}

// clear removes everything; links first, so that nothing is half there.
func (p pins) clear() error {
	if p == "" {
		return nil
	}
	var failed error
	for _, dir := range []string{linksDir, programsDir, mapsDir} {
		names, err := p.list(dir)
		failed = errors.Join(failed, err)
		for _, name := range names {
			failed = errors.Join(failed, p.remove(dir, name))
		}
		if err := os.Remove(filepath.Join(string(p), dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
