// Package sshtest has SSH servers to test with: one in this process whose
// behaviour is scripted, OpenSSH's own sshd, and a proxy that breaks connections.
package sshtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Key is a key pair, with the private key in a file.
type Key struct {
	File   string
	Signer ssh.Signer
}

// NewKey makes an ed25519 key in a directory of the test's own.
func NewKey(t testing.TB) Key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return Key{file, signer}
}

// Authorized is the key's line in an authorized_keys file.
func (k Key) Authorized() []byte { return ssh.MarshalAuthorizedKey(k.Signer.PublicKey()) }
