//go:build linux

package tables

import (
	"encoding/json"
	"net/netip"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
	"github.com/native-routing/labctl/agent/rtnl"
)

// ipLink and ipRoute are what `ip -j` prints of a link and of a route.
type ipLink struct {
	Index     int      `json:"ifindex"`
	Name      string   `json:"ifname"`
	Alias     string   `json:"ifalias"`
	MAC       string   `json:"address"`
	MTU       int      `json:"mtu"`
	Flags     []string `json:"flags"`
	Addresses []struct {
		Local  netip.Addr `json:"local"`
		Length int        `json:"prefixlen"`
	} `json:"addr_info"`
	Info struct {
		Kind string `json:"info_kind"`
	} `json:"linkinfo"`
}

type ipRoute struct {
	Type     string     `json:"type"`
	To       string     `json:"dst"`
	Via      netip.Addr `json:"gateway"`
	Device   string     `json:"dev"`
	Protocol string     `json:"protocol"`
	Scope    string     `json:"scope"`
	Source   netip.Addr `json:"prefsrc"`
	Metric   int        `json:"metric"`
	Metrics  []struct {
		MTU int `json:"mtu"`
	} `json:"metrics"`
	Flags []string `json:"flags"`
	Hops  []struct {
		Via    netip.Addr `json:"gateway"`
		Device string     `json:"dev"`
		Weight int        `json:"weight"`
		Flags  []string   `json:"flags"`
	} `json:"nexthops"`
}

// busy is a namespace with one of each thing that the tables show.
func busy(t *testing.T) *nstest.Namespace {
	ns, peer := nstest.New(t), nstest.New(t)
	ns.Connect("eth1", peer, "p1")
	ns.Connect("eth2", peer, "p2")
	ns.Connect("eth3", peer, "p3")
	peer.IP("addr add 192.168.10.200/24 dev p1")
	for _, line := range []string{
		"addr add 192.168.10.100/24 dev eth1",
		"addr add 192.168.11.100/24 dev eth1",
		"addr add 192.168.20.100/24 dev eth2",
		"addr add 192.168.30.100/24 dev eth3",
		"link set eth2 mtu 1400 alias labctl:test",
		"link add loop1 type ifb",
		"addr add 10.10.1.200/24 dev loop1",
		"route add default via 192.168.10.1 dev eth1 proto dhcp src 192.168.10.100 metric 100",
		"route add 172.20.0.0/16 via 192.168.10.200 proto static",
		"route add 172.20.1.0/24 via 192.168.10.101 dev eth1 proto 108",
		"route add 172.21.0.0/16 proto bgp metric 20 mtu 1450 nexthop via 192.168.10.200 weight 1 nexthop via 192.168.20.200 weight 3",
		"route add 10.99.0.0/16 via 192.168.30.1",
		"route add blackhole 172.22.0.0/16",
		"route add unreachable 172.23.0.0/16 metric 7",
		"route add prohibit 172.24.0.0/16",
		"route add throw 172.25.0.0/16",
		"neigh add 192.168.10.7 lladdr 02:00:00:00:00:07 dev eth1 nud permanent",
		"neigh add 192.168.10.8 lladdr 02:00:00:00:00:08 dev eth1 nud stale",
		"link set eth3 up",
		"link add tunnel type vxlan id 7 dstport 8472 local 192.168.10.100 nolearning",
		"link set tunnel up",
		"route add 172.26.0.0/16 via 172.26.0.1 dev tunnel onlink mtu 1450",
	} {
		ns.IP(line)
	}
	ns.Run("bridge", "fdb", "add", "02:00:00:00:00:26", "dev", "tunnel", "dst", "192.168.10.101")
	peer.IP("link set p3 down")
	ns.Run("sh", "-c", "cd /proc/sys/net/ipv4; echo 1 > ip_forward; echo 0 > conf/eth2/forwarding; echo 2 > conf/eth1/rp_filter; echo 1 > conf/all/rp_filter")
	_ = ns.Command(t.Context(), "ping", "-c1", "-W1", "192.168.10.200").Run()
	return ns
}

