package machine

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2/maybe"
	"golang.org/x/crypto/ssh"
)

// keyPair lets the nodes of a lab log in to each other.
type keyPair struct {
	private string // in OpenSSH's format
	public  string // type and key, without a comment
}

// keyPair returns the lab's, which is made where there is none.
func (m *Machines) keyPair(lab string) (keyPair, error) {
	m.keys.Lock()
	defer m.keys.Unlock()
	path := filepath.Join(m.options.labDir(lab), "id_ed25519")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = newKey(path, lab)
	}
	if err != nil {
		return keyPair{}, fmt.Errorf("the key pair of lab %s: %w", lab, err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return keyPair{}, fmt.Errorf("the key pair of lab %s: %s: %w (remove it; labctl up makes another)", lab, path, err)
	}
	public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return keyPair{private: string(text), public: public}, nil
}

func newKey(path, lab string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, aliasPrefix+lab)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return text, maybe.WriteFile(path, text, secretMode)
}
