//go:build linux

package dbg

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/agent/inspect/inspecttest"
)

// serve answers on an agent's socket in a run directory of its own.
func serve(t *testing.T, handler http.Handler) Config {
	t.Helper()
	// A socket's path must be short, and the test's own directory is not.
	dir, err := os.MkdirTemp("", "dbg")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with Close
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
		os.RemoveAll(dir)
	})
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "desired.json"), []byte(study), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{RunDir: dir, DataDir: data}
}

func statusServer(status api.Status) http.Handler {
	mux := http.NewServeMux()
	api.GetStatus.Handle(mux, func(context.Context, api.None) (api.Status, error) { return status, nil })
	return mux
}

func studyStatus() api.Status {
	return api.Status{
		Version: api.Version{Version: "1.2.3", PID: 7}, Node: "k8s-ctr", Generation: "1", Settled: true,
		Objects: []api.Object{
			{Kind: "route", Name: "172.20.1.0/24 via 192.168.10.101", Owner: api.OwnerAgent, Condition: api.InPlace},
			{Kind: "route", Name: "172.20.2.0/24 via 192.168.20.100", Owner: api.OwnerAgent, Condition: api.Refused, Reason: "contains gateway"},
		},
		Datapath: &api.Datapath{Attach: "tcx", Devices: []string{"eth0", "eth1"}, SocketLB: true},
	}
}

const studyEndpoints = `endpoint 1 172.20.0.1 identity=1 flags=1
endpoint 2 192.168.10.100 identity=1 flags=1
endpoint 16 172.20.0.10 identity=300`

func studyMaps(t *testing.T) func() (source, error) {
	d := inspecttest.Parse(t, studyEndpoints)
	d.Sizes = []inspect.Size{{Name: inspect.EventsMap, Size: 1 << 20}, {Name: inspect.LBServices, Size: 65536}}
	return memory{d}.opens()
}

func TestStatus(t *testing.T) {
	config := serve(t, statusServer(studyStatus()))
	stdout, stderr, code := run(t, config, studyMaps(t), "status")
	want := fmt.Sprintf(`KVStore:                 Disabled   $
Kubernetes:              Disabled   $
KubeProxyReplacement:    True       [eth0 10.0.2.15, eth1 192.168.10.100 (Direct Routing)]
Host firewall:           Disabled
SRv6:                    Disabled
CNI Chaining:            none
Agent:                   Ok   1.2.3
NodeMonitor:             Listening for events on %d CPUs with %dx%d of shared memory
IPAM:                    IPv4: 2/254 allocated from 172.20.0.0/24, $
IPv4 BIG TCP:            Disabled
IPv6 BIG TCP:            Disabled
BandwidthManager:        Disabled
Routing:                 Network: Native   Host: Legacy
Attach Mode:             TCX
Device Mode:             veth
Masquerading:            BPF   [eth0, eth1]   172.20.0.0/16 [IPv4: Enabled, IPv6: Disabled]
Controller Status:       2/2 healthy
Proxy Status:            No managed proxy redirect
Global Identity Range:   min 256, max 65535
Hubble:                  Disabled
Encryption:              Disabled   $
Cluster health:                     Probe disabled
`, runtime.NumCPU(), 1<<20/os.Getpagesize(), os.Getpagesize())
	if diff := cmp.Diff(strings.ReplaceAll(want, "$", ""), stdout); diff != "" || stderr != "" || code != ExitOK {
		t.Errorf("exit %d, stderr %q (-want +got):\n%s", code, stderr, diff)
	}
	stdout, _, code = run(t, config, studyMaps(t), "status", "--brief")
	if stdout != "OK\n" || code != ExitOK {
		t.Errorf("brief: %q, exit %d", stdout, code)
	}
	stdout, _, _ = run(t, config, studyMaps(t), "status", "--all-addresses")
	if want := "Allocated addresses:\n  172.20.0.1 (router)\n  172.20.0.10 (default/curl-pod)\n"; !strings.Contains(stdout, want) {
		t.Errorf("no addresses in\n%s", stdout)
	}
	stdout, _, _ = run(t, config, studyMaps(t), "status", "--verbose")
	want = `KubeProxyReplacement Details:
  Status:                 True
  Socket LB:              Enabled
  Socket LB Tracing:      Disabled
  Socket LB Coverage:     Full
  Devices:                eth0 10.0.2.15, eth1 192.168.10.100 (Direct Routing)
  Mode:                   SNAT
  Backend Selection:      Random
  Session Affinity:       Enabled
  Graceful Termination:   Enabled
  NAT46/64 Support:       Disabled
  XDP Acceleration:       Disabled
  Services:
  - ClusterIP:      Enabled
  - NodePort:       Enabled (Range: 30000-32767) $
  - LoadBalancer:   Disabled $
  - externalIPs:    Enabled $
  - HostPort:       Disabled
BPF Maps:   dynamic sizing: off
  Name                     Size
  cilium_events            1048576
  cilium_lb4_services_v2   65536
`
	if !strings.Contains(stdout, strings.ReplaceAll(want, "$", "")) {
		t.Errorf("no details in\n%s", visible(stdout))
	}
	var decoded map[string]any
	stdout, _, _ = run(t, config, studyMaps(t), "status", "-o", "json")
	if err := json.Unmarshal([]byte(stdout), &decoded); err != nil || decoded["healthy"] != 2.0 || decoded["podCIDR"] != "172.20.0.0/24" {
		t.Errorf("JSON %s: %v", stdout, err)
	}
}