func open(t *testing.T, ns *nstest.Namespace) *Reader {
	t.Helper()
	r, err := Open(ns.Handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func decode[T any](t *testing.T, ns *nstest.Namespace, args string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(ns.IP(args)), &v); err != nil {
		t.Fatalf("ip %s: %v", args, err)
	}
	return v
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		a, _ := json.MarshalIndent(got, "", " ")
		b, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("%s:\n%s\nip says:\n%s", what, a, b)
	}
}

func TestTablesAgreeWithIP(t *testing.T) {
	ns := busy(t)
	got, err := open(t, ns).Read()
	if err != nil {
		t.Fatal(err)
	}

	filters := map[string]int{"lo": 1, "eth1": 2, "eth2": 1, "eth3": 1, "loop1": 1}
	var links []api.Link
	for _, l := range decode[[]ipLink](t, ns, "-d -j -4 addr show") {
		links = append(links, l.tables(filters))
	}
	// ip -4 addr lists only links that have an IPv4 address.
	have := slices.DeleteFunc(slices.Clone(got.Links), func(l api.Link) bool { return len(l.Addresses) == 0 })
	same(t, "links", have, links)
	for _, l := range got.Links {
		switch {
		case l.Name == "lo" && l.MAC != "00:00:00:00:00:00", l.Name == "eth1" && len(l.MAC) != 17:
			t.Errorf("%s has MAC %q", l.Name, l.MAC)
		}
	}
	if !got.Forwarding {
		t.Error("forwarding is on, and not seen")
	}

	var routes []api.Route
	for _, r := range decode[[]ipRoute](t, ns, "-d -j -4 route show") {
		routes = append(routes, r.tables())
	}
	same(t, "routes", got.Routes, routes)

	type ipNeighbour struct {
		To     netip.Addr `json:"dst"`
		Device string     `json:"dev"`
		MAC    string     `json:"lladdr"`
		State  []string   `json:"state"`
	}
	var neighbours []api.Neighbour
	for _, n := range decode[[]ipNeighbour](t, ns, "-j -4 neigh show") {
		neighbours = append(neighbours, api.Neighbour{Address: n.To, Device: n.Device, MAC: n.MAC,
			State: strings.ToLower(strings.Join(n.State, ","))})
	}
	slices.SortFunc(neighbours, func(a, b api.Neighbour) int { return a.Address.Compare(b.Address) })
	same(t, "neighbours", got.Neighbours, neighbours)
	if len(got.Neighbours) != 3 {
		t.Errorf("%d neighbours, want 3", len(got.Neighbours))
	}
}

// The far ends of a tunnel, as bridge-fdb(8) has them too.
func TestForwardsAgreeWithBridge(t *testing.T) {
	ns := busy(t)
	got, err := open(t, ns).Read()
	if err != nil {
		t.Fatal(err)
	}
	var entries []struct {
		Device string     `json:"ifname"`
		MAC    string     `json:"mac"`
		Remote netip.Addr `json:"dst"`
		State  string     `json:"state"`
	}
	if err := json.Unmarshal([]byte(ns.Run("bridge", "-j", "fdb", "show", "dev", "tunnel")), &entries); err != nil {
		t.Fatal(err)
	}
	var forwards []api.Forward
	for _, e := range entries {
		e.Device = "tunnel" // which bridge leaves out when it is asked for one
		forwards = append(forwards, api.Forward(e))
	}
	same(t, "forwards", got.Forwards, forwards)
	for _, l := range got.Links {
		var want *api.VXLAN
		if l.Name == "tunnel" {
			want = &api.VXLAN{VNI: 7, Port: 8472, Local: netip.MustParseAddr("192.168.10.100")}
		}
		same(t, l.Name, l.VXLAN, want)
	}
}

func (l ipLink) tables(filters map[string]int) api.Link {
	link := api.Link{
		Index: l.Index, Name: l.Name, Kind: l.Info.Kind, Alias: l.Alias, MAC: l.MAC, MTU: l.MTU,
		Up:         slices.Contains(l.Flags, "UP"),
		Carrier:    slices.Contains(l.Flags, "LOWER_UP"),
		Forwarding: l.Name != "eth2",
		RPFilter:   filters[l.Name],
	}
	for _, a := range l.Addresses {
		link.Addresses = append(link.Addresses, netip.PrefixFrom(a.Local, a.Length))
	}
	return link
}

