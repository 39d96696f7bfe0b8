//go:build linux

package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// TestPlan: what the maps of node w1 hold, line by line.
func TestPlan(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	nat := addr("10.0.2.15") // each node's eth0 has it
	state := api.State{
		Node: "w1",
		Pods: &api.PodNetwork{CIDR: prefix("172.20.1.0/24"), Gateway: addr("172.20.1.1")},
		Underlay: api.Underlay{Links: []api.UnderlayLink{
			{Name: "eth0", Addresses: []netip.Prefix{prefix("10.0.2.15/24")}},
			{Name: "eth1", Addresses: []netip.Prefix{prefix("192.168.10.101/24"), prefix("192.168.10.111/24")}},
			{Name: "loop1", Addresses: []netip.Prefix{prefix("10.10.1.1/24")}},
			{Name: "eth9", Addresses: []netip.Prefix{prefix("192.168.99.1/24")}},
		}},
		Cluster: &api.Cluster{
			Nodes: []api.Node{
				{Name: "ctr", Address: addr("192.168.10.100"), PodCIDR: prefix("172.20.0.0/24"), Gateway: addr("172.20.0.1"), ControlPlane: true, Addresses: []netip.Addr{nat, addr("192.168.10.100")}},
				{Name: "w1", Address: addr("192.168.10.101"), PodCIDR: prefix("172.20.1.0/24"), Gateway: addr("172.20.1.1"), Addresses: []netip.Addr{nat, addr("192.168.10.101")}},
				{Name: "w0", Address: addr("192.168.20.100"), PodCIDR: prefix("172.20.2.0/24"), Gateway: addr("172.20.2.1"), Addresses: []netip.Addr{nat, addr("192.168.20.100")}},
			},
			Pods: []api.Pod{
				{Namespace: "default", Name: "far", Node: "w0", Address: addr("172.20.2.7"), Identity: 300},
				{Namespace: "default", Name: "near", Node: "w1", Address: addr("172.20.1.7"), Identity: 301},
			},
		},
	}
	seen := network{
		devices: map[string]device{
			"eth0": {index: 2}, "eth1": {index: 3}, "loop1": {index: 4, virtual: true},
			"lxcnear": {index: 70, mac: [6]byte{2, 0, 0, 0, 0, 2}},
		},
		pods: []api.PodStatus{
			{Namespace: "default", Name: "near", Address: addr("172.20.1.7"), Identity: 301, Endpoint: 17, Device: "lxcnear", Index: 69, MAC: "02:00:00:00:00:01", DeviceMAC: "02:00:00:00:00:09"},
			{Namespace: "default", Name: "ending", Address: addr("172.20.1.8"), Identity: 302, Endpoint: 16, Device: "lxcending", Index: 60, MAC: "02:00:00:00:00:03", DeviceMAC: "02:00:00:00:00:04", Phase: api.PodTerminating},
			{Namespace: "default", Name: "heir", Address: addr("172.20.1.8"), Identity: 303, Endpoint: 18, Device: "lxcheir", Index: 61, MAC: "02:00:00:00:00:05", DeviceMAC: "02:00:00:00:00:06"},
			{Namespace: "default", Name: "unborn", Address: addr("172.20.1.9"), Identity: 304, Endpoint: 19, Device: "lxcunborn"},
		},
	}
	got, err := plan(state, seen, 1024)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for id, e := range got.endpoints {
		lines = append(lines, fmt.Sprintf("endpoint %2d %s dev %d mac %x host %x identity %d flags %d", id, bpf.Addr(e.Addr), e.Ifindex, e.Mac, e.HostMac, e.Identity, e.Flags))
	}
	for a, id := range got.addresses {
		lines = append(lines, fmt.Sprintf("address %s -> %d", bpf.Addr(a), id))
	}
	for index, d := range got.devices {
		lines = append(lines, fmt.Sprintf("device %d %s", index, bpf.Addr(d.Addr)))
	}
	for p, r := range got.ipcache {
		lines = append(lines, fmt.Sprintf("ipcache %s/%d identity=%d node=%s flags=%d", bpf.Addr(p.Addr), p.Bits, r.Identity, bpf.Addr(r.Node), r.Flags))
	}
	slices.Sort(lines)
	want := strings.TrimSpace(`
address 10.0.2.15 -> 3
address 10.10.1.1 -> 5
address 172.20.1.1 -> 1
address 172.20.1.7 -> 17
address 172.20.1.8 -> 18
address 192.168.10.101 -> 2
address 192.168.10.111 -> 4
address 192.168.99.1 -> 6
device 2 10.0.2.15
device 3 192.168.10.101
endpoint  1 172.20.1.1 dev 0 mac 000000000000 host 000000000000 identity 1 flags 1
endpoint  2 192.168.10.101 dev 0 mac 000000000000 host 000000000000 identity 1 flags 1
endpoint  3 10.0.2.15 dev 0 mac 000000000000 host 000000000000 identity 1 flags 1
endpoint  4 192.168.10.111 dev 0 mac 000000000000 host 000000000000 identity 1 flags 1
endpoint  5 10.10.1.1 dev 0 mac 000000000000 host 000000000000 identity 1 flags 1
endpoint  6 192.168.99.1 dev 0 mac 000000000000 host 000000000000 identity 1 flags 1
endpoint 16 172.20.1.8 dev 60 mac 020000000003 host 020000000004 identity 302 flags 0
endpoint 17 172.20.1.7 dev 70 mac 020000000001 host 020000000002 identity 301 flags 0
endpoint 18 172.20.1.8 dev 61 mac 020000000005 host 020000000006 identity 303 flags 0
ipcache 0.0.0.0/0 identity=2 node=0.0.0.0 flags=0
ipcache 10.0.2.15/32 identity=1 node=0.0.0.0 flags=0
ipcache 10.10.1.1/32 identity=1 node=0.0.0.0 flags=0
ipcache 172.20.0.0/24 identity=2 node=192.168.10.100 flags=2
ipcache 172.20.0.1/32 identity=7 node=192.168.10.100 flags=2
ipcache 172.20.1.1/32 identity=1 node=0.0.0.0 flags=0
ipcache 172.20.1.7/32 identity=301 node=0.0.0.0 flags=0
ipcache 172.20.1.8/32 identity=303 node=0.0.0.0 flags=0
ipcache 172.20.1.9/32 identity=304 node=0.0.0.0 flags=0
ipcache 172.20.2.0/24 identity=2 node=192.168.20.100 flags=2
ipcache 172.20.2.1/32 identity=6 node=192.168.20.100 flags=2
ipcache 172.20.2.7/32 identity=300 node=192.168.20.100 flags=2
ipcache 192.168.10.100/32 identity=7 node=0.0.0.0 flags=0
ipcache 192.168.10.101/32 identity=1 node=0.0.0.0 flags=0
ipcache 192.168.10.111/32 identity=1 node=0.0.0.0 flags=0
ipcache 192.168.20.100/32 identity=6 node=0.0.0.0 flags=0
ipcache 192.168.99.1/32 identity=1 node=0.0.0.0 flags=0`)
	if diff := cmp.Diff(strings.Split(want, "\n"), lines); diff != "" {
		t.Error(diff)
	}
}