func TestStatusOfTrouble(t *testing.T) {
	status := studyStatus()
	status.Objects[0].Condition, status.Objects[0].Reason = api.Failed, "no such device"
	status.Datapath.Attach = "clsact"
	config := serve(t, statusServer(status))
	stdout, _, code := run(t, config, nowhere, "status", "--brief")
	if stdout != "error in controller route 172.20.1.0/24 via 192.168.10.101: no such device\n" || code != ExitError {
		t.Errorf("brief: %q, exit %d", stdout, code)
	}
	stdout, stderr, code := run(t, config, nowhere, "status")
	for _, want := range []string{
		"Attach Mode:            Legacy TC\n", "Controller Status:      1/2 healthy\n", "NodeMonitor:            Disabled\n",
		"  Name                                     Condition   Mended   Message\n",
		"  route 172.20.1.0/24 via 192.168.10.101   failed      0        no such device\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if want := "The kernel's maps cannot be read: no datapath is loaded on this node\n"; stderr != want || code != ExitOK {
		t.Errorf("stderr %q, exit %d", stderr, code)
	}
	status.Datapath = nil
	stdout, stderr, _ = run(t, serve(t, statusServer(status)), nowhere, "status")
	if !strings.Contains(stdout, "KubeProxyReplacement:   False      \n") || strings.Contains(stdout, "Masquerading") || stderr != "" {
		t.Errorf("a node without a datapath: %q\n%s", stderr, stdout)
	}
}

// TestNoAgent: what only the agent knows cannot be had, and is said plainly.
func TestNoAgent(t *testing.T) {
	gone := serve(t, nil) // its socket stays behind without a listener
	if err := os.Remove(filepath.Join(gone.RunDir, socketName)); err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(gone.RunDir, socketName)})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	for _, test := range []struct {
		dir, cause string
	}{{"/nowhere", "no such file or directory"}, {gone.RunDir, "connection refused"}} {
		socket := filepath.Join(test.dir, socketName)
		for _, command := range []string{"status", "monitor", "metrics list"} {
			stdout, stderr, code := run(t, Config{RunDir: test.dir}, nowhere, strings.Fields(command)...)
			want := fmt.Sprintf("dial unix %s: connect: %s\nIs the agent running?\n", socket, test.cause)
			if !strings.HasSuffix(stderr, want) || strings.Count(stderr, "\n") != 2 || stdout != "" || code != ExitError {
				t.Errorf("%s: exit %d, stdout %q, stderr %q", command, code, stdout, stderr)
			}
		}
	}
	_, stderr, code := run(t, Config{RunDir: "/nowhere"}, nowhere, "status", "--brief")
	if stderr != "agent: daemon unreachable\n" || code != ExitError {
		t.Errorf("brief: %q, exit %d", stderr, code)
	}
}

