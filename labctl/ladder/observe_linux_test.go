package ladder

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/capture/capturetest"
	"github.com/native-routing/labctl/agent/nstest"
	"github.com/native-routing/labctl/agent/probe"
)

// lab is a client, a router and a server, and a pod on the server's node.
type lab struct {
	nodes   map[string]*nstest.Namespace
	clients map[string]*api.Client
	stops   map[string]func()
	places  []Place
}

func newLab(t *testing.T) *lab {
	l := &lab{nodes: map[string]*nstest.Namespace{}, clients: map[string]*api.Client{}, stops: map[string]func(){}}
	for _, name := range []string{"a", "router", "b", "pod"} {
		l.nodes[name] = nstest.New(t)
	}
	a, router, b, pod := l.nodes["a"], l.nodes["router"], l.nodes["b"], l.nodes["pod"]
	a.Connect("eth1", router, "eth1")
	router.Connect("eth2", b, "eth1")
	b.Connect("lxc1", pod, "eth0")
	for ns, commands := range map[*nstest.Namespace][]string{
		a:      {"addr add 10.1.0.2/24 dev eth1", "route add default via 10.1.0.1"},
		router: {"addr add 10.1.0.1/24 dev eth1", "addr add 10.2.0.1/24 dev eth2", "route add 10.3.0.0/24 via 10.2.0.2"},
		b:      {"addr add 10.2.0.2/24 dev eth1", "addr add 10.3.0.1/24 dev lxc1", "route add default via 10.2.0.1"},
		pod:    {"addr add 10.3.0.9/24 dev eth0", "route add default via 10.3.0.1"},
	} {
		for _, c := range commands {
			ns.IP(c)
		}
		ns.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	}
	for _, name := range []string{"a", "router", "b"} {
		var pods map[string]*nstest.Namespace
		l.places = append(l.places, Place{Node: name})
		if name == "b" {
			pods = map[string]*nstest.Namespace{"default/pod": pod}
			l.places = append(l.places, Place{name, "default/pod"})
		}
		l.clients[name], l.stops[name] = capturetest.Node(t, l.nodes[name], pods)
	}
	return l
}

func (l *lab) Capture(ctx context.Context, node string, request api.CaptureRequest) (*api.CaptureStream, error) {
	return api.OpenCapture(ctx, l.clients[node], request)
}

func (l *lab) Ping(ctx context.Context, node string, targets []api.PingTarget) (r []api.PingResult, err error) {
	l.nodes[node].Do(func() {
		var response api.PingResponse
		response, err = probe.Ping(ctx, api.PingRequest{Targets: targets})
		r = response.Results
	})
	return r, err
}

func (l *lab) Knock(ctx context.Context, node string, targets []api.KnockTarget) (r []api.KnockResult, err error) {
	if node == "a" { // a socket is made by a goroutine of its own, which enters by path
		targets[0].Pod = "here"
	}
	response, err := probe.New(probe.Config{Netns: func(string) (string, bool) { return l.nodes[node].Path(), true }}).
		Knock(ctx, api.KnockRequest{Targets: targets})
	return response.Results, err
}

