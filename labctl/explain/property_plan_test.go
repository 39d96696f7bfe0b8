//go:build linux

package explain

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// plan is a random network with the packet that is sent in it.
type plan struct {
	nodes        []nodePlan
	networks     int
	faults       []fault
	from         string
	to           netip.Addr
	size         int
	dontFragment bool
}

type nodePlan struct {
	name       string
	interfaces []iface
	routes     []routeLine
}

// iface is on a network, or on none (-1), behind which nobody answers.
type iface struct {
	name    string
	network int
	address netip.Prefix
}

type routeLine struct {
	to     netip.Prefix
	via    []netip.Addr
	metric int
	kind   int // unix.RTN_…; 0 for unicast
	table  int
}

func (r routeLine) String() string {
	return fmt.Sprintf("%v via %v metric %d type %d table %d", r.to, r.via, r.metric, r.kind, r.table)
}

// fault is something that goes wrong.
type fault struct {
	what string
	do   func(*network) error
}

func (p plan) String() string {
	var b strings.Builder
	for _, n := range p.nodes {
		fmt.Fprintf(&b, "\n%s:", n.name)
		for _, i := range n.interfaces {
			fmt.Fprintf(&b, " %s=%s@%d", i.name, i.address, i.network)
		}
		for _, r := range n.routes {
			fmt.Fprintf(&b, "\n  %s", r)
		}
	}
	for _, f := range p.faults {
		fmt.Fprintf(&b, "\nfault: %s", f.what)
	}
	return fmt.Sprintf("%s\n%s -> %s size %d df %v", b.String(), p.from, p.to, p.size, p.dontFragment)
}

// multipath says whether a route has several next hops.
func (p plan) multipath() bool {
	return slices.ContainsFunc(p.nodes, func(n nodePlan) bool {
		return slices.ContainsFunc(n.routes, func(r routeLine) bool { return len(r.via) > 1 })
	})
}

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// draw makes a plan: most routes are right, some are not there, some are wrong.
func draw(r *rand.Rand) plan {
	p := plan{networks: 1 + r.IntN(3), size: 84}
	for i := range 2 + r.IntN(3) {
		n := nodePlan{name: fmt.Sprintf("n%d", i)}
		for w := range p.networks {
			if w == i%p.networks || chance(r, 45) {
				n.interfaces = append(n.interfaces, iface{fmt.Sprintf("eth%d", w+1), w, prefixf("10.%d.0.%d/24", w+1, i+1)})
			}
		}
		n.interfaces = append(n.interfaces, iface{"lo", -1, prefixf("10.99.%d.1/32", i)})
		if chance(r, 40) {
			n.interfaces = append(n.interfaces, iface{"eth0", -1, prefixf("10.0.2.15/24")})
			n.routes = append(n.routes, routeLine{to: prefixf("0.0.0.0/0"), via: []netip.Addr{uplinkGateway}, metric: 100})
		}
		p.nodes = append(p.nodes, n)
	}
	for i := range p.nodes {
		p.drawRoutes(r, i)
	}
	sender := r.IntN(len(p.nodes))
	p.from = p.nodes[sender].name
	p.to = p.drawTarget(r, sender)
	if chance(r, 25) {
		p.size, p.dontFragment = 1000+r.IntN(501), chance(r, 60)
	}
	for range 1 + r.IntN(3) {
		p.faults = append(p.faults, p.drawFault(r))
	}
	return p
}

func prefixf(format string, args ...any) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, args...))
}

func (p *plan) drawTarget(r *rand.Rand, sender int) netip.Addr {
	other := (sender + 1 + r.IntN(len(p.nodes)-1)) % len(p.nodes)
	if chance(r, 8) {
		return netip.MustParseAddr(fmt.Sprintf("10.%d.0.77", 1+r.IntN(4)))
	}
	for {
		if i := pick(r, p.nodes[other].interfaces); i.name == "lo" || i.network >= 0 && chance(r, 60) {
			return i.address.Addr()
		}
	}
}

// drawRoutes gives a node routes to every prefix that it is not on.
func (p *plan) drawRoutes(r *rand.Rand, at int) {
	n := &p.nodes[at]
	for j, other := range p.nodes {
		for _, i := range other.interfaces {
			to := prefixf("10.99.%d.0/24", j)
			if i.network >= 0 {
				to = i.address.Masked()
			}
			on := slices.ContainsFunc(n.interfaces, func(own iface) bool { return own.network >= 0 && own.network == i.network })
			if j == at || on || i.name == "eth0" {
				continue
			}
			route := routeLine{to: to, metric: r.IntN(2) * 10}
			switch {
			case chance(r, 82):
				if via, ok := p.towards(at, j); ok {
					route.via = []netip.Addr{via}
				}
			case chance(r, 60):
				route.via = []netip.Addr{p.anyGateway(r, at)}
			}
			if len(route.via) > 0 {
				if chance(r, 8) {
					route.via = append(route.via, p.anyGateway(r, at))
				}
				n.routes = append(n.routes, route)
			}
		}
	}
}

