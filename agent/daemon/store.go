//go:build linux

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/native-routing/labctl/agent/api"
)

// stateFile is the desired state in the data directory, as JSON.
const stateFile = "desired.json"

// store keeps the state on disk, where it outlives the agent and the machine's
// power. Only one process writes: the one that holds the lock.
type store struct {
	dir string
}

// errCorrupt is a state file that makes no sense. It was moved aside.
var errCorrupt = errors.New("corrupt state file")

// load returns nil where there is no state. A file that makes no sense is
// renamed, so that it can be looked at, and reported as errCorrupt.
func (s store) load() (*api.State, error) {
	path := filepath.Join(s.dir, stateFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	state, err := decodeState(raw)
	if err == nil {
		return &state, nil
	}
	aside := path + ".corrupt"
	if renameErr := os.Rename(path, aside); renameErr != nil {
		return nil, fmt.Errorf("%w %s: %w; move it aside: %w", errCorrupt, path, err, renameErr)
	}
	return nil, fmt.Errorf("%w %s: %w; it is kept as %s, and the next state takes its place", errCorrupt, path, err, aside)
}

func decodeState(raw []byte) (api.State, error) {
	var state api.State
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&state); err != nil {
		return api.State{}, err
	}
	return state, validate(state)
}

func encodeState(state api.State) ([]byte, error) {
	raw, err := json.Marshal(state)
	return append(raw, '\n'), err
}

// save writes raw so that either the old or the new state is whole on disk,
// whenever the power fails.
func (s store) save(raw []byte) error {
	path := filepath.Join(s.dir, stateFile)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, raw) {
		return nil
	}
	next := path + ".new"
	if err := writeSynced(next, raw); err != nil {
		_ = os.Remove(next) // a full disk has no room for it
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncDir(s.dir)
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
