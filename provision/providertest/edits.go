package providertest

import (
	"slices"
	"strings"
	"testing"
)

// edit is a change of the file.
type edit struct {
	name    string
	replace []string
	// touched are the nodes that may change, and tables what differs there: old and new lines.
	touched []string
	tables  map[string][]string
}

func edits() []edit {
	return []edit{
		{"an address", []string{"address: 192.168.20.100/24", "address: 192.168.20.101/24"}, []string{"b"},
			map[string][]string{"b": {"192.168.20.100", "192.168.20.101"}}},
		{"the MTU of a network", []string{"right: {cidr: 192.168.20.0/24, mtu: 1400}", "right: {cidr: 192.168.20.0/24, mtu: 1300}"},
			[]string{"b", "router"}, map[string][]string{"b": {"eth1 mtu 1400", "eth1 mtu 1300"}, "router": {"eth2 mtu 1400", "eth2 mtu 1300"}}},
		{"the MTU of an interface", []string{"{network: left, address: 192.168.10.100/24}", "{network: left, address: 192.168.10.100/24, mtu: 1280}"},
			[]string{"a"}, map[string][]string{"a": {"eth1 mtu 1500", "eth1 mtu 1280"}}},
		{"a route removed", []string{"      - {to: 10.10.0.0/16, via: 192.168.10.200}\n", ""}, []string{"a"},
			map[string][]string{"a": {"10.10.0.0/16 via 192.168.10.200 dev eth1 proto static\n", ""}}},
		{"a route's next hop", []string{"{to: 10.10.0.0/16, via: 192.168.10.200}", "{to: 10.10.0.0/16, via: 192.168.10.201}"}, []string{"a"},
			map[string][]string{"a": {"10.10.0.0/16 via 192.168.10.200", "10.10.0.0/16 via 192.168.10.201"}}},
		{"two next hops", []string{"{to: 10.10.0.0/16, via: 192.168.10.200}", "{to: 10.10.0.0/16, via: [192.168.10.200, 192.168.10.201]}"}, []string{"a"},
			map[string][]string{"a": {"10.10.0.0/16 via 192.168.10.200 dev eth1 proto", "10.10.0.0/16 nexthop 192.168.10.200 eth1 nexthop 192.168.10.201 eth1 proto"}}},
		{"an interface removed", []string{"      loop1: {type: dummy, address: 10.10.1.200/24}\n", ""}, []string{"router"},
			map[string][]string{"router": {"loop1 mtu 1500 inet 10.10.1.200/24\n", "", "10.10.1.0/24 dev loop1 proto kernel scope link src 10.10.1.200\n", ""}}},
		{"another network", []string{"{network: left, address: 192.168.10.201/24}", "{network: right, address: 192.168.20.201/24}"}, []string{"second"},
			map[string][]string{"second": {"eth1 mtu 1500", "eth1 mtu 1400", "192.168.10.", "192.168.20."}}},
		{"a veth instead of a dummy", []string{"loop1: {type: dummy, address: 10.10.1.200/24}", "loop1: {network: third, address: 10.10.1.200/24}",
			"networks:\n", "networks:\n  third: {cidr: 10.10.1.0/24}\n"}, []string{"router"}, map[string][]string{}},
		{"a network's name", []string{"  right: {", "  wrong: {", "network: right", "network: wrong"}, []string{"b", "router"}, map[string][]string{}},
	}
}

// testEdits changes the file, and wants that very change and no other.
func testEdits(t *testing.T, b *bench) {
	if b.subject.Fixed {
		b.edited(together("an address", "the MTU of a network", "the MTU of an interface", "two next hops", "an interface removed"))
		return
	}
	for _, e := range edits() {
		t.Run(strings.ReplaceAll(e.name, " ", "-"), func(t *testing.T) { newBench(t, b.subject).edited(e) })
	}
}

// together joins edits that do not touch the same lines.
func together(names ...string) edit {
	all := edit{name: "together", tables: map[string][]string{}}
	for _, e := range edits() {
		if !slices.Contains(names, e.name) {
			continue
		}
		all.replace = append(all.replace, e.replace...)
		all.touched = append(all.touched, e.touched...)
		for node, lines := range e.tables {
			all.tables[node] = append(all.tables[node], lines...)
		}
	}
	return all
}

// edited makes the edit, and takes it back.
func (b *bench) edited(e edit) {
	b.t.Helper()
	b.up(b.load())
	lab := b.load(e.replace...)
	b.wantTouched(b.up(lab), e.touched)
	want := wantTables()
	for node, lines := range e.tables {
		want[node] = strings.NewReplacer(lines...).Replace(want[node])
	}
	b.wantTables(want)
	if got := b.up(lab); len(got) > 0 {
		b.t.Errorf("again changed:\n%s", strings.Join(got, "\n"))
	}
	// And back.
	b.wantTouched(b.up(b.load()), e.touched)
	b.wantTables(wantTables())
	if got := b.up(b.load()); len(got) > 0 {
		b.t.Errorf("back again changed:\n%s", strings.Join(got, "\n"))
	}
}