// anyGateway is some address on one of the node's networks, mostly another node's.
func (p *plan) anyGateway(r *rand.Rand, at int) netip.Addr {
	var wired []iface
	for _, i := range p.nodes[at].interfaces {
		if i.network >= 0 {
			wired = append(wired, i)
		}
	}
	own := pick(r, wired)
	host := 1 + r.IntN(len(p.nodes))
	if host == at+1 {
		host = 77
	}
	return netip.MustParseAddr(fmt.Sprintf("10.%d.0.%d", own.network+1, host))
}

// towards is the next hop from one node to another by the fewest networks.
func (p *plan) towards(from, to int) (netip.Addr, bool) {
	type step struct {
		node  int
		first netip.Addr
	}
	seen := map[int]bool{from: true}
	for queue := []step{{node: from}}; len(queue) > 0; queue = queue[1:] {
		here := queue[0]
		for _, own := range p.nodes[here.node].interfaces {
			for j, other := range p.nodes {
				for _, i := range other.interfaces {
					if own.network < 0 || i.network != own.network || seen[j] {
						continue
					}
					next := step{j, here.first}
					if here.node == from {
						next.first = i.address.Addr()
					}
					if j == to {
						return next.first, true
					}
					seen[j] = true
					queue = append(queue, next)
				}
			}
		}
	}
	return netip.Addr{}, false
}

// drawFault is one of the catalogue, somewhere.
func (p *plan) drawFault(r *rand.Rand) fault {
	n := pick(r, p.nodes)
	var wired []iface
	for _, i := range n.interfaces {
		if i.network >= 0 {
			wired = append(wired, i)
		}
	}
	i := pick(r, wired)
	on := func(line string, args ...any) fault {
		line = fmt.Sprintf(line, args...)
		return fault{n.name + ": " + line, func(net *network) error {
			err := net.nodes[n.name].run(line)
			if err != nil && (strings.Contains(err.Error(), "File exists") || strings.Contains(err.Error(), "not found") || strings.Contains(err.Error(), "unreachable")) {
				return nil
			}
			return err
		}}
	}
	sysctl := func(name, value string) fault {
		return fault{n.name + ": " + name + "=" + value, func(net *network) error { net.nodes[n.name].sysctl(name, value); return nil }}
	}
	narrow := netip.PrefixFrom(p.to, 25+r.IntN(8)).Masked()
	kinds := []int{unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW, 0, 0, 0}
	route := routeLine{to: narrow, kind: pick(r, kinds)}
	if route.kind == 0 {
		route.via = []netip.Addr{p.anyGateway(r, slices.IndexFunc(p.nodes, func(o nodePlan) bool { return o.name == n.name }))}
	}
	switch r.IntN(20) {
	case 0:
		return on("ip link set %s down", i.name)
	case 1:
		return sysctl("net/ipv4/ip_forward", "0")
	case 2:
		return sysctl("net/ipv4/conf/"+i.name+"/forwarding", "0")
	case 3, 18, 19:
		return p.everywhere(r, pick(r, []string{"1", "1", "2"}))
	case 4, 5, 6:
		return fault{n.name + ": route " + route.String(), func(net *network) error { return net.nodes[n.name].route(route) }}
	case 7:
		return on("ip neigh replace 10.%d.0.%d lladdr 02:00:00:00:00:99 nud permanent dev %s", i.network+1, 1+r.IntN(4), i.name)
	case 8:
		return p.drawForeignNeighbour(r, n, i)
	case 9:
		return on("ip addr del %s dev %s", i.address, i.name)
	case 10:
		return on("ip link set %s mtu %d", i.name, 900+r.IntN(600))
	case 11:
		return on("ip rule add pref 100 to %s %s", narrow, pick(r, []string{"blackhole", "unreachable", "prohibit", "table 77"}))
	case 12:
		return on("ip rule add pref 100 from 10.0.0.0/8 iif %s lookup 77", i.name)
	case 13, 14:
		return p.drawFilter(r, n, i)
	case 16:
		return p.drawLoop()
	case 15:
		return sysctl("net/ipv4/icmp_echo_ignore_all", "1")
	}
	return fault{n.name + ": carrier of " + i.name + " lost", func(net *network) error { return net.cut(n.name, i.name) }}
}

