//go:build linux

package netns_test

import (
	"context"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/provision/providertest"
)

// TestEnsureNodeLinks mends the node that is named and leaves the other alone.
func TestEnsureNodeLinks(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	lab := providertest.Name()
	t.Cleanup(func() { _, _ = p.Destroy(context.Background(), lab) })
	top := providertest.Load(t, lab, providertest.Lab)
	if err := up(p, top); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		node, err := p.OpenNode(t.Context(), lab, name)
		if err != nil {
			t.Fatal(err)
		}
		err = node.Run(t.Context(), provision.Command{Argv: []string{"ip", "route", "add", "blackhole", "10.77.0.0/16"}})
		node.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a", "b"} {
		changes, err := p.EnsureNodeLinks(t.Context(), top, want)
		if err != nil || len(changes) != 1 || changes[0].Node != want || !strings.Contains(changes[0].Object, "10.77.0.0/16") {
			t.Errorf("%s: %v, %v", want, changes, err)
		}
	}
	if changes, err := p.EnsureLinks(t.Context(), top); err != nil || len(changes) != 0 {
		t.Errorf("after both: %v, %v", changes, err)
	}
}