func TestMetricsList(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.MetricsPath, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `# HELP labctl_drop_count_total Packets dropped.
# TYPE labctl_drop_count_total counter
labctl_drop_count_total{reason="Stale, or \"unroutable\" IP",direction="INGRESS"} 2 1700000000
labctl_drop_count_total{direction="EGRESS", reason="a\\b\nc"} 1e+06
labctl_endpoint 3
`)
	})
	config := serve(t, mux)
	stdout, stderr, code := run(t, config, nowhere, "metrics", "list")
	want := `Metric                    Labels                                                     Value
labctl_drop_count_total   direction="EGRESS" reason="a\\b\nc"                        1000000.000000
labctl_drop_count_total   direction="INGRESS" reason="Stale, or \"unroutable\" IP"   2.000000
labctl_endpoint                                                                      3.000000
`
	if diff := cmp.Diff(want, stdout); diff != "" || code != ExitOK || stderr != "" {
		t.Errorf("exit %d, stderr %q (-want +got):\n%s", code, stderr, diff)
	}
	stdout, _, _ = run(t, config, nowhere, "metrics", "list", "-p", "endpoint$", "-o", "json")
	if diff := cmp.Diff("[\n  {\n    \"metric\": \"labctl_endpoint\",\n    \"labels\": {},\n    \"value\": 3\n  }\n]\n", stdout); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, line := range []string{"x", "x{", `x{a} 1`, `x{a="b} 1`, `x{a="b"}`, "x y", `{a="b"} 1`} {
		if samples, err := parseMetrics(strings.NewReader(line)); err == nil {
			t.Errorf("%q was read as %v", line, samples)
		}
	}
}

// frame is a packet from its Ethernet header on.
func frame(t testing.TB, from, to string, upper ...gopacket.SerializableLayer) []byte {
	t.Helper()
	ip := &layers.IPv4{
		Version: 4, TTL: 64, SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to), Protocol: layers.IPProtocolGRE,
	}
	all := []gopacket.SerializableLayer{&layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4,
	}, ip}
	for _, layer := range upper {
		switch l := layer.(type) {
		case *layers.TCP:
			ip.Protocol = layers.IPProtocolTCP
			_ = l.SetNetworkLayerForChecksum(ip)
		case *layers.UDP:
			ip.Protocol = layers.IPProtocolUDP
			_ = l.SetNetworkLayerForChecksum(ip)
		case *layers.ICMPv4:
			ip.Protocol = layers.IPProtocolICMPv4
		}
		all = append(all, layer)
	}
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buffer.Bytes())
}

func echo(kind uint8) *layers.ICMPv4 {
	return &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: 7, Seq: 1}
}

