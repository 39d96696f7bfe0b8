package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2/maybe"

	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies/topo"
)

const (
	stateFile = "state.json"
	lockFile  = "lock"
)

// Store keeps, in one directory per lab, what cannot be seen by looking at the machine.
type Store struct {
	// Dir holds a directory for each lab.
	Dir string
}

// Saved is what was last asked for. It is written before the first change.
type Saved struct {
	Topology *topo.Topology `json:"topology"`
	// Source is the file, or the name of a shipped topology; Digest is the
	// SHA-256 of its content, in hex.
	Source string `json:"source"`
	Digest string `json:"digest"`
	Stage  string `json:"stage,omitempty"`
	// History are the stages that the lab was in before, the last one at the end.
	History  []string `json:"history,omitempty"`
	Provider string   `json:"provider"`
	// Uplinks are as they were when the nodes were looked at last.
	Uplinks topo.Uplinks `json:"uplinks,omitempty"`
	Version string       `json:"version"`
	Since   time.Time    `json:"since"`
	// Workloads are the Kubernetes objects of the lab. Shipped names those that
	// the topology brought.
	Workloads workload.Set   `json:"workloads"`
	Shipped   []manifest.Ref `json:"shipped,omitempty"`
}

// maxHistory bounds how far undo goes back.
const maxHistory = 100

// enter is what is asked for when the lab enters a stage: its last one becomes
// history. To enter the stage that it is in changes nothing.
func (s Saved) enter(stage string) Saved {
	if s.Stage != "" && s.Stage != stage {
		history := append(slices.Clone(s.History), s.Stage)
		s.History = history[max(0, len(history)-maxHistory):]
	}
	s.Stage = stage
	return s
}

// back is what is asked for when the lab goes back to the stage before; false
// where there was none. Stages that the topology has no more are passed over.
func (s Saved) back() (Saved, bool) {
	history := slices.Clone(s.History)
	for len(history) > 0 {
		last := history[len(history)-1]
		history = history[:len(history)-1]
		if _, ok := s.Topology.Stages.Get(last); ok {
			s.Stage, s.History = last, history
			return s, true
		}
	}
	return s, false
}

// Labs lists the labs that were brought up and not yet down, by name.
func (s Store) Labs() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("list labs: %w (it is another user's: set HOME to yours, or name a directory with --data-dir)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var labs []string
	for _, e := range entries {
		if _, err := os.Stat(s.path(e.Name(), stateFile)); err == nil {
			labs = append(labs, e.Name())
		}
	}
	slices.Sort(labs)
	return labs, nil
}

// Load returns what was last asked for; ErrNoLab where nothing was.
func (s Store) Load(lab string) (Saved, error) {
	var saved Saved
	data, err := os.ReadFile(s.path(lab, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return saved, fmt.Errorf("%s: %w (labctl up FILE makes the one that FILE names)", lab, ErrNoLab)
	}
	if err != nil {
		return saved, fmt.Errorf("read the state of lab %s: %w", lab, err)
	}
	if err := json.Unmarshal(data, &saved); err != nil {
		return saved, damaged(lab, s.path(lab, stateFile), err)
	}
	if saved.Topology == nil || saved.Provider == "" {
		return saved, damaged(lab, s.path(lab, stateFile), errors.New("it names no topology or no provider"))
	}
	return saved, nil
}

func damaged(lab, file string, err error) error {
	return fmt.Errorf("read the state of lab %s: %s is damaged: %w (labctl up FILE writes it anew, labctl down removes the lab)", lab, file, err)
}

// Save writes what is asked for, atomically.
func (s Store) Save(lab string, saved Saved) error {
	data, err := json.MarshalIndent(saved, "", "  ")
	if err != nil {
		return fmt.Errorf("write the state of lab %s: %w", lab, err)
	}
	if err := maybe.WriteFile(s.path(lab, stateFile), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the state of lab %s: %w (is %s writable, and is there room?)", lab, err, s.Dir)
	}
	return nil
}

// Remove forgets a lab. The lock must be held; it ends with the directory.
func (s Store) Remove(lab string) error {
	if err := os.RemoveAll(filepath.Join(s.Dir, lab)); err != nil {
		return fmt.Errorf("remove the state of lab %s: %w", lab, err)
	}
	// The directory of all labs stays while another lab is in it, or where it is
	// a mount point.
	if err := os.Remove(s.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EBUSY) && !notEmpty(s.Dir) {
		return fmt.Errorf("remove %s: %w", s.Dir, err)
	}
	return nil
}

func notEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) > 0
}

// Lock takes the lab for one change at a time. While another labctl holds it,
// waiting is called once with that one's own words, and Lock waits until ctx ends.
func (s Store) Lock(ctx context.Context, lab string, waiting func(holder string)) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(filepath.Join(s.Dir, lab), 0o755); err != nil {
			return nil, fmt.Errorf("lock lab %s: %w (is %s writable?)", lab, err, s.Dir)
		}
		lock := flock.New(s.path(lab, lockFile))
		held, err := lock.TryLock()
		if err == nil && !held {
			waiting(s.holder(lab))
			held, err = lock.TryLockContext(ctx, 50*time.Millisecond)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // a down removed the directory in between
		}
		if err != nil {
			return nil, fmt.Errorf("lock lab %s: %w", lab, err)
		}
		if held && s.current(lab, lock) {
			_ = os.WriteFile(lock.Path(), []byte(holderText()), 0o644) // for the words of whoever waits; the lock itself holds
			return func() { _ = lock.Unlock() }, nil
		}
		_ = lock.Unlock()
	}
}

// current says whether the locked file is still the one at its path: a down
// that held it before may have removed it.
func (s Store) current(lab string, lock *flock.Flock) bool {
	held, err := lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(s.path(lab, lockFile))
	return err == nil && os.SameFile(held, there)
}

func holderText() string {
	return fmt.Sprintf("labctl %s, process %d", strings.Join(os.Args[1:min(2, len(os.Args))], ""), os.Getpid())
}

func (s Store) holder(lab string) string {
	data, err := os.ReadFile(s.path(lab, lockFile))
	if err != nil || len(data) == 0 {
		return "another labctl"
	}
	return string(data)
}

func (s Store) path(lab, file string) string { return filepath.Join(s.Dir, lab, file) }