// everywhere is a reverse path filter on all nodes, which most asymmetric ways meet.
func (p *plan) everywhere(r *rand.Rand, value string) fault {
	at, odd := r.IntN(len(p.nodes)), routeLine{to: prefixf("10.%d.0.%s/32", 1+r.IntN(p.networks), strings.TrimPrefix(p.from, "n"))}
	odd.to = netip.PrefixFrom(odd.to.Addr().Next(), 32)
	odd.via = []netip.Addr{p.anyGateway(r, at)}
	return fault{fmt.Sprintf("all: rp_filter=%s; %s: route %s", value, p.nodes[at].name, odd), func(net *network) error {
		_ = net.nodes[p.nodes[at].name].route(odd)
		for _, ns := range net.nodes {
			ns.sysctl("net/ipv4/conf/all/rp_filter", value)
		}
		return nil
	}}
}

// cut takes down the far end of a node's link.
func (n *network) cut(node, name string) error {
	near, err := n.nodes[node].nl.LinkByName(name)
	if err != nil {
		return err
	}
	far, err := n.fabric.nl.LinkByIndex(near.Attrs().ParentIndex)
	if err != nil {
		return err
	}
	return n.fabric.nl.LinkSetDown(far)
}

// drawLoop lets two nodes of one network send the packet to each other.
func (p *plan) drawLoop() fault {
	to := netip.PrefixFrom(p.to, 31).Masked()
	return fault{fmt.Sprintf("loop for %s", to), func(net *network) error {
		for a, n := range p.nodes {
			for b, o := range p.nodes {
				for _, i := range n.interfaces {
					at := slices.IndexFunc(o.interfaces, func(j iface) bool { return j.network == i.network && i.network >= 0 })
					if a < b && at >= 0 {
						_ = net.nodes[n.name].route(routeLine{to: to, via: []netip.Addr{o.interfaces[at].address.Addr()}})
						_ = net.nodes[o.name].route(routeLine{to: to, via: []netip.Addr{i.address.Addr()}})
					}
				}
			}
		}
		return nil
	}}
}

// drawForeignNeighbour takes one node's MAC address for another's.
func (p *plan) drawForeignNeighbour(r *rand.Rand, n nodePlan, i iface) fault {
	victim, thief := 1+r.IntN(len(p.nodes)), pick(r, p.nodes)
	return fault{fmt.Sprintf("%s: neighbour 10.%d.0.%d is %s", n.name, i.network+1, victim, thief.name), func(net *network) error {
		theirs, err := net.nodes[thief.name].nl.LinkByName(i.name)
		if err != nil || thief.name == n.name {
			return nil // it is not on that network
		}
		mine, err := net.nodes[n.name].nl.LinkByName(i.name)
		if err != nil {
			return err
		}
		return net.nodes[n.name].nl.NeighSet(&netlink.Neigh{LinkIndex: mine.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
			IP: netip.MustParseAddr(fmt.Sprintf("10.%d.0.%d", i.network+1, victim)).AsSlice(), HardwareAddr: theirs.Attrs().HardwareAddr})
	}}
}

// drawFilter is a firewall rule: with nft or with one of the two iptables.
func (p *plan) drawFilter(r *rand.Rand, n nodePlan, i iface) fault {
	hook := pick(r, []string{"prerouting", "input", "forward", "output", "postrouting"})
	match := pick(r, []string{"ip daddr " + p.to.String(), "ip saddr 10.0.0.0/8", "ip protocol icmp", "icmp type echo-reply", "iifname " + i.name, "ct state new", "ct state invalid", "ip saddr != 10.1.0.0/16", "tcp dport 80"})
	if strings.HasPrefix(match, "iif") && (hook == "output" || hook == "postrouting") {
		match = "oifname " + i.name
	}
	verdict := pick(r, []string{"drop", "drop", "counter drop", "accept"})
	table := "t" + hook // two faults may come together
	lines := []string{"nft add table ip " + table, "nft add chain ip " + table + " c { type filter hook " + hook + " priority 0 ; policy " + pick(r, []string{"accept", "accept", "drop"}) + " ; }",
		"nft add rule ip " + table + " c " + match + " " + verdict}
	if chance(r, 40) {
		chain := map[string]string{"input": "INPUT", "forward": "FORWARD", "output": "OUTPUT"}[hook]
		if chain == "" {
			chain = "FORWARD"
		}
		tool := pick(r, []string{"iptables-nft", "iptables-legacy"})
		lines = []string{tool + " -A " + chain + " " + pick(r, []string{"-p icmp", "-d " + p.to.String(), "-s 10.0.0.0/8", "-p icmp --icmp-type echo-reply", "-m conntrack --ctstate NEW", "! -d 10.99.0.0/16", "-p tcp --dport 80"}) + " -j " + pick(r, []string{"DROP", "REJECT", "ACCEPT"})}
		if chance(r, 30) {
			lines = append(lines, tool+" -P "+chain+" DROP")
		}
	}
	return fault{n.name + ": " + strings.Join(lines, "; "), func(net *network) error {
		for _, line := range lines {
			if err := net.nodes[n.name].run(line); err != nil {
				return err
			}
		}
		return nil
	}}
}
