//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/netip"
)

// The rules that kube-proxy writes for a number of services with three
// endpoints each. One service, in the middle, has the plain node's servers; the
// endpoints of the others are nowhere.

// rulesPort is the port of every service.
const rulesPort = 80

// rulesService is the ClusterIP of service i.
func rulesService(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 97, byte(i >> 8), byte(i)}) }

func rulesEndpoint(i, j, services int) netip.Addr {
	if i == services/2 {
		a := plainServer.As4()
		a[3] += byte(j)
		return netip.AddrFrom4(a)
	}
	return elsewhere(i, j)
}

// elsewhere is the address of a backend that does not exist.
func elsewhere(i, j int) netip.Addr {
	k := i*serversPerLane + j
	return netip.AddrFrom4([4]byte{172, byte(24 + k>>16), byte(k >> 8), byte(k)})
}

// iptablesRules are those of kube-proxy's iptables mode, for iptables-restore.
func iptablesRules(services int) string {
	var chains, rules bytes.Buffer
	for i := range services {
		ip := rulesService(i)
		svc := fmt.Sprintf("KUBE-SVC-%016d", i)
		name := fmt.Sprintf(`-m comment --comment "default/service-%d cluster IP"`, i)
		fmt.Fprintf(&chains, ":%s - [0:0]\n", svc)
		fmt.Fprintf(&rules, "-A KUBE-SERVICES -d %s/32 -p tcp %s -m tcp --dport %d -j %s\n", ip, name, rulesPort, svc)
		fmt.Fprintf(&rules, "-A %s ! -s 172.20.0.0/16 -d %s/32 -p tcp %s -m tcp --dport %d -j KUBE-MARK-MASQ\n", svc, ip, name, rulesPort)
		for j, chance := range []string{"-m statistic --mode random --probability 0.33333333349 ", "-m statistic --mode random --probability 0.50000000000 ", ""} {
			sep := fmt.Sprintf("KUBE-SEP-%015d%d", i, j)
			endpoint := rulesEndpoint(i, j, services)
			about := fmt.Sprintf(`-m comment --comment "default/service-%d -> %s:%d"`, i, endpoint, connectPort)
			fmt.Fprintf(&chains, ":%s - [0:0]\n", sep)
			fmt.Fprintf(&rules, "-A %s %s %s-j %s\n", svc, about, chance, sep)
			fmt.Fprintf(&rules, "-A %s -s %s/32 %s -j KUBE-MARK-MASQ\n", sep, endpoint, about)
			fmt.Fprintf(&rules, "-A %s -p tcp %s -m tcp -j DNAT --to-destination %s:%d\n", sep, about, endpoint, connectPort)
		}
	}
	return `*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
` + chains.String() + `-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
` + rules.String() + `-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
`
}

// nftRules are those of kube-proxy's nftables mode, for nft -f: one verdict map
// from address, protocol and port to the service's chain.
func nftRules(services int) string {
	var chains, elements bytes.Buffer
	for i := range services {
		ip := rulesService(i)
		fmt.Fprintf(&elements, "    %s . tcp . %d : goto service-%d,\n", ip, rulesPort, i)
		for j := range serversPerLane {
			endpoint := rulesEndpoint(i, j, services)
			fmt.Fprintf(&chains, "  chain endpoint-%d-%d {\n    ip saddr %s jump mark-for-masquerade\n    meta l4proto tcp dnat to %s:%d\n  }\n",
				i, j, endpoint, endpoint, connectPort)
		}
		fmt.Fprintf(&chains, "  chain service-%d {\n    ip daddr %s tcp dport %d ip saddr != 172.20.0.0/16 jump mark-for-masquerade\n"+
			"    numgen random mod 3 vmap { 0 : goto endpoint-%d-0, 1 : goto endpoint-%d-1, 2 : goto endpoint-%d-2 }\n  }\n", i, ip, rulesPort, i, i, i)
	}
	return fmt.Sprintf(nftTable, chains.String(), elements.String())
}

const nftTable = `table ip kube-proxy {
  chain mark-for-masquerade {
    meta mark set meta mark or 0x4000
  }
  chain masquerading {
    meta mark & 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }
%s  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {
%s    }
  }
  map service-nodeports {
    type inet_proto . inet_service : verdict
  }
  set nodeport-ips {
    type ipv4_addr
    elements = { 192.168.10.100 }
  }
  map no-endpoint-services {
    type ipv4_addr . inet_proto . inet_service : verdict
  }
  chain service-endpoints-check {
    ip daddr . meta l4proto . th dport vmap @no-endpoint-services
  }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain filter-forward {
    type filter hook forward priority -110; policy accept;
    ct state new jump service-endpoints-check
  }
  chain nat-prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }
  chain nat-output {
    type nat hook output priority -100; policy accept;
    jump services
  }
  chain nat-postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    jump masquerading
  }
}
`
