// Package providertest is what every provider must pass. It is for tests only.
package providertest

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/native-routing/labctl/topologies/topo"
)

// Lab is a topology with a router, two networks, a dummy, and static routes.
const Lab = `apiVersion: labctl/v1
kind: Topology
metadata: {name: LAB}
networks:
  left: {cidr: 192.168.10.0/24}
  right: {cidr: 192.168.20.0/24, mtu: 1400}
nodes:
  router:
    role: router
    interfaces:
      eth1: {network: left, address: 192.168.10.200/24}
      eth2: {network: right, address: 192.168.20.200/24}
      loop1: {type: dummy, address: 10.10.1.200/24}
  second:
    role: router
    interfaces:
      eth1: {network: left, address: 192.168.10.201/24}
  a:
    role: host
    interfaces:
      eth1: {network: left, address: 192.168.10.100/24}
    routes:
      - {to: 192.168.20.0/24, via: 192.168.10.200}
      - {to: 10.10.0.0/16, via: 192.168.10.200}
  b:
    role: host
    interfaces:
      eth1: {network: right, address: 192.168.20.100/24}
    routes:
      - {to: 192.168.10.0/24, via: 192.168.20.200}
`

var labs atomic.Int32

// Name returns a lab name that no other test has.
func Name() string { return fmt.Sprintf("t-%d-%d", os.Getpid(), labs.Add(1)) }

// Load loads a topology's text under another name, after replacing in it: pairs
// of old and new, as in strings.NewReplacer. Each old text must be there.
func Load(tb testing.TB, name, text string, replace ...string) *topo.Topology {
	tb.Helper()
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			tb.Fatalf("the topology has no %q to replace", replace[i])
		}
	}
	text = strings.NewReplacer(append(replace, "name: LAB", "name: "+name)...).Replace(text)
	t, err := topo.Load("lab.yaml", strings.NewReader(text))
	if err != nil {
		tb.Fatal(err)
	}
	return t
}
