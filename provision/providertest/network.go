package providertest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/native-routing/labctl/provision"
)

// tables is what ip says of a node's links, addresses and routes, one line each.
func tables(t *testing.T, n provision.Node) string {
	t.Helper()
	var links []struct {
		Name      string   `json:"ifname"`
		MTU       int      `json:"mtu"`
		Flags     []string `json:"flags"`
		Addresses []struct {
			Local  string `json:"local"`
			Bits   int    `json:"prefixlen"`
			Family string `json:"family"`
		} `json:"addr_info"`
	}
	decode(t, output(t, n, "ip", "-j", "addr"), &links)
	var lines []string
	for _, l := range links {
		line := fmt.Sprintf("%s mtu %d", l.Name, l.MTU)
		if !slices.Contains(l.Flags, "UP") {
			line += " down"
		}
		for _, a := range l.Addresses {
			line += fmt.Sprintf(" %s %s/%d", a.Family, a.Local, a.Bits)
		}
		lines = append(lines, line)
	}
	// Apart from lo, in the order of names: an interface that was made again has a new number.
	slices.Sort(lines)
	return strings.Join(append(lines, routeLines(t, n)...), "\n") + "\n"
}

func routeLines(t *testing.T, n provision.Node) []string {
	t.Helper()
	var routes []struct {
		To, Gateway, Dev, Protocol, Scope, PrefSrc string
		Metric                                     int
		Nexthops                                   []struct{ Gateway, Dev string }
	}
	// encoding/json matches names without regard to case; "dst" needs its own.
	text := strings.ReplaceAll(output(t, n, "ip", "-j", "route"), `"dst":`, `"to":`)
	decode(t, text, &routes)
	var lines []string
	for _, r := range routes {
		line := r.To
		if r.Gateway != "" {
			line += " via " + r.Gateway
		}
		if r.Dev != "" {
			line += " dev " + r.Dev
		}
		for _, h := range r.Nexthops {
			line += " nexthop " + h.Gateway + " " + h.Dev
		}
		line += " proto " + r.Protocol
		if r.Scope != "" {
			line += " scope " + r.Scope
		}
		if r.PrefSrc != "" {
			line += " src " + r.PrefSrc
		}
		if r.Metric != 0 {
			line += fmt.Sprintf(" metric %d", r.Metric)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// uplink is the same on every node.
const (
	uplinkAddress = "10.0.2.15"
	uplinkLink    = "eth0 mtu 1500 inet " + uplinkAddress + "/24\n"
	uplinkRoutes  = `10.0.2.0/24 dev eth0 proto kernel scope link src 10.0.2.15 metric 100
10.0.2.2 dev eth0 proto dhcp scope link src 10.0.2.15 metric 100
10.0.2.3 dev eth0 proto dhcp scope link src 10.0.2.15 metric 100
`
	uplinkDefault = "default via 10.0.2.2 dev eth0 proto dhcp src 10.0.2.15 metric 100\n"
	loopback      = "lo mtu 65536 inet 127.0.0.1/8\n"
)

// wantTables are those of the lab as it stands in the file.
func wantTables() map[string]string {
	return map[string]string{
		"router": uplinkLink + `eth1 mtu 1500 inet 192.168.10.200/24
eth2 mtu 1400 inet 192.168.20.200/24
` + loopback + `loop1 mtu 1500 inet 10.10.1.200/24
` + uplinkRoutes + `10.10.1.0/24 dev loop1 proto kernel scope link src 10.10.1.200
192.168.10.0/24 dev eth1 proto kernel scope link src 192.168.10.200
192.168.20.0/24 dev eth2 proto kernel scope link src 192.168.20.200
` + uplinkDefault,
		"second": uplinkLink + `eth1 mtu 1500 inet 192.168.10.201/24
` + loopback + uplinkRoutes + `192.168.10.0/24 dev eth1 proto kernel scope link src 192.168.10.201
` + uplinkDefault,
		"a": uplinkLink + `eth1 mtu 1500 inet 192.168.10.100/24
` + loopback + uplinkRoutes + `10.10.0.0/16 via 192.168.10.200 dev eth1 proto static
192.168.10.0/24 dev eth1 proto kernel scope link src 192.168.10.100
192.168.20.0/24 via 192.168.10.200 dev eth1 proto static
` + uplinkDefault,
		"b": uplinkLink + `eth1 mtu 1400 inet 192.168.20.100/24
` + loopback + uplinkRoutes + `192.168.10.0/24 via 192.168.20.200 dev eth1 proto static
192.168.20.0/24 dev eth1 proto kernel scope link src 192.168.20.100
` + uplinkDefault,
	}
}

func (b *bench) wantTables(want map[string]string) {
	b.t.Helper()
	for name, text := range want {
		got := tables(b.t, b.node(name))
		if b.subject.Fixed {
			got, text = ofTheLab(got), ofTheLab(text)
		}
		if got != text {
			b.t.Errorf("tables of %s:\n%s\nwant:\n%s", name, got, text)
		}
	}
}

// ofTheLab leaves out what is the machine's own matter: its uplink, and its IPv6.
func ofTheLab(tables string) string {
	var b strings.Builder
	for line := range strings.Lines(ipv6.ReplaceAllString(tables, "")) {
		if !strings.HasPrefix(line, "eth0 ") && !strings.Contains(line, " dev eth0 ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

var ipv6 = regexp.MustCompile(` inet6 \S+`)

func testTables(t *testing.T, b *bench) {
	b.up(b.load())
	b.wantTables(wantTables())
}

// ping sends an echo and waits a second at most; on an emulated processor it
// sends one each second until an answer is there.
func (b *bench) ping(n provision.Node, to string, options ...string) (string, error) {
	b.t.Helper()
	limit := []string{"-W", "1"}
	if b.subject.Fixed {
		limit = []string{"-w", "10"}
	}
	return try(b.t, n, slices.Concat([]string{"ping", "-n", "-c", "1"}, limit, options, []string{to})...)
}

func testPackets(t *testing.T, b *bench) {
	b.up(b.load())
	start := time.Now()
	for _, pair := range [][2]string{
		{"a", "192.168.10.200"}, {"router", "192.168.10.100"}, {"router", "192.168.20.100"}, {"b", "192.168.20.200"},
		{"a", "10.10.1.200"}, {"router", "10.10.1.200"}, {"a", "127.0.0.1"}, {"a", "192.168.10.100"}, {"a", uplinkAddress},
	} {
		if pair[1] == uplinkAddress && b.subject.Fixed {
			continue // it has another one
		}
		if out, err := b.ping(b.node(pair[0]), pair[1]); err != nil {
			t.Errorf("%s cannot ping %s: %v\n%s", pair[0], pair[1], err, out)
		}
	}
	if took := time.Since(start); took > time.Second && !b.subject.Fixed {
		t.Errorf("9 pings took %s: the links were not ready", took)
	}
	// The file's MTU is the link's: 1400 on b's side.
	if out, err := b.ping(b.node("b"), "192.168.20.200", "-M", "do", "-s", "1373"); err == nil {
		t.Errorf("1401 bytes pass a link of 1400:\n%s", out)
	}
	if out, err := b.ping(b.node("b"), "192.168.20.200", "-M", "do", "-s", "1372"); err != nil {
		t.Errorf("1400 bytes do not pass:\n%s", out)
	}
	testSilence(t, b)
}

// testSilence sends what has no other way than eth0.
func testSilence(t *testing.T, b *bench) {
	out := []string{"172.20.2.1", "10.0.2.2", "10.0.2.3", "192.0.2.1"}
	targets := map[string][]string{"a": out, "router": out}
	if b.subject.Fixed {
		// Elsewhere a machine's uplink may lead somewhere; for the lab's addresses it must not.
		targets = map[string][]string{"second": {"192.168.20.100", "10.10.1.200"}}
	}
	var group sync.WaitGroup
	for from, addresses := range targets {
		n := b.node(from)
		for _, to := range addresses {
			group.Go(func() {
				out, err := b.ping(n, to)
				if err == nil || !strings.Contains(out, "100% packet loss") || strings.Contains(strings.ToLower(out), "unreachable") || strings.Contains(out, "errors") {
					t.Errorf("%s to %s by eth0 is not lost in silence: %v\n%s", from, to, err, out)
				}
			})
		}
	}
	group.Wait()
}

func testTwoLabs(t *testing.T, b *bench) {
	other := &bench{Provider: b.Provider, t: t, subject: b.subject, lab: Name()}
	other.cleanUp(other.lab)
	b.up(b.load())
	other.up(other.load())
	b.wantTables(wantTables())
	other.wantTables(wantTables())
	if got := b.up(b.load()); len(got) > 0 {
		t.Errorf("the other lab changed this one: %v", got)
	}
	// The address is there in both, and each answers only its own.
	output(t, b.node("router"), "ip", "link", "set", "eth1", "down")
	if out, err := b.ping(b.node("a"), "192.168.10.200"); err == nil {
		t.Errorf("the other lab's router answered:\n%s", out)
	}
	if out, err := other.ping(other.node("a"), "192.168.10.200"); err != nil {
		t.Errorf("the lab's own router does not answer: %v\n%s", err, out)
	}
	if _, err := b.Destroy(t.Context(), b.lab); err != nil {
		t.Fatal(err)
	}
	if got := other.up(other.load()); len(got) > 0 {
		t.Errorf("one lab's end changed the other: %v", got)
	}
}

func testDestroyBusy(t *testing.T, b *bench) {
	b.up(b.load())
	n := b.node("a")
	done := make(chan error, 1)
	go func() {
		done <- n.Run(t.Context(), provision.Command{Argv: []string{"sh", "-c", "trap '' TERM HUP; echo; sleep 1004; sleep 1004"}})
	}()
	time.Sleep(50 * time.Millisecond)
	if _, err := b.Destroy(t.Context(), b.lab); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err == nil {
			t.Error("the command ended well")
		}
	case <-time.After(5 * time.Second):
		t.Error("the command outlived its node")
	}
	b.wantNothing(b.lab)
}