func TestSummary(t *testing.T) {
	syn := frame(t, "10.244.1.56", "10.244.2.148", &layers.TCP{SrcPort: 56944, DstPort: 80, SYN: true})
	arp := make([]byte, 14)
	arp[12], arp[13] = 8, 6
	p := newPackets()
	for want, packet := range map[string][]byte{
		"10.244.1.56:56944 -> 10.244.2.148:80 tcp SYN":               syn,
		"10.244.2.148:80 -> 10.244.1.56:56944 tcp SYN, ACK":          frame(t, "10.244.2.148", "10.244.1.56", &layers.TCP{SrcPort: 80, DstPort: 56944, SYN: true, ACK: true}),
		"10.0.0.1:1 -> 10.0.0.2:2 tcp ACK, RST, FIN":                 frame(t, "10.0.0.1", "10.0.0.2", &layers.TCP{SrcPort: 1, DstPort: 2, ACK: true, RST: true, FIN: true, PSH: true}),
		"10.0.0.1:5353 -> 10.96.0.10:53 udp":                         frame(t, "10.0.0.1", "10.96.0.10", &layers.UDP{SrcPort: 5353, DstPort: 53}),
		"172.20.0.10 -> 10.10.1.200 EchoRequest":                     frame(t, "172.20.0.10", "10.10.1.200", echo(8)),
		"172.20.0.10 -> 10.10.1.200 EchoReply":                       frame(t, "172.20.0.10", "10.10.1.200", echo(0)),
		"172.20.0.10 -> 10.10.1.201":                                 frame(t, "172.20.0.10", "10.10.1.201", gopacket.Payload("x")),
		"00:00:00:00:00:00 -> 00:00:00:00:00:00 ARP":                 arp,
		"10.244.1.56 -> 10.244.2.148":                                syn[:14+20+4],
		"[unknown]":                                                  syn[:10],
		"02:00:00:00:00:01 -> 02:00:00:00:00:02 IPv4":                syn[:20],
		"192.168.10.100 -> 172.20.0.10 DestinationUnreachable(Port)": frame(t, "192.168.10.100", "172.20.0.10", &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}),
	} {
		if got := p.summary(packet); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// FuzzSummary: whatever the packet, there is one line, and no panic.
func FuzzSummary(f *testing.F) {
	f.Add(frame(f, "10.0.0.1", "10.0.0.2", &layers.TCP{SrcPort: 1, DstPort: 2, SYN: true}))
	f.Add(frame(f, "10.0.0.1", "10.0.0.2", &layers.UDP{SrcPort: 1, DstPort: 4789}, gopacket.Payload("vxlan")))
	f.Add(frame(f, "10.0.0.1", "10.0.0.2", echo(8)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packet []byte) {
		p := newPackets()
		if summary := p.summary(packet); summary == "" || strings.ContainsAny(summary, "\n\r") {
			t.Errorf("%q", summary)
		}
		p.addresses(packet)
		p.dissection(packet, false)
		if again, first := p.summary(packet), newPackets().summary(packet); again != first {
			t.Errorf("%q, then %q", first, again)
		}
	})
}

// monitorEvents are what the agent tells of.
func monitorEvents(t *testing.T) []api.MonitorEvent {
	return []api.MonitorEvent{
		{Type: "trace", Point: "to-network", State: "new", Device: "eth0", Index: 2, Hash: 0xd67215a2, SourceIdentity: 22196, DestinationIdentity: 60386,
			OrigSource: netip.MustParseAddr("10.244.1.56"), Length: 74, Packet: frame(t, "10.244.1.56", "10.244.2.148", &layers.TCP{SrcPort: 56944, DstPort: 80, SYN: true})},
		{Type: "drop", Reason: 151, ReasonText: "Stale or unroutable IP", Hash: 0x2a1c, Index: 2, SourceIdentity: 2, DestinationIdentity: 31902, Length: 74,
			Packet: frame(t, "10.20.1.113", "10.20.2.44", &layers.TCP{SrcPort: 33420, DstPort: 8080, SYN: true})},
		{Type: "trace", Point: "to-endpoint", State: "reply", Index: 9, Endpoint: 16, SourceIdentity: 2, DestinationIdentity: 300,
			OrigSource: netip.MustParseAddr("172.20.1.219"), Length: 74, Packet: frame(t, "10.96.48.145", "172.20.0.10", &layers.TCP{SrcPort: 80, DstPort: 40000, SYN: true, ACK: true})},
		{Type: "trace", Point: "to-stack", State: "established", Device: "lxc1", Index: 9, Endpoint: 16, SourceIdentity: 300, DestinationIdentity: 1,
			OrigSource: netip.MustParseAddr("172.20.0.10"), Length: 98, Packet: frame(t, "172.20.0.10", "172.20.0.1", echo(8))},
		{Type: "drop", Reason: 132, ReasonText: "Invalid source ip", Hash: 0x7, Index: 9, Endpoint: 16, SourceIdentity: 300, DestinationIdentity: 2,
			OrigSource: netip.MustParseAddr("8.8.8.8"), Length: 74, Packet: frame(t, "8.8.8.8", "10.10.1.200", &layers.TCP{SrcPort: 33420, DstPort: 80, SYN: true})},
		{Type: "lost", Lost: 5},
	}
}

func monitorServer(t *testing.T, levels chan<- string, hold bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.MonitorPath, func(w http.ResponseWriter, r *http.Request) {
		levels <- r.URL.Query().Get("level")
		for _, event := range monitorEvents(t) {
			json.NewEncoder(w).Encode(event)
		}
		w.(http.Flusher).Flush()
		if hold {
			<-r.Context().Done()
		}
	})
	return mux
}

const (
	traceLine = "-> network flow 0xd67215a2 , identity 22196->60386 state new ifindex eth0 orig-ip 0.0.0.0: 10.244.1.56:56944 -> 10.244.2.148:80 tcp SYN\n"
	dropLine  = "xx drop (Stale or unroutable IP) flow 0x2a1c to endpoint 0, ifindex 2, file unknown(0):0, , identity world->31902: 10.20.1.113:33420 -> 10.20.2.44:8080 tcp SYN\n"
	replyLine = "-> endpoint 16 flow 0x0 , identity world->300 state reply ifindex 9 orig-ip 172.20.1.219: 10.96.48.145:80 -> 172.20.0.10:40000 tcp SYN, ACK\n"
	stackLine = "-> stack flow 0x0 , identity 300->host state established ifindex lxc1 orig-ip 0.0.0.0: 172.20.0.10 -> 172.20.0.1 EchoRequest\n"
	spoofLine = "xx drop (Invalid source ip) flow 0x7 to endpoint 0, ifindex 9, file unknown(0):0, , identity 300->world: 8.8.8.8:33420 -> 10.10.1.200:80 tcp SYN\n"
	lostLine  = "Lost 5 events\n"
)

