package remote

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Errors to match with errors.Is.
var (
	// ErrUnreachable is a node that could not be connected to in the given time:
	// refused, reset, no answer. Later it may be there.
	ErrUnreachable = errors.New("cannot be reached")
	// ErrTimeout is a node that did not answer in time. It comes together with
	// ErrUnreachable or ErrLost.
	ErrTimeout = errors.New("no answer in time")
	// ErrLost is a connection that broke in the middle of a call. What the call
	// did on the node is not known; a command that still runs there is ended when
	// the node is next connected to.
	ErrLost = errors.New("connection lost")
	// ErrHostKey is a host key that is not the pinned one, see [HostKeyError].
	ErrHostKey = errors.New("host key changed")
	// ErrAuth is a user or key that the node does not take.
	ErrAuth = errors.New("login refused")
	// ErrNotSSH is something else than SSH that answers.
	ErrNotSSH = errors.New("not an SSH server")
	// ErrBecome is a user who may not become root.
	ErrBecome = errors.New("may not become root")
	// ErrClosed is a call after Close, or cut short by it.
	ErrClosed = errors.New("client is closed")
)

// HostKeyError is a node that shows another host key than the one that was
// pinned at first contact. It matches [ErrHostKey].
type HostKeyError struct {
	Node string
	File string   // the known_hosts file
	Want []string // pinned, as ssh-keygen -l prints them: type and SHA256 fingerprint
	Got  string
}

func (e *HostKeyError) Error() string {
	return fmt.Sprintf("%s: %v: it shows %s, pinned in %s is %s (someone may be in between; "+
		"if the machine was made anew: ssh-keygen -R %s -f %s)",
		e.Node, ErrHostKey, e.Got, e.File, list(e.Want), e.Node, quote(e.File))
}

// Is says that it is an ErrHostKey.
func (e *HostKeyError) Is(target error) bool { return target == ErrHostKey }

func fingerprint(key ssh.PublicKey) string { return key.Type() + " " + ssh.FingerprintSHA256(key) }

func list(words []string) string {
	text := ""
	for i, w := range words {
		if i > 0 {
			text += " or "
		}
		text += w
	}
	return text
}
