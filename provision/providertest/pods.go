package providertest

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/provision"
)

// where prints the kind of the file system of BPFDir, and finds a process in
// the cgroup or below; other cgroups may go away meanwhile.
const where = `stat -f -c %T "$1"
find "$2" -name cgroup.procs -exec grep -qsx "$3" {} ";" -print 2>/dev/null || true`

// testPlaces looks for the node's processes in the node's cgroup.
func testPlaces(t *testing.T, b *bench) {
	b.up(b.load())
	n := b.node("a")
	look := func(pid string) string {
		t.Helper()
		return output(t, n, "sh", "-c", where, "sh", n.BPFDir(), n.Cgroup(), pid)
	}
	below := func(text string) bool {
		kind, procs, ok := strings.Cut(strings.TrimSpace(text), "\n")
		return ok && kind == "bpf_fs" && strings.HasPrefix(procs, n.Cgroup()+"/")
	}
	if got := output(t, n, "sh", "-c", `exec sh -c "$1" sh "$2" "$3" $$`, "sh", where, n.BPFDir(), n.Cgroup()); !below(got) {
		t.Errorf("a command is in %q, want it in a bpf_fs, and below %s", got, n.Cgroup())
	}
	if _, err := n.Put(t.Context(), provision.File{Path: "tool", Mode: 0o755, Content: []byte(service)}); err != nil {
		t.Fatal(err)
	}
	lock := path.Join(n.RunDir(), "svc.lock")
	if _, err := n.EnsureService(t.Context(), provision.Service{Name: "svc", Argv: []string{"tool", lock, "one"}}); err != nil {
		t.Fatal(err)
	}
	if got := look(strings.TrimSpace(output(t, n, "cat", lock))); !below(got) {
		t.Errorf("a service is in %q, want it below %s", got, n.Cgroup())
	}
	other := b.node("b")
	if other.Cgroup() == n.Cgroup() && other.Arch() == n.Arch() {
		if out, err := try(t, other, "test", "-d", "/proc/"+strings.TrimSpace(output(t, n, "cat", lock))); err == nil {
			t.Errorf("two nodes of one kernel share a cgroup: %s", out)
		}
	}
}

// asPod goes where an agent puts a pod: into a cgroup below the node's, a
// session and namespaces of its own, without a mark. It says that it is there.
const asPod = `mkdir -p "$1/pods/x" && echo $$ >"$1/pods/x/cgroup.procs" && exec env -i PATH="$PATH" setsid unshare -n -u -m \
	sh -c 'trap "" TERM HUP; echo there; while :; do sleep "$1"; done' sh "$2"`

// testDestroyPods wants one node's pods gone with it, and no other's.
func testDestroyPods(t *testing.T, b *bench) {
	b.up(b.load())
	// A sleep's length tells whose it is, on machines that share their processes.
	begin := func(node, length string) provision.Node {
		t.Helper()
		n := b.node(node)
		there := &signal{text: "there", seen: make(chan bool)}
		go func() {
			_ = n.Run(t.Context(), provision.Command{Argv: []string{"sh", "-c", asPod, "sh", n.Cgroup(), length}, Stdout: there})
		}()
		select {
		case <-there.seen:
		case <-time.After(timeLimit):
			t.Fatalf("%s: the pod does not start", node)
		}
		return n
	}
	begin("a", "1006")
	other := begin("b", "1007")
	// The sleep comes a moment after the word.
	time.Sleep(50 * time.Millisecond)
	if _, err := b.Destroy(t.Context(), b.lab, "a"); err != nil {
		t.Fatal(err)
	}
	if out := output(t, other, "ps", "-e", "-o", "args"); strings.Contains(out, "sleep 1006") || !strings.Contains(out, "sleep 1007") {
		t.Errorf("after the end of a alone:\n%s", out)
	}
	if _, err := b.Destroy(t.Context(), b.lab); err != nil {
		t.Fatal(err)
	}
	b.wantNothing(b.lab)
	b.up(b.load())
	if out := output(t, b.node("b"), "ps", "-e", "-o", "args"); strings.Contains(out, "sleep 1007") {
		t.Error(fmt.Sprint("after the lab's end:\n", out))
	}
}

// signal closes seen when text was written.
type signal struct {
	text string
	seen chan bool
	buf  bytes.Buffer
	done bool
}

func (s *signal) Write(p []byte) (int, error) {
	s.buf.Write(p)
	if !s.done && strings.Contains(s.buf.String(), s.text) {
		s.done = true
		close(s.seen)
	}
	return len(p), nil
}