func TestMonitor(t *testing.T) {
	banner := fmt.Sprintf("Listening for events on %d CPUs with %dx%d of shared memory\nPress Ctrl-C to quit\n",
		runtime.NumCPU(), 1<<20/os.Getpagesize(), os.Getpagesize())
	levels := make(chan string, 1)
	config := serve(t, monitorServer(t, levels, false))
	for _, test := range []struct{ args, level, want string }{
		{"", "flows", traceLine + dropLine + replyLine + stackLine + spoofLine + lostLine},
		{"--level all", "all", traceLine + dropLine + replyLine + stackLine + spoofLine + lostLine},
		{"--type drop", "drops", dropLine + spoofLine + lostLine},
		{"--type trace --to 16", "flows", replyLine + lostLine},
		{"--from 16", "flows", stackLine + spoofLine + lostLine},
		{"--related-to 16,17", "flows", replyLine + stackLine + spoofLine + lostLine},
		{"--from 17", "flows", lostLine},
		{"-n --type drop", "drops", strings.ReplaceAll(dropLine+spoofLine, "world", "2") + lostLine},
	} {
		stdout, stderr, code := run(t, config, studyMaps(t), append([]string{"monitor"}, strings.Fields(test.args)...)...)
		if diff := cmp.Diff(banner+test.want, stdout); diff != "" {
			t.Errorf("monitor %s (-want +got):\n%s", test.args, diff)
		}
		if want := "Error: the agent has ended the connection (it stopped, or was restarted)\n"; stderr != want || code != ExitError {
			t.Errorf("monitor %s: exit %d, stderr %q", test.args, code, stderr)
		}
		if level := <-levels; level != test.level {
			t.Errorf("monitor %s asked for %s", test.args, level)
		}
	}
	stdout, _, _ := run(t, config, studyMaps(t), "monitor", "-o", "json", "--to", "16")
	<-levels
	line, _, _ := strings.Cut(stdout, "\n")
	var event shownEvent
	if err := json.Unmarshal([]byte(line), &event); err != nil || event.DestinationEndpoint != 16 || event.SourceEndpoint != 0 ||
		event.Summary != "10.96.48.145:80 -> 172.20.0.10:40000 tcp SYN, ACK" || event.Point != "to-endpoint" {
		t.Errorf("JSON %q: %v", line, err)
	}
	stdout, _, _ = run(t, config, studyMaps(t), "monitor", "-v", "--from", "16")
	<-levels
	want := strings.Repeat("-", 78) + "\nMARK 0x0 FROM 16 to-stack: 98 bytes (60 captured), state established, interface lxc1, identity 300->host, orig-ip 0.0.0.0, to endpoint 1\nEthernet\t{"
	if !strings.HasPrefix(strings.TrimPrefix(stdout, banner), want) || !strings.Contains(stdout, "\nICMPv4\t{") {
		t.Errorf("verbose:\n%s", stdout)
	}
	stdout, _, _ = run(t, config, nowhere, "monitor", "-v", "--hex", "--to", "16")
	<-levels
	if !strings.Contains(stdout, "\n00000000  02 00 00 00 00 02 ") {
		t.Errorf("without maps, in hexadecimal:\n%s", stdout)
	}
}

// TestMonitorEnds: Ctrl-C is how a monitor ends, and no failure.
func TestMonitorEnds(t *testing.T) {
	levels := make(chan string, 1)
	config := serve(t, monitorServer(t, levels, true))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-levels
		time.Sleep(50 * time.Millisecond)
		cancel()
	}()
	var out, errOut bytes.Buffer
	if code := Main(ctx, config, []string{"monitor"}, &out, &errOut); code != ExitOK {
		t.Errorf("exit %d", code)
	}
	if !strings.HasSuffix(out.String(), lostLine) || errOut.String() != "\nReceived an interrupt, disconnecting from monitor...\n\n" {
		t.Errorf("stdout %q, stderr %q", out.String(), errOut.String())
	}
}