// wantTouched looks at which nodes the changes name. A file of every node may
// change with an address: hosts, and that of known hosts.
func (b *bench) wantTouched(changes, nodes []string) {
	b.t.Helper()
	b.t.Logf("changes:\n%s", strings.Join(changes, "\n"))
	seen := map[string]bool{}
	for _, c := range changes {
		node, rest, ok := strings.Cut(c, ": ")
		if !ok || node == "" || strings.HasPrefix(rest, "changed ") && strings.HasSuffix(rest, "hosts") {
			continue
		}
		seen[node] = true
		if !slices.Contains(nodes, node) {
			b.t.Errorf("%s: only %v should have changed", c, nodes)
		}
	}
	for _, n := range nodes {
		if !seen[n] {
			b.t.Errorf("no change of %s is told", n)
		}
	}
}

// fault is what a hand breaks.
type fault struct{ node, command string }

func faults() []fault {
	return []fault{
		{"a", "ip route del 10.10.0.0/16"},
		{"a", "ip route add 172.16.0.0/12 via 192.168.10.200"},
		{"a", "ip route add blackhole 192.0.2.0/24"},
		{"a", "ip route replace 10.10.0.0/16 via 192.168.10.200 mtu 1000 proto static"},
		{"a", "ip route add 10.10.0.0/24 dev eth1"},
		{"a", "ip route del default"},
		{"a", "ip route del 192.168.10.0/24"},
		{"a", "ip route flush table main"},
		{"a", "ip addr add 192.168.10.99/24 dev eth1"},
		{"a", "ip addr del 192.168.10.100/24 dev eth1"},
		{"a", "ip addr flush dev eth1"},
		{"a", "ip addr flush dev eth1; ip addr add 192.168.10.99/24 dev eth1; ip addr add 192.168.10.100/24 dev eth1"},
		{"a", "ip addr add 10.9.9.9 peer 10.9.9.8/32 dev eth1"},
		{"a", "ip link set eth1 down"},
		{"a", "ip link set eth0 down"},
		{"a", "ip link set lo down"},
		{"a", "ip link set eth1 mtu 1000"},
		{"a", "ip link set eth1 address 02:00:00:00:00:99"},
		{"a", "ip link set eth1 alias mine"},
		{"a", "ip link del eth1"},
		{"a", "ip link del eth1; ip link add eth1 type bridge"},
		{"a", "ip link set eth1 down; ip link set eth1 name other"},
		{"a", "ip neigh del 10.0.2.2 dev eth0"},
		{"router", "ip link del loop1"},
		{"router", "ip link set loop1 down"},
	}
}

// fixedFaults are those that a machine survives which is reached by its eth0,
// several at a time.
func fixedFaults() [][]fault {
	return [][]fault{
		{
			{"a", "ip route del 10.10.0.0/16; ip route add 172.16.0.0/12 via 192.168.10.200; ip route add 10.10.0.0/24 dev eth1"},
			{"router", "ip link del loop1; ip addr del 192.168.20.200/24 dev eth2"},
		},
		{
			{"a", "ip route replace 10.10.0.0/16 via 192.168.10.200 mtu 1000 proto static; ip route del 192.168.10.0/24"},
			{"router", "ip link set loop1 down"},
		},
		{{"a", "ip addr flush dev eth1; ip addr add 192.168.10.99/24 dev eth1; ip link set eth1 mtu 1000"}},
		{{"a", "ip link set eth1 down"}},
	}
}

// rounds are the faults that are made together.
func (b *bench) rounds() [][]fault {
	if b.subject.Fixed {
		return fixedFaults()
	}
	var each [][]fault
	for _, f := range faults() {
		each = append(each, []fault{f})
	}
	return each
}

// testDrift breaks the lab by hand, and wants it whole after the next ensure.
func testDrift(t *testing.T, b *bench) {
	b.up(b.load())
	for _, faults := range b.rounds() {
		for _, fault := range faults {
			output(t, b.node(fault.node), "sh", "-c", fault.command)
		}
		changes := b.up(b.load())
		t.Logf("%v\n  %s", faults, strings.Join(changes, "\n  "))
		for _, fault := range faults {
			if !slices.ContainsFunc(changes, func(c string) bool { return strings.HasPrefix(c, fault.node+": ") }) {
				t.Errorf("%v: not mended", fault)
			}
		}
		b.wantTables(wantTables())
		if got := b.up(b.load()); len(got) > 0 {
			t.Errorf("%v: a second time changed:\n%s", faults, strings.Join(got, "\n"))
		}
		if out, err := b.ping(b.node("router"), "192.168.10.100"); err != nil {
			t.Errorf("%v: the link does not carry:\n%s", faults, out)
		}
	}
	// What the lab did not make is left alone.
	mine := "ip link add mine type bridge; ip link set mine up; ip addr add 10.7.7.7/24 dev mine; ip route add 10.8.0.0/16 via 192.168.10.200 proto 108"
	output(t, b.node("a"), "sh", "-c", mine)
	if got := b.up(b.load()); len(got) > 0 {
		t.Errorf("took away what is not the file's:\n%s", strings.Join(got, "\n"))
	}
	output(t, b.node("a"), "sh", "-c", "ip link del mine; ip route del 10.8.0.0/16")
}
