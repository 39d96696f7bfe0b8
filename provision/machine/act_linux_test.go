package machine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// carry has act.sh do the steps here.
func carry(t todo) error {
	cmd := exec.Command("sh", "-c", actScript, "sh")
	cmd.Stdin = strings.NewReader(strings.Join(t.steps, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(string(out))
	}
	return nil
}

// TestClaim: of many who claim one machine at once one has it.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mark")
	var all sync.WaitGroup
	var got atomic.Int32
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		all.Go(func() {
			var todo todo
			todo.do("claim", path, encode(mark("lab", name)))
			if carry(todo) == nil {
				got.Add(1)
			}
		})
	}
	all.Wait()
	text, err := os.ReadFile(path)
	if err != nil || got.Load() != 1 || len(text) != len(mark("lab", "a")) {
		t.Errorf("%d have it, it says %q, %v", got.Load(), text, err)
	}
}

// TestQueue waits while another holds a lock, and only then.
func TestQueue(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{
		"apt":   "[ -e " + dir + "/once ] && exit 0; >" + dir + "/once; echo E: Could not get lock /var/lib/apt/lists/lock. >&2; exit 100",
		"fails": "echo >>" + dir + "/tries; echo no network; exit 100",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "log")
	var waits, fails todo
	waits.do("queue", log, dir+"/apt", "update")
	fails.do("queue", log, dir+"/fails")
	if err := carry(waits); err != nil {
		t.Errorf("the lock was let go, and still: %v", err)
	}
	if err := carry(fails); err == nil {
		t.Error("what fails for another reason did not")
	}
	tries, _ := os.ReadFile(filepath.Join(dir, "tries"))
	if said, err := os.ReadFile(log); len(tries) != 1 || !strings.Contains(string(said), "no network") {
		t.Errorf("%d tries; the log says %q, %v", len(tries), said, err)
	}
}

// TestLookPassesLabsBy: the BPF file system of a lab of namespaces on this machine
// goes away with that lab, and what is in it is a node of that lab.
func TestLookPassesLabsBy(t *testing.T) {
	labs, own := t.TempDir(), t.TempDir()
	const mounts = `mount -t bpf labctl "$1"; mkdir "$1/labctl-node"; mount -t bpf bpf "$2"; mkdir "$2/labctl-node"; shift 2; exec "$@"`
	out, err := exec.Command("unshare", "--mount", "sh", "-ec", mounts, "sh", labs, own,
		"sh", "-c", lookScript, "sh", "all", testMark, "/nowhere", "root").Output()
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSeen(out, testMark)
	if err != nil {
		t.Fatal(err)
	}
	if s.BPF == "" || s.BPF == labs || s.Places[labs+"/labctl-node"] || !s.Places[own+"/labctl-node"] {
		t.Errorf("pins go to %q; its things are in %v", s.BPF, s.Places)
	}
}

// TestLookAtAccount has a user who is not in passwd(5), and wants his files.
func TestLookAtAccount(t *testing.T) {
	home, bin := t.TempDir(), t.TempDir()
	getent := "#!/bin/sh\necho \"$2:x:5000:5000::" + home + ":/bin/sh\"\n"
	if err := os.WriteFile(filepath.Join(bin, "getent"), []byte(getent), 0o755); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(home, keysFile)
	if err := os.MkdirAll(filepath.Dir(keys), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keys, []byte("ssh-ed25519 AAAA mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", lookScript, "sh", "all", testMark, "/nowhere", "labctl-directory-user")
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSeen(out, testMark)
	if err != nil {
		t.Fatal(err)
	}
	if s.Account.Home != home || s.Files[keys].Content != "ssh-ed25519 AAAA mine\n" {
		t.Errorf("account %+v, keys %q", s.Account, s.Files[keys].Content)
	}
}
