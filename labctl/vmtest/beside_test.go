//go:build linux && amd64

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// besideLab has an address of the other lab's, in a network of the same range.
const besideLab = `apiVersion: labctl/v1
kind: Topology
metadata: {name: beside}
networks:
  left: {cidr: 192.168.10.0/24}
nodes:
  k8s-ctr:
    role: host
    resources: {cpus: 1, memoryMiB: 288}
    interfaces: {eth1: {network: left, address: 192.168.10.200/24}}
providers:
  vagrant: {box: %s, provider: libvirt}
`

// testBeside has another lab stand beside the one that is up, and go again: neither
// hears of the other.
func testBeside(u user) {
	other := u
	other.lab, other.file = "beside", filepath.Join(u.dir, "beside.yaml")
	if err := os.WriteFile(other.file, fmt.Appendf(nil, besideLab, bed.Box), 0o644); err != nil {
		u.t.Fatal(err)
	}
	before := leftOf(u.t, u)
	hardware := u.on("router", "cat", "/sys/class/net/eth1/address")
	u.t.Cleanup(func() { other.try("down") })
	other.must("up", other.file, "--provider", "vagrant")
	if out := other.on("k8s-ctr", "hostname"); out != "k8s-ctr\n" {
		u.t.Errorf("the other lab's node calls itself %q", out)
	}
	other.verified()
	// Who else has the router's address would answer here.
	u.on("k8s-ctr", "ip", "neigh", "flush", "dev", "eth1")
	u.on("k8s-ctr", "ping", "-c", "3", "192.168.10.200")
	if out := u.on("k8s-ctr", "ip", "neigh", "show", "192.168.10.200", "dev", "eth1"); !strings.Contains(out, strings.TrimSpace(hardware)) {
		u.t.Errorf("192.168.10.200 is not the router's %s:\n%s", hardware, out)
	}
	u.verified(networkChecks...)
	other.must("down")
	u.healthy()
	after := leftOf(u.t, u)
	wantSame(u.t, before, after)
}

func wantSame(t *testing.T, before, after []string) {
	t.Helper()
	for _, left := range after {
		if !slices.Contains(before, left) {
			t.Errorf("left behind: %s", left)
		}
	}
	for _, had := range before {
		if !slices.Contains(after, had) {
			t.Errorf("gone with the other lab: %s", had)
		}
	}
}
