package remote

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/native-routing/labctl/provision/remote/sshtest"
)

// TestPins pins many nodes at once in one file that ssh-keygen then reads.
func TestPins(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "lab", "known_hosts")
	keys := make([]sshtest.Key, 50)
	for i := range keys {
		keys[i] = sshtest.NewKey(t)
	}
	node := func(i int) string { return fmt.Sprintf("node%d", i) }
	for range 2 { // the second time they are compared
		var all sync.WaitGroup
		for i, key := range keys {
			for range 2 {
				all.Go(func() {
					if err := (pins{file}).check(t.Context(), node(i), key.Signer.PublicKey()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		all.Wait()
	}
	if n := lines(t, file); n != len(keys) {
		t.Errorf("%d lines for %d nodes", n, len(keys))
	}
	err := pins{file}.check(t.Context(), node(1), keys[2].Signer.PublicKey())
	var changed *HostKeyError
	if !errors.Is(err, ErrHostKey) || !errors.As(err, &changed) {
		t.Fatalf("another key: %v, want ErrHostKey", err)
	}
	for _, part := range []string{
		"node1", file, fingerprint(keys[1].Signer.PublicKey()), fingerprint(keys[2].Signer.PublicKey()),
		"ssh-keygen -R node1 -f " + file,
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v: does not name %s", err, part)
		}
	}
	// The cure that it names mends it.
	if out, err := exec.Command("ssh-keygen", "-R", "node1", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := (pins{file}).check(t.Context(), node(1), keys[2].Signer.PublicKey()); err != nil {
		t.Error(err)
	}
	if err := Forget(t.Context(), file, node(1), node(2)); err != nil {
		t.Error(err)
	}
	if n := lines(t, file); n != len(keys)-2 {
		t.Errorf("%d lines after two were forgotten", n)
	}
	// Names may be hashed; node10 must not go with node1.
	if out, err := exec.Command("ssh-keygen", "-H", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := (pins{file}).check(t.Context(), node(10), keys[10].Signer.PublicKey()); err != nil {
		t.Error(err)
	}
	if err := Forget(t.Context(), file, node(1), node(10)); err != nil {
		t.Error(err)
	}
	if n := lines(t, file); n != len(keys)-3 {
		t.Errorf("%d lines after a hashed one was forgotten", n)
	}
	if err := Forget(t.Context(), filepath.Join(t.TempDir(), "none"), "a"); err != nil {
		t.Errorf("a file that is not there: %v", err)
	}
}

func lines(t *testing.T, file string) int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}