func (r ipRoute) tables() api.Route {
	protocol := r.Protocol
	if protocol == "108" {
		protocol = "labctl" // the machine's own rt_protos does not know it
	}
	route := api.Route{Type: r.Type, ProtocolName: protocol, Scope: r.Scope, Source: r.Source, Metric: r.Metric}
	for number := range 256 {
		if rtnl.ProtocolName(number) == protocol {
			route.Protocol = number
		}
	}
	switch {
	case r.To == "default":
		route.To = netip.MustParsePrefix("0.0.0.0/0")
	case strings.Contains(r.To, "/"):
		route.To = netip.MustParsePrefix(r.To)
	default:
		route.To = netip.PrefixFrom(netip.MustParseAddr(r.To), 32)
	}
	if len(r.Metrics) > 0 {
		route.MTU = r.Metrics[0].MTU
	}
	if r.Device != "" {
		route.NextHops = []api.NextHop{{Via: r.Via, Device: r.Device, OnLink: slices.Contains(r.Flags, "onlink"),
			LinkDown: slices.Contains(r.Flags, "linkdown"), Dead: slices.Contains(r.Flags, "dead")}}
	}
	for _, hop := range r.Hops {
		route.NextHops = append(route.NextHops, api.NextHop{Via: hop.Via, Device: hop.Device, Weight: hop.Weight,
			LinkDown: slices.Contains(hop.Flags, "linkdown"), Dead: slices.Contains(hop.Flags, "dead")})
	}
	return route
}

func TestLookupAgreesWithIP(t *testing.T) {
	ns := busy(t)
	ns.IP("route del default")
	addr := netip.MustParseAddr
	queries := []api.Lookup{
		{To: addr("192.168.10.101")},
		{To: addr("192.168.10.100")}, // its own
		{To: addr("192.168.10.255")}, // broadcast
		{To: addr("172.20.1.5")},
		{To: addr("172.20.2.5")},
		{To: addr("172.20.2.5"), From: addr("192.168.20.100")},
		{To: addr("172.20.2.5"), From: addr("9.9.9.9")}, // not its own
		{To: addr("172.22.0.1")},                        // blackhole
		{To: addr("172.23.0.1")},                        // unreachable
		{To: addr("172.24.0.1")},                        // prohibit
		{To: addr("172.25.0.1")},                        // throw, and no default
		{To: addr("8.8.8.8")},
		{To: addr("172.21.0.9"), From: addr("192.168.10.100")}, // with an MTU
	}
	got, err := open(t, ns).Lookup(queries)
	if err != nil {
		t.Fatal(err)
	}
	for i, q := range queries {
		argv := []string{"ip", "-j", "-4", "route", "get", q.To.String()}
		if q.From.IsValid() {
			argv = append(argv, "from", q.From.String())
		}
		out, err := ns.Command(t.Context(), argv...).Output()
		if err != nil {
			said := strings.TrimPrefix(strings.TrimSpace(string(err.(*exec.ExitError).Stderr)), "RTNETLINK answers: ")
			same(t, strings.Join(argv, " "), got[i], api.Decision{Error: strings.ToLower(said)})
			continue
		}
		var routes []ipRoute
		if err := json.Unmarshal(out, &routes); err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
		r := routes[0]
		want := api.Decision{Type: "unicast", Via: r.Via, Device: r.Device, Source: r.Source}
		if r.Type != "" {
			want.Type = r.Type
		}
		if q.From.IsValid() {
			want.Source = q.From
		}
		if len(r.Metrics) > 0 {
			want.MTU = r.Metrics[0].MTU
		}
		if q.To == addr("172.21.0.9") { // the hash chooses the next hop: any of the two
			want.Via, want.Device = got[i].Via, got[i].Device
		}
		same(t, strings.Join(argv, " "), got[i], want)
	}
}