// TestManyAddresses: the sixteenth of the node's own and those after it are
// numbered from the end.
func TestManyAddresses(t *testing.T) {
	state := api.State{Node: "n", Cluster: &api.Cluster{}}
	for i := range 17 {
		state.Underlay.Links = append(state.Underlay.Links, api.UnderlayLink{
			Name:      fmt.Sprintf("loop%d", i),
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 32)},
		})
	}
	got, err := plan(state, network{}, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range map[byte]uint32{1: 1, 15: 15, 16: 1024, 17: 1023} {
		if e := got.endpoints[id]; bpf.Addr(e.Addr) != netip.AddrFrom4([4]byte{10, 0, 0, i}) {
			t.Errorf("endpoint %d is %s", id, bpf.Addr(e.Addr))
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		ReasonText(151): "Stale or unroutable IP", ReasonText(250): "250", PointText(11): "to-network", PointText(77): "77",
		DirectionText(2): "EGRESS", StateText(2): "reply",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if IsDrop(10) || !IsDrop(132) {
		t.Error("what is a drop?")
	}
}

func TestPinNames(t *testing.T) {
	for _, name := range []string{"to_netdev@eth0", "to_netdev@eth0.100", "from_pod@a%2eb.c"} {
		escaped := escapeName.Replace(name)
		if strings.Contains(escaped, ".") || unescapeName.Replace(escaped) != name {
			t.Errorf("%q becomes %q", name, escaped)
		}
	}
}
