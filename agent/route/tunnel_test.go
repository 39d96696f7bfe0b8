//go:build linux

package route

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
)

// tunnelled is the state of one of two nodes, .100 and .101, with a tunnel
// between them.
func tunnelled(own, other int) api.State {
	address := func(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("192.168.10.%d", n)) }
	gateway := func(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("172.20.%d.1", n)) }
	return api.State{Generation: "tunnel", Lab: "study", Node: fmt.Sprint(own), Pods: &api.PodNetwork{
		CIDR: netip.PrefixFrom(gateway(own), 24).Masked(), Gateway: gateway(own), MTU: 1500,
		Peers:   []api.Peer{{Name: fmt.Sprint(other), Address: address(other), CIDR: netip.PrefixFrom(gateway(other), 24).Masked(), Gateway: gateway(other)}},
		Overlay: &api.Overlay{VNI: 1, Port: 8472, Local: address(own), MTU: 1450},
	}}
}

// natively is the same without the tunnel.
func natively(s api.State) api.State {
	pods := *s.Pods
	pods.Overlay, pods.DirectRoutes = nil, true
	s.Pods, s.Generation = &pods, "native"
	return s
}

// tunnelEnds are two nodes on one link, each with its reconciler.
func tunnelEnds(t *testing.T) (a, b *nstest.Namespace, ra, rb *Reconciler) {
	t.Helper()
	a, b = nstest.New(t), nstest.New(t)
	a.Connect("eth1", b, "eth1")
	a.IP("addr add 192.168.10.100/24 dev eth1")
	b.IP("addr add 192.168.10.101/24 dev eth1")
	ra, rb = start(t, a, &sysctls{ns: a}), start(t, b, &sysctls{ns: b})
	ra.Set(tunnelled(100, 101))
	rb.Set(tunnelled(101, 100))
	until(t, ra, "settled", settled)
	until(t, rb, "settled", settled)
	return a, b, ra, rb
}

// Whatever a hand does to the tunnel is mended, and packets pass again.
func TestTunnelIsMended(t *testing.T) {
	a, _, r, _ := tunnelEnds(t)
	ping := []string{"ping", "-c1", "-W1", "-Mdo", "-s1422", "172.20.101.1"} // 1450 bytes with its headers
	a.Run(ping...)
	const device, peer = "labctl_vxlan", "0a:6c:ac:14:65:01"
	for _, fault := range []struct{ name, object, command string }{
		{"the device is deleted", device, "ip link delete labctl_vxlan"},
		{"the device is down", device, "ip link set labctl_vxlan down"},
		{"another MTU", device, "ip link set labctl_vxlan mtu 1400"},
		{"another MAC address", device, "ip link set labctl_vxlan address 02:00:00:00:00:01"},
		{"it learns from what comes in", device, "ip link set labctl_vxlan type vxlan id 1 learning"},
		{"the forwarding entry leads elsewhere", peer + " dev labctl_vxlan dst 192.168.10.101", "bridge fdb replace " + peer + " dev labctl_vxlan dst 192.168.10.77"},
		{"the forwarding entry is deleted", peer + " dev labctl_vxlan dst 192.168.10.101", "bridge fdb del " + peer + " dev labctl_vxlan"},
		{"another neighbour", "172.20.101.1 dev labctl_vxlan", "ip neigh replace 172.20.101.1 lladdr 02:00:00:00:00:01 dev labctl_vxlan nud permanent"},
		{"the neighbour is deleted", "172.20.101.1 dev labctl_vxlan", "ip neigh del 172.20.101.1 dev labctl_vxlan"},
		{"the route has no MTU", "172.20.101.0/24 via 172.20.101.1 dev labctl_vxlan", "ip route replace 172.20.101.0/24 via 172.20.101.1 dev labctl_vxlan onlink proto 108 src 172.20.100.1"},
	} {
		t.Run(fault.name, func(t *testing.T) {
			before := find(r.Status(), fault.object).Mended
			a.Run("sh", "-c", fault.command)
			until(t, r, "mended", func(s api.Status) bool {
				return s.Settled && find(s, fault.object).Mended > before
			})
			a.Run(ping...)
		})
	}
	extra := "02:00:00:00:00:09"
	a.Run("bridge", "fdb", "add", extra, "dev", device, "dst", "192.168.10.99")
	until(t, r, "the entry of nobody is gone", func(api.Status) bool {
		return !strings.Contains(a.Run("bridge", "fdb", "show", "dev", device), extra)
	})
}

// Leaving the tunnel leaves nothing of it, and there is a way to the peer at
// each moment of it.
func TestTunnelIsLeft(t *testing.T) {
	a, _, ra, rb := tunnelEnds(t)
	before := a.IP("route show 172.20.101.0/24")
	if want := "172.20.101.0/24 via 172.20.101.1 dev labctl_vxlan proto 108 src 172.20.100.1 onlink mtu 1450"; strings.TrimSpace(strings.ReplaceAll(before, "proto labctl", "proto 108")) != want {
		t.Errorf("ip route:\n%s\nwant:\n%s", before, want)
	}
	for round := range 5 {
		ra.Set(natively(tunnelled(100, 101)))
		rb.Set(natively(tunnelled(101, 100)))
		until(t, ra, "native", settled)
		until(t, rb, "native", settled)
		for _, left := range []string{"link show type vxlan", "neigh show nud permanent", "route show dev labctl_vxlan"} {
			out, err := a.Command(t.Context(), append([]string{"ip"}, strings.Fields(left)...)...).Output()
			if len(out) > 0 {
				t.Fatalf("round %d: ip %s: %s, %v", round, left, out, err)
			}
		}
		a.Run("ping", "-c1", "-W1", "-Mdo", "-s1472", "172.20.101.1")
		ra.Set(tunnelled(100, 101))
		rb.Set(tunnelled(101, 100))
		until(t, ra, "tunnelled", settled)
		until(t, rb, "tunnelled", settled)
	}
}

// A device of the name that is somebody else's stays his.
func TestTunnelIsForeign(t *testing.T) {
	ns := node(t)
	ns.IP("link add labctl_vxlan type bridge")
	r := start(t, ns, &sysctls{ns: ns})
	r.Set(tunnelled(100, 101))
	until(t, r, "refused", func(s api.Status) bool {
		return find(s, TunnelDevice).Condition == api.Refused
	})
	r.Set(api.State{Generation: "none"})
	until(t, r, "settled", settled)
	ns.IP("link show labctl_vxlan")
	ns.IP("link delete labctl_vxlan")

	// Another tunnel has the same number and port.
	ns.IP("link add other type vxlan id 1 dstport 8472 local 192.168.10.100 nolearning")
	ns.IP("link set other up")
	r.Set(tunnelled(100, 101))
	until(t, r, "failed", func(s api.Status) bool {
		o := find(s, TunnelDevice)
		return o.Condition == api.Failed && strings.Contains(o.Reason, "another device has VNI 1 on port 8472")
	})
	ns.IP("link delete other")
	until(t, r, "settled when it is gone", settled)
}
