package topo_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/native-routing/labctl/topologies/topo"
)

// A session has two ends that agree on who calls whom, and from where.
func TestBGPSessions(t *testing.T) {
	const file = `
apiVersion: labctl/v1
kind: Topology
metadata: {name: speakers}
networks:
  left: {cidr: 192.168.10.0/24}
  right: {cidr: 192.168.20.0/24}
nodes:
  router:
    role: router
    interfaces:
      eth1: {network: left, address: 192.168.10.200/24}
      eth2: {network: right, address: 192.168.20.200/24}
    bgp: {asn: 65000}
  a:
    role: host
    interfaces: {eth1: {network: left, address: 192.168.10.1/24}}
    bgp: {asn: 65001, neighbors: [192.168.10.200, 192.168.10.2]}
  b:
    role: host
    interfaces: {eth1: {network: left, address: 192.168.10.2/24}}
    bgp: {asn: 65002, neighbors: [192.168.10.1]}
  c:
    role: host
    interfaces: {eth1: {network: right, address: 192.168.20.3/24}}
    bgp: {asn: 65001, neighbors: [192.168.20.200]}
  silent:
    role: host
    interfaces: {eth1: {network: right, address: 192.168.20.4/24}}
`
	lab, err := topo.Load("speakers.yaml", strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	want := `router: a AS 65001 192.168.10.1 from 192.168.10.200 waits
router: c AS 65001 192.168.20.3 from 192.168.20.200 waits
a: router AS 65000 192.168.10.200 from 192.168.10.1 calls
a: b AS 65002 192.168.10.2 from 192.168.10.1 waits
b: a AS 65001 192.168.10.1 from 192.168.10.2 calls
c: router AS 65000 192.168.20.200 from 192.168.20.3 calls
`
	var got strings.Builder
	for _, node := range lab.Nodes.Names() {
		for _, s := range lab.BGPSessions(node) {
			does := "calls"
			if s.Passive {
				does = "waits"
			}
			fmt.Fprintf(&got, "%s: %s AS %d %s from %s %s\n", node, s.Peer, s.ASN, s.Address, s.Local, does)
		}
	}
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
}
