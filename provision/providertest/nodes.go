package providertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/provision"
)

func testPut(t *testing.T, b *bench) {
	b.up(b.load())
	n := b.node("a")
	for i, step := range []struct {
		file provision.File
		want bool
	}{
		{provision.File{Path: "some/file", Mode: 0o644, Content: []byte("one\n")}, true},
		{provision.File{Path: "some/file", Mode: 0o644, Content: []byte("one\n")}, false},
		{provision.File{Path: path.Join(n.Dir(), "some/file"), Mode: 0o644, Content: []byte("one\n")}, false},
		{provision.File{Path: "some/file", Mode: 0o600, Content: []byte("one\n")}, true},
		{provision.File{Path: "some/file", Mode: 0o600, Content: []byte("two\n")}, true},
		{provision.File{Path: "some/file", Mode: 0o600, Content: nil}, true},
		{provision.File{Path: "tool", Mode: 0o755, Content: []byte("#!/bin/sh\necho one\n")}, true},
		{provision.File{Path: "tool", Mode: 0o755, Content: []byte("#!/bin/sh\necho one\n")}, false},
		{provision.File{Path: "tool", Mode: 0o755, Content: []byte("#!/bin/sh\necho two\n")}, true},
	} {
		got, err := n.Put(t.Context(), step.file)
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if got != step.want {
			t.Errorf("step %d: changed %t, want %t", i, got, step.want)
		}
	}
	if !b.subject.Machines {
		return
	}
	if out := output(t, n, path.Join(n.Dir(), "tool")); out != "two\n" {
		t.Errorf("the tool says %q", out)
	}
	if out := output(t, n, "stat", "-c", "%a %s", path.Join(n.Dir(), "some/file")); out != "600 0\n" {
		t.Errorf("the file is %q", out)
	}
	// What is the same on two nodes may be shared; each still has its own name for it.
	other := b.node("b")
	for _, content := range []string{"two", "three"} {
		if _, err := other.Put(t.Context(), provision.File{Path: "tool", Mode: 0o755, Content: []byte("#!/bin/sh\necho " + content + "\n")}); err != nil {
			t.Fatal(err)
		}
	}
	if out := output(t, n, path.Join(n.Dir(), "tool")); out != "two\n" {
		t.Errorf("after another node's upgrade the tool says %q", out)
	}
}

// service takes its lock as a service must, and says its second argument. Its
// number comes last: that is what says that it is ready. It waits a moment, as the
// agent does: a child of the one before may hold the lock until it is killed too.
const service = `#!/bin/sh
exec 9>>"$1"
flock -w 1 9 || exit 1
echo "says $2"
echo $$ >"$1"
trap 'kill $!; exit 0' TERM
while :; do sleep 60 9>&- & wait $!; done
`

func testService(t *testing.T, b *bench) {
	b.up(b.load())
	n := b.node("a")
	put := func(content string) {
		t.Helper()
		if _, err := n.Put(t.Context(), provision.File{Path: "tool", Mode: 0o755, Content: []byte(content)}); err != nil {
			t.Fatal(err)
		}
	}
	lock := path.Join(n.RunDir(), "svc.lock")
	started := func(word string) bool {
		t.Helper()
		changes, err := n.EnsureService(t.Context(), provision.Service{Name: "svc", Argv: []string{"tool", lock, word}})
		if err != nil {
			t.Fatal(err)
		}
		return len(changes) > 0
	}
	pid := func() string {
		if !b.subject.Machines {
			return ""
		}
		return strings.TrimSpace(output(t, n, "cat", lock))
	}
	put(service)
	if !started("one") {
		t.Error("it was not started")
	}
	first := pid()
	if started("one") {
		t.Error("it was started a second time")
	}
	if got := pid(); got != first {
		t.Errorf("it is process %s, was %s", got, first)
	}
	if !started("two") {
		t.Error("it was not restarted for other arguments")
	}
	put(service + "# upgraded\n")
	if !started("two") {
		t.Error("it was not restarted for another executable")
	}
	if started("two") {
		t.Error("it was restarted again")
	}
	if !b.subject.Machines {
		return
	}
	testServiceProcess(t, n, first, lock, started, b.subject.Restarts)
}

// testServiceProcess looks at the processes themselves.
func testServiceProcess(t *testing.T, n provision.Node, first, lock string, started func(word string) bool, restarts bool) {
	t.Helper()
	if _, err := try(t, n, "test", "-d", "/proc/"+first); err == nil {
		t.Errorf("the first process %s still runs", first)
	}
	// The kernel ends it when that process's turn comes; until then it runs.
	output(t, n, "sh", "-c", "kill -KILL $1; while readlink /proc/$1/exe; do sleep 0.01; done", "sh", strings.TrimSpace(output(t, n, "cat", lock)))
	if !started("two") && !restarts {
		t.Error("it was not started after it was killed")
	}
	// What restarts services may have begun this one a moment before labctl did,
	// which cannot know whether that one comes up.
	out := output(t, n, "cat", path.Join(n.Dir(), "svc.log"))
	if says := "says one\nsays two\nsays two\nsays two\n"; out != says && !(restarts && out == says+"says two\n") {
		t.Errorf("the log is %q", out)
	}
	if out := output(t, n, "readlink", "/proc/"+strings.TrimSpace(output(t, n, "cat", lock))+"/ns/net"); out != output(t, n, "readlink", "/proc/self/ns/net") {
		t.Errorf("the service is in %s", out)
	}
	_, err := n.EnsureService(t.Context(), provision.Service{Name: "bad", Argv: []string{"/bin/sh", "-c", "echo sorry; exit 3"}})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "sorry") {
		t.Errorf("a service that ends at once: %v", err)
	}
}

func testRun(t *testing.T, b *bench) {
	b.up(b.load())
	n := b.node("a")
	Commands(t, n)
	if out := output(t, n, "hostname"); out != "a\n" {
		t.Errorf("the hostname is %q", out)
	}
	for name, address := range map[string]string{"router": "192.168.10.200", "a": "192.168.10.100", "b": "192.168.20.100", "localhost": "127.0.0.1"} {
		if out := output(t, n, "getent", "ahostsv4", name); !strings.HasPrefix(out, address+" ") {
			t.Errorf("%s is %q", name, out)
		}
	}
}

func testRunInterrupted(t *testing.T, b *bench) {
	b.up(b.load())
	n := b.node("a")
	// ps sees all processes of this machine where the node shares them, those of
	// other runs of this test too.
	long := fmt.Sprintf("sleep 1%08d", rand.IntN(1e8))
	for _, script := range []string{
		long,
		long + " & " + long + " & wait",
		"trap '' TERM HUP; " + long + " & " + long + "; " + long,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		err := n.Run(ctx, provision.Command{Argv: []string{"sh", "-c", script}, Stdout: io.Discard})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want the context's error", script, err)
		}
		if took := time.Since(start); took > 3*time.Second && !b.subject.Fixed {
			t.Errorf("%s: took %s", script, took)
		}
	}
	for range 100 {
		if out := output(t, n, "ps", "-e", "-o", "args"); !strings.Contains(out, long) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(fmt.Sprint("still running: ", output(t, n, "ps", "-e", "-o", "pid,args")))
}
