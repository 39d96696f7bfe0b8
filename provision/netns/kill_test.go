//go:build linux

package netns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/provision/providertest"
	"github.com/native-routing/labctl/topologies/topo"
)

// asChild makes this test binary do one thing with a lab, and be killed at it.
const asChild = "LABCTL_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(asChild); role != "" {
		if err := child(role, os.Args[1:]...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("done")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func labOf(name string) (*topo.Topology, error) {
	return topo.Load("lab.yaml", strings.NewReader(strings.ReplaceAll(providertest.Lab, "name: LAB", "name: "+name)))
}

func child(role string, args ...string) error {
	lab := args[0]
	p := netns.New(netns.Options{})
	t, err := labOf(lab)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	switch role {
	case "unusual":
		return unusual(lab, args[1])
	case "up":
		return up(p, t)
	case "down":
		_, err = p.Destroy(context.Background(), lab)
		return err
	default: // preflight
		for _, f := range p.Preflight(context.Background(), t) {
			fmt.Printf("%s %s: %s (%s) %v\n", f.Severity, f.Subject, f.Detail, f.Cure, f.Err)
		}
		_, err := p.EnsureNode(context.Background(), t, "a")
		fmt.Println("EnsureNode:", errors.Is(err, provision.ErrPermission))
		return err
	}
}

// lockScript is a service, see providertest.
const lockScript = `#!/bin/sh
exec 9>>"$1"
flock -w 1 9 || exit 1
echo $$ >"$1"
exec 3>&-
trap 'kill $!; exit 0' TERM
while :; do sleep 60 9>&- & wait $!; done
`

// up does all that labctl up does with a provider.
func up(p *netns.Provider, t *topo.Topology) error {
	ctx := context.Background()
	if err := forEach(t, func(name string) error { _, err := p.EnsureNode(ctx, t, name); return err }); err != nil {
		return err
	}
	if _, err := p.EnsureLinks(ctx, t); err != nil {
		return err
	}
	return forEach(t, func(name string) error {
		n, err := p.OpenNode(ctx, t.Metadata.Name, name)
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.Put(ctx, provision.File{Path: "svc", Mode: 0o755, Content: []byte(lockScript)}); err != nil {
			return err
		}
		_, err = n.EnsureService(ctx, provision.Service{Name: "svc", Argv: []string{"svc", filepath.Join(n.RunDir(), "svc.lock")}})
		return err
	})
}

func forEach(t *topo.Topology, do func(name string) error) error {
	var group errgroup.Group
	for _, name := range t.Nodes.Names() {
		group.Go(func() error { return do(name) })
	}
	return group.Wait()
}

// killed runs the child and kills it so long after it is ready. It says
// whether the child was still at work.
func killed(t *testing.T, role, lab string, after time.Duration) bool {
	t.Helper()
	c := exec.Command(os.Args[0], lab)
	c.Env = append(os.Environ(), asChild+"="+role)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	_ = c.Process.Kill()
	rest, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // killed, or done in time
	return !strings.Contains(string(rest), "done")
}

// TestKilled kills up and down at growing times until they are through, and at
// random ones. Whatever is left then, up makes the lab whole and changes
// nothing when repeated, and down leaves nothing.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	const step = 700 * time.Microsecond
	for _, role := range []string{"up", "down"} {
		t.Run(role, func(t *testing.T) {
			lab := providertest.Name()
			top := providertest.Load(t, lab, providertest.Lab)
			t.Cleanup(func() { _, _ = p.Destroy(context.Background(), lab) })
			try := func(after time.Duration, thenUp bool) bool {
				if role == "down" {
					if err := up(p, top); err != nil {
						t.Fatal(err)
					}
				}
				busy := killed(t, role, lab, after)
				if thenUp {
					wantWhole(t, p, top)
				}
				wantGone(t, p, lab)
				if t.Failed() {
					t.Fatalf("killed after %s", after)
				}
				return busy
			}
			kills := 0
			for after := time.Duration(0); after < time.Second; after += step {
				if !try(after, kills%2 == 0) {
					break
				}
				kills++
			}
			for range 10 {
				try(rand.N(time.Duration(kills)*step), rand.N(2) == 0)
			}
			t.Logf("%d kills %s apart, and 10 at random", kills, step)
			if kills < 5 {
				t.Errorf("only %d kills came in time: the test proves little", kills)
			}
		})
	}
}

func wantWhole(t *testing.T, p *netns.Provider, top *topo.Topology) {
	t.Helper()
	if err := up(p, top); err != nil {
		t.Fatal(err)
	}
	err := forEach(top, func(name string) error {
		if changes, err := p.EnsureNode(t.Context(), top, name); err != nil || len(changes) > 0 {
			return fmt.Errorf("%v, %w", changes, err)
		}
		return nil
	})
	if err != nil {
		t.Errorf("nodes a second time: %v", err)
	}
	if changes, err := p.EnsureLinks(t.Context(), top); err != nil || len(changes) > 0 {
		t.Errorf("links a second time: %v, %v", changes, err)
	}
	n, err := p.OpenNode(t.Context(), top.Metadata.Name, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Run(t.Context(), provision.Command{Argv: []string{"ping", "-c", "1", "-W", "1", "10.10.1.200"}}); err != nil {
		t.Error(err)
	}
	wantServices(t, p, top)
}

// wantServices wants one on each node, soon. One that a down which was killed had
// told to end may end after up has seen it; one that an up which was killed had
// started, and that could not be told from its parent yet, and the one of the
// next up both want the lock, and whoever comes second gives up after a second;
// and for a moment the shell's child has the shell's name.
func wantServices(t *testing.T, p *netns.Provider, top *topo.Topology) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		found := objects(t, p, top.Metadata.Name)
		if strings.Count(found, "/svc ") == len(top.Nodes) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("not one service on each of %d nodes:\n%s", len(top.Nodes), found)
			return
		}
		if err := up(p, top); err != nil {
			t.Fatal(err)
		}
	}
}

func wantGone(t *testing.T, p *netns.Provider, lab string) {
	t.Helper()
	if _, err := p.Destroy(t.Context(), lab); err != nil {
		t.Error(err)
	}
	if o, err := p.Observe(t.Context(), lab); err != nil || !o.Empty() {
		t.Errorf("left: %+v, %v", o, err)
	}
	if left := residue(t, lab); len(left) > 0 {
		t.Errorf("left on the machine:\n%s", strings.Join(left, "\n"))
	}
}
