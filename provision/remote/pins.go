package remote

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2/maybe"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// pins is a lab's known_hosts file. It may be used by several goroutines and
// processes at once: whoever changes it holds the lock beside it and puts a new
// file in its place.
type pins struct{ file string }

// Forget takes the pinned keys of nodes out of a known_hosts file, for machines
// that are no more. A file or a pin that is not there is no error.
func Forget(ctx context.Context, file string, nodes ...string) error {
	p := pins{file}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := p.change(ctx, func(data []byte) ([]byte, error) {
		var kept []byte
		for l := range bytes.Lines(data) {
			if !slices.ContainsFunc(nodes, func(node string) bool { return pinsNode(string(l), node) }) {
				kept = append(kept, l...)
			}
		}
		return kept, nil
	})
	if err != nil {
		return fmt.Errorf("forget host keys of %s: %w", strings.Join(nodes, ", "), err)
	}
	return nil
}

// check compares the key with the pinned ones, and pins it where the node has none.
func (p pins) check(ctx context.Context, node string, key ssh.PublicKey) error {
	err := p.compare(node, key)
	if !errors.Is(err, errNoPin) {
		return err
	}
	return p.change(ctx, func(data []byte) ([]byte, error) {
		// Someone else may have pinned it meanwhile.
		if err := p.compare(node, key); !errors.Is(err, errNoPin) {
			return data, err
		}
		if len(data) > 0 && data[len(data)-1] != '\n' {
			data = append(data, '\n')
		}
		return append(data, knownhosts.Line([]string{node}, key)+"\n"...), nil
	})
}

var errNoPin = errors.New("no pinned host key")

// compare returns errNoPin where the node has no pin, a HostKeyError where it has another.
func (p pins) compare(node string, key ssh.PublicKey) error {
	want, err := p.of(node, key)
	if err != nil || want == nil {
		return err
	}
	if len(want) == 0 {
		return errNoPin
	}
	e := &HostKeyError{Node: node, File: p.file, Got: fingerprint(key)}
	for _, w := range want {
		e.Want = append(e.Want, fingerprint(w.Key))
	}
	return e
}

// of returns the keys that are pinned for the node; nil where key is one of them.
func (p pins) of(node string, key ssh.PublicKey) ([]knownhosts.KnownKey, error) {
	known, err := knownhosts.New(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return []knownhosts.KnownKey{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pinned host keys: %w", err)
	}
	// The port is left out of a name when it is 22.
	err = known(net.JoinHostPort(node, "22"), &net.TCPAddr{}, key)
	var different *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &different):
		return append([]knownhosts.KnownKey{}, different.Want...), nil
	case errors.As(err, &revoked):
		return nil, fmt.Errorf("%s: %w: %s is marked as revoked in %s", node, ErrHostKey, fingerprint(key), p.file)
	default:
		return nil, err
	}
}

// algorithms puts those of the node's pinned keys first, so that a node with keys
// of several types shows the one that is known. Certificates are left out: a pin
// is a key.
func (p pins) algorithms(node string) ([]string, error) {
	all := ssh.SupportedAlgorithms().HostKeys
	all = slices.DeleteFunc(slices.Clone(all), func(a string) bool { return strings.Contains(a, "-cert-") })
	want, err := p.of(node, noKey{})
	if err != nil {
		return nil, err
	}
	rank := func(algorithm string) int {
		for _, w := range want {
			if t := w.Key.Type(); algorithm == t || t == ssh.KeyAlgoRSA && strings.HasPrefix(algorithm, "rsa-") {
				return 0
			}
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b string) int { return rank(a) - rank(b) })
	return all, nil
}

// noKey is like no key that there is.
type noKey struct{ ssh.PublicKey }

func (noKey) Type() string    { return "none" }
func (noKey) Marshal() []byte { return nil }

// change replaces the file by what edit makes of it, under the lock.
func (p pins) change(ctx context.Context, edit func([]byte) ([]byte, error)) error {
	if err := os.MkdirAll(filepath.Dir(p.file), 0o755); err != nil {
		return err
	}
	lock := flock.New(p.file + ".lock")
	if _, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		return fmt.Errorf("lock %s: %w", p.file, err)
	}
	defer lock.Close()
	data, err := os.ReadFile(p.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	edited, err := edit(data)
	if err != nil || bytes.Equal(edited, data) {
		return err
	}
	return maybe.WriteFile(p.file, edited, 0o644)
}

// pinsNode says whether a line of a known_hosts file is of this node and no
// other. A name may be hashed: ssh writes such lines where HashKnownHosts is on.
func pinsNode(line, node string) bool {
	fields := strings.Fields(line)
	if len(fields) < 3 || strings.HasPrefix(fields[0], "@") || strings.HasPrefix(fields[0], "#") {
		return false
	}
	if fields[0] == node {
		return true
	}
	// |1|SALT|HASH, both in base64: HMAC-SHA1 of the name under the salt.
	parts := strings.Split(fields[0], "|")
	if len(parts) != 4 || parts[0] != "" || parts[1] != "1" {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(node))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil)) == parts[3]
}
