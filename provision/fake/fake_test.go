package fake_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/fake"
	"github.com/native-routing/labctl/provision/providertest"
)

// The fake has no machines, so it passes the parts about nodes, files and services.
func TestProvider(t *testing.T) {
	providertest.Run(t, providertest.Subject{New: func(*testing.T) provision.Provider { return fake.New() }})
}

func TestFaults(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name  string
		fault fake.Fault
		// fails are the numbers of the EnsureNode calls that fail; made are the nodes after them.
		fails map[int]bool
		made  int
	}{
		{"every call", fake.Fault{Err: broken}, map[int]bool{1: true, 2: true, 3: true, 4: true}, 0},
		{"the second call", fake.Fault{At: 2, Err: broken}, map[int]bool{2: true}, 3},
		{"a method", fake.Fault{Method: "EnsureNode", At: 3, Err: broken}, map[int]bool{3: true}, 3},
		{"another method", fake.Fault{Method: "EnsureLinks", Err: broken}, nil, 4},
		{"a node", fake.Fault{Node: "a", Err: broken}, map[int]bool{3: true}, 3},
		{"a lost answer", fake.Fault{Node: "a", After: true, Err: broken}, map[int]bool{3: true}, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := fake.New()
			p.Fail(test.fault)
			lab := providertest.Load(t, "x", providertest.Lab)
			for i, name := range lab.Nodes.Names() {
				_, err := p.EnsureNode(t.Context(), lab, name)
				if errors.Is(err, broken) != test.fails[i+1] {
					t.Errorf("call %d: %v", i+1, err)
				}
			}
			p.Heal()
			o, err := p.Observe(t.Context(), "x")
			if err != nil || len(o.Nodes) != test.made {
				t.Errorf("nodes %v, %v, want %d", o.Nodes, err, test.made)
			}
			if calls := p.Calls(); len(calls) != 5 || calls[2] != (fake.Call{Method: "EnsureNode", Lab: "x", Node: "a"}) {
				t.Errorf("calls %v", calls)
			}
		})
	}
}

// TestDial puts a test's own agent behind a node.
func TestDial(t *testing.T) {
	p := fake.New()
	lab := providertest.Load(t, "x", providertest.Lab)
	if _, err := p.EnsureNode(t.Context(), lab, "a"); err != nil {
		t.Fatal(err)
	}
	n, err := p.OpenNode(t.Context(), "x", "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Dial(t.Context(), "unix", "agent.sock"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without a handler: %v", err)
	}
	p.Dial = func(_ context.Context, lab, node, network, address string) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			_, _ = io.WriteString(there, lab+" "+node+" "+network+" "+address)
			there.Close()
		}()
		return here, nil
	}
	conn, err := n.Dial(t.Context(), "unix", "agent.sock")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || string(text) != "x a unix agent.sock" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := p.Destroy(t.Context(), "x", "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Dial(t.Context(), "unix", "agent.sock"); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("after Destroy: %v", err)
	}
}
