//go:build linux

package netns

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
)

// Put writes a file into the node's directory. A path outside of it is an
// error: the rest of the file system is the machine's own. Executables of the
// same content are one file for all nodes, so that they are in memory once.
func (n *Node) Put(ctx context.Context, file provision.File) (changed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	path, err := n.inDir(file.Path)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("%s: put %s: %w", n.name, file.Path, err)
	}
	if file.Mode.Perm()&0o111 != 0 {
		changed, err = n.putExecutable(path, file)
	} else {
		changed, err = putFile(path, file.Content, file.Mode)
	}
	if err != nil {
		return false, fmt.Errorf("%s: put %s: %w", n.name, file.Path, err)
	}
	return changed, nil
}

func (n *Node) inDir(path string) (string, error) {
	local := path
	if filepath.IsAbs(path) {
		relative, err := filepath.Rel(n.Dir(), path)
		if err != nil {
			return "", err
		}
		local = relative
	}
	if !filepath.IsLocal(local) || local == "." {
		return "", fmt.Errorf("%s: put %s: it is not below %s, and the rest belongs to this machine: %w",
			n.name, path, n.Dir(), provision.ErrUnsupported)
	}
	return filepath.Join(n.Dir(), local), nil
}

// putExecutable links path to the shared file of that content. Where it is that
// file already, its content is not read again: the file's name says it.
func (n *Node) putExecutable(path string, file provision.File) (bool, error) {
	sum := file.SHA256
	if sum == "" {
		hashed := sha256.Sum256(file.Content)
		sum = hex.EncodeToString(hashed[:])
	}
	shared := filepath.Join(n.at.bin(), fmt.Sprintf("%s-%o", sum, file.Mode.Perm()))
	if sameFile(path, shared, file) {
		return false, nil
	}
	defer n.provider.lock(n.at.lab, "@bin")()
	if err := makeDir(n.at.bin(), 0o755); err != nil {
		return false, err
	}
	if _, _, err := ensureFile(shared, file.Content, file.Mode); err != nil {
		return false, err
	}
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	err := os.Link(shared, temporary)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EXDEV) {
		return putFile(path, file.Content, file.Mode) // a file system without hard links
	}
	if err != nil {
		return false, err
	}
	if err := os.Rename(temporary, path); err != nil {
		return false, err
	}
	return true, n.dropUnused(shared)
}

// sameFile says whether path is the shared file, whole.
func sameFile(path, shared string, file provision.File) bool {
	have, err := os.Lstat(path)
	if err != nil {
		return false
	}
	want, err := os.Lstat(shared)
	return err == nil && os.SameFile(have, want) && have.Size() == int64(len(file.Content)) && have.Mode().Perm() == file.Mode.Perm()
}

// dropUnused removes shared executables that no node has any more.
func (n *Node) dropUnused(keep string) error {
	entries, err := os.ReadDir(n.at.bin())
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(n.at.bin(), e.Name())
		var st unix.Stat_t
		if path == keep || unix.Lstat(path, &st) != nil || st.Nlink > 1 && !strings.HasSuffix(path, ".new") {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
