//go:build linux

package main

import (
	"io"
	"net/netip"
	"os"
	"os/exec"
	"testing"
)

// TestMain is the process of a lane too, as the bench is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == trafficCommand {
		os.Exit(trafficMain(os.Args[2:], os.Stderr))
	}
	os.Exit(m.Run())
}

// TestPlainLanes goes every way that needs no lab: to each server directly, and
// through each tool's rules, which must lead to all three.
func TestPlainLanes(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	const services = 10
	for _, rules := range append([]kubeProxy{{name: "none"}}, kubeProxies()...) {
		t.Run(rules.name, func(t *testing.T) {
			p, err := newPlain()
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			to, port := plainServer, uint16(connectPort)
			if rules.rules != nil {
				if _, err := exec.LookPath(rules.argv[0]); err != nil {
					t.Fatal(err)
				}
				if err := p.load(t.Context(), rules.rules(services), rules.argv...); err != nil {
					t.Fatal(err)
				}
				to, port = rulesService(services/2), rulesPort
			}
			l, err := newLane("", 0, p.client, p.servers)
			if err != nil {
				t.Fatal(err)
			}
			ask := func(what string, port uint16) {
				t.Helper()
				took, err := l.ask(t.Context(), what, netip.AddrPortFrom(to, port), 30)
				if err != nil || took < 1e-6 || took > 0.1 {
					t.Errorf("%s: %v s, %v", what, took, err)
				}
			}
			ask(askConnect, port)
			ask(askPath, port)
			if rules.rules == nil {
				ask(askRTT, echoPort)
				if _, err := l.ask(t.Context(), askConnect, netip.AddrPortFrom(to, 9), 1); err == nil {
					t.Error("a port where nobody listens was connected to")
				}
			} else if _, err := l.ask(t.Context(), askConnect, netip.AddrPortFrom(rulesService(0), port), 1); err == nil {
				t.Error("a service whose backends do not exist was connected to")
			}
			if err := l.close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLaneEndsWithItsInput: nothing is left when the bench is killed.
func TestLaneEndsWithItsInput(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p, err := newPlain()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	l, err := newLane("", 0, p.client, p.servers)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestTrafficUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"1", "0"}, {"x"}, {"2"}} {
		if err := traffic(args, nil, io.Discard); err == nil {
			t.Errorf("traffic %v was taken", args)
		}
	}
}