// text is a leg in lines.
func text(leg []Rung) string {
	var lines []string
	for _, r := range leg {
		way := "In"
		if r.Outgoing {
			way = "Out"
		}
		line := fmt.Sprintf("%s %s %s %s > %s ttl %d", r.Place, r.Device, way, r.From.Addr(), r.To.Addr(), r.TTL)
		if r.Flags != "" {
			line += " " + r.Flags
		}
		if r.Tunnel != nil {
			line += fmt.Sprintf(" in %s > %s vni %d", r.Tunnel.From, r.Tunnel.To, r.Tunnel.VNI)
		}
		if r.Error != nil {
			line += fmt.Sprintf(" error %d/%d about %s > %s", r.Error.Type, r.Error.Code, r.Error.QuotedFrom, r.Error.QuotedTo)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func observed(t *testing.T, l *lab, p Probe) Ladder {
	t.Helper()
	p.Node, p.To = "a", netip.MustParseAddr("10.3.0.9")
	ladder, err := Observe(context.Background(), l, p, l.places)
	if err != nil {
		t.Fatal(err)
	}
	return ladder
}

func compare(t *testing.T, what, got, want string) {
	t.Helper()
	if want = strings.TrimSpace(want); got != want {
		t.Errorf("%s: got\n%s\nwant\n%s", what, got, want)
	}
}

const (
	thereAndBackThere = `
a eth1 Out 10.1.0.2 > 10.3.0.9 ttl 64
router eth1 In 10.1.0.2 > 10.3.0.9 ttl 64
router eth2 Out 10.1.0.2 > 10.3.0.9 ttl 63
b eth1 In 10.1.0.2 > 10.3.0.9 ttl 63
b lxc1 Out 10.1.0.2 > 10.3.0.9 ttl 62
pod eth0 In 10.1.0.2 > 10.3.0.9 ttl 62`
	thereAndBackBack = `
pod eth0 Out 10.3.0.9 > 10.1.0.2 ttl 64
b lxc1 In 10.3.0.9 > 10.1.0.2 ttl 64
b eth1 Out 10.3.0.9 > 10.1.0.2 ttl 63
router eth2 In 10.3.0.9 > 10.1.0.2 ttl 63
router eth1 Out 10.3.0.9 > 10.1.0.2 ttl 62
a eth1 In 10.3.0.9 > 10.1.0.2 ttl 62`
)

func flagged(leg, flags string) string {
	return strings.ReplaceAll(strings.TrimSpace(leg), "\n", " "+flags+"\n") + " " + flags
}

func TestObserveEveryProtocol(t *testing.T) {
	l := newLab(t)
	echo := observed(t, l, Probe{Protocol: ICMP})
	compare(t, "echo there", text(echo.There), thereAndBackThere)
	compare(t, "echo back", text(echo.Back), thereAndBackBack)
	if !echo.Answered || len(echo.Blind) > 0 || len(echo.ClockOffsets) > 0 || echo.Dropped != 0 {
		t.Errorf("%+v", echo)
	}

	closed := observed(t, l, Probe{Protocol: TCP, Port: 81})
	compare(t, "SYN there", text(closed.There), flagged(thereAndBackThere, "S"))
	compare(t, "RST back", text(closed.Back), flagged(thereAndBackBack, "R."))
	if closed.Answered || closed.Local.Port() == 0 {
		t.Errorf("%+v", closed)
	}

	datagram := observed(t, l, Probe{Protocol: UDP, Port: 9})
	compare(t, "datagram there", text(datagram.There), thereAndBackThere)
	compare(t, "datagram back", text(datagram.Back), "")
	if len(datagram.Errors) != 6 || datagram.Errors[0].Place != (Place{"b", "default/pod"}) || datagram.Errors[0].Error.Type != 3 ||
		datagram.Failure == nil || datagram.Failure.From != netip.MustParseAddr("10.3.0.9") {
		t.Errorf("errors\n%s\n%+v", text(datagram.Errors), datagram.Failure)
	}
}

// The addresses that a packet bears are of no use to know it by.
func TestObserveThroughTranslation(t *testing.T) {
	l := newLab(t)
	l.nodes["router"].Run("nft", `add table ip t; add chain ip t post { type nat hook postrouting priority 100; };
		add rule ip t post oifname eth2 masquerade random;
		add chain ip t pre { type nat hook prerouting priority -100; };
		add rule ip t pre ip daddr 10.9.9.9 tcp dport 80 dnat to 10.3.0.9:81; add rule ip t pre ip daddr 10.9.9.9 dnat to 10.3.0.9`)
	for protocol, flags := range map[string]string{ICMP: "", TCP: " S", UDP: ""} {
		ladder, err := Observe(context.Background(), l, Probe{Node: "a", To: netip.MustParseAddr("10.9.9.9"), Protocol: protocol, Port: 80}, l.places)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, protocol, text(ladder.There), strings.ReplaceAll(strings.TrimSpace(`
a eth1 Out 10.1.0.2 > 10.9.9.9 ttl 64
router eth1 In 10.1.0.2 > 10.9.9.9 ttl 64
router eth2 Out 10.2.0.1 > 10.3.0.9 ttl 63
b eth1 In 10.2.0.1 > 10.3.0.9 ttl 63
b lxc1 Out 10.2.0.1 > 10.3.0.9 ttl 62
pod eth0 In 10.2.0.1 > 10.3.0.9 ttl 62`), "\n", flags+"\n")+flags)
		if protocol == UDP {
			continue
		}
		if last, ok := Last(ladder.Back); !ok || last.Node != "a" || last.From.Addr() != netip.MustParseAddr("10.9.9.9") {
			t.Errorf("%s back\n%s", protocol, text(ladder.Back))
		}
	}
}

func TestObserveLossesAndLoops(t *testing.T) {
	l := newLab(t)
	short := Probe{Protocol: ICMP, Timeout: 200 * time.Millisecond}
	l.nodes["router"].IP("route replace blackhole 10.3.0.0/24")
	lost := observed(t, l, short)
	compare(t, "a loss", text(lost.There), "a eth1 Out 10.1.0.2 > 10.3.0.9 ttl 64\nrouter eth1 In 10.1.0.2 > 10.3.0.9 ttl 64")
	if lost.Answered || len(lost.Back)+len(lost.Errors) > 0 {
		t.Errorf("%+v", lost)
	}
	l.nodes["router"].IP("route replace unreachable 10.3.0.0/24")
	compare(t, "unreachable", text(observed(t, l, short).Errors),
		"router eth1 Out 10.1.0.1 > 10.1.0.2 ttl 64 error 3/1 about 10.1.0.2 > 10.3.0.9\na eth1 In 10.1.0.1 > 10.1.0.2 ttl 64 error 3/1 about 10.1.0.2 > 10.3.0.9")
	l.nodes["router"].IP("route replace 10.3.0.0/24 via 10.2.0.2")
	l.nodes["b"].IP("addr del 10.3.0.1/24 dev lxc1")
	loop := observed(t, l, short)
	if len(loop.There) < 120 || !strings.Contains(text(loop.Errors), "error 11/0") {
		t.Errorf("a loop has %d rungs; errors\n%s", len(loop.There), text(loop.Errors))
	}
	for i, r := range loop.There[1:] {
		before := loop.There[i]
		if r.TTL > before.TTL || r.TTL == before.TTL && (r.Outgoing || !before.Outgoing || r.Node == before.Node) {
			t.Errorf("rung %d: %s after %s", i+1, text([]Rung{r}), text([]Rung{before}))
		}
	}
}

func TestObserveThroughTunnel(t *testing.T) {
	l := newLab(t)
	l.nodes["a"].IP("link add vx type vxlan id 7 dstport 8472 local 10.1.0.2 remote 10.2.0.2")
	l.nodes["b"].IP("link add vx type vxlan id 7 dstport 8472 local 10.2.0.2 remote 10.1.0.2")
	l.nodes["a"].IP("addr add 10.4.0.1/24 dev vx")
	l.nodes["b"].IP("addr add 10.4.0.2/24 dev vx")
	l.nodes["a"].IP("link set vx up")
	l.nodes["b"].IP("link set vx up")
	l.nodes["a"].IP("route add 10.3.0.0/24 via 10.4.0.2")
	l.nodes["b"].IP("route add 10.4.0.1/32 dev vx")
	ladder := observed(t, l, Probe{Protocol: ICMP})
	compare(t, "there", text(ladder.There), `
a vx Out 10.4.0.1 > 10.3.0.9 ttl 64
a eth1 Out 10.4.0.1 > 10.3.0.9 ttl 64 in 10.1.0.2 > 10.2.0.2 vni 7
router eth1 In 10.4.0.1 > 10.3.0.9 ttl 64 in 10.1.0.2 > 10.2.0.2 vni 7
router eth2 Out 10.4.0.1 > 10.3.0.9 ttl 64 in 10.1.0.2 > 10.2.0.2 vni 7
b eth1 In 10.4.0.1 > 10.3.0.9 ttl 64 in 10.1.0.2 > 10.2.0.2 vni 7
b vx In 10.4.0.1 > 10.3.0.9 ttl 64
b lxc1 Out 10.4.0.1 > 10.3.0.9 ttl 63
pod eth0 In 10.4.0.1 > 10.3.0.9 ttl 63`)
	if !ladder.Answered || len(ladder.Back) != len(ladder.There) {
		t.Errorf("back\n%s", text(ladder.Back))
	}
}

func TestBlindPlaces(t *testing.T) {
	l := newLab(t)
	l.stops["router"]()
	ladder := observed(t, l, Probe{Protocol: ICMP})
	if ladder.Blind[Place{Node: "router"}] == nil || len(ladder.Blind) != 1 || !ladder.Answered || len(ladder.There) != 4 {
		t.Errorf("blind %v\n%s", ladder.Blind, text(ladder.There))
	}
}

// The file that goes beside a write-up is read by tshark.
func TestWriteForWireshark(t *testing.T) {
	l := newLab(t)
	var file bytes.Buffer
	if err := observed(t, l, Probe{Protocol: ICMP}).Write(&file, "test"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ladder.pcapng")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tshark", "-r", path, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "ip.ttl").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 12 || lines[1] != "router/eth1\trequest, 2 of 6\t64" || lines[11] != "a/eth1\treply, 6 of 6\t62" {
		t.Errorf("tshark says\n%s", out)
	}
}
