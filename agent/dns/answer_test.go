//go:build linux

package dns

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/tools/txtar"

	"github.com/native-routing/labctl/agent/api"
)

var update = flag.Bool("update", false, "write the answers to testdata")

func address(text string) netip.Addr  { return netip.MustParseAddr(text) }
func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

// studyLab is the cluster that the tests ask about.
func studyLab() api.State {
	return api.State{Node: "k8s-ctr", Cluster: &api.Cluster{
		ServiceCIDR: prefix("10.96.0.0/12"), NativeCIDR: prefix("172.20.0.0/16"),
		DNS: address("10.96.0.10"), Domain: "cluster.local",
		Nodes: []api.Node{
			{Name: "k8s-ctr", Address: address("192.168.10.100"), PodCIDR: prefix("172.20.0.0/24"), Gateway: address("172.20.0.1"),
				Addresses: []netip.Addr{address("10.0.2.15"), address("192.168.10.100")}},
			{Name: "k8s-w0", Address: address("192.168.20.100"), PodCIDR: prefix("172.20.2.0/24"), Gateway: address("172.20.2.1"),
				Addresses: []netip.Addr{address("10.0.2.15"), address("192.168.20.100")}},
		},
		Pods: []api.Pod{
			{Namespace: "default", Name: "webpod-1", Node: "k8s-ctr", Address: address("172.20.0.5")},
			{Namespace: "default", Name: "webpod-2", Node: "k8s-w0", Address: address("172.20.2.6")},
			{Namespace: "tools", Name: "curl-pod", Node: "k8s-ctr", Address: address("172.20.0.7")},
		},
		Services: []api.Service{
			{Namespace: "default", Name: "webpod", ClusterIP: address("10.97.1.2"),
				Ports:    []api.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}, {Protocol: "UDP", Port: 99}},
				Backends: []api.Backend{{Address: address("172.20.0.5"), Pod: "default/webpod-1", Ports: []uint16{8080, 99}}}},
			{Namespace: "default", Name: "peers",
				Ports: []api.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}, {Name: "admin", Protocol: "TCP", Port: 81}},
				Backends: []api.Backend{
					{Address: address("172.20.0.5"), Pod: "default/webpod-1", Ports: []uint16{8080, 0}},
					{Address: address("172.20.2.6"), Pod: "default/webpod-2", Ports: []uint16{8080, 8081}},
					{Address: address("192.168.20.200"), Ports: []uint16{9090, 9091}},
				}},
			{Namespace: "kube-system", Name: "kube-dns", ClusterIP: address("10.96.0.10"),
				Ports: []api.ServicePort{{Name: "dns", Protocol: "UDP", Port: 53}, {Name: "dns-tcp", Protocol: "TCP", Port: 53}}},
		},
	}}
}

// text is an answer without what changes: its id, and the order of addresses.
func text(m *dns.Msg) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", dns.RcodeToString[m.Rcode])
	for _, flag := range []struct {
		set  bool
		name string
	}{{m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionAvailable, "ra"}} {
		if flag.set {
			b.WriteString(" " + flag.name)
		}
	}
	b.WriteString("\n")
	for _, section := range []struct {
		mark    string
		records []dns.RR
	}{{"", m.Answer}, {"authority ", m.Ns}, {"extra ", m.Extra}} {
		var lines []string
		for _, rr := range section.records {
			if rr.Header().Rrtype == dns.TypeOPT {
				lines = append(lines, fmt.Sprintf("%sOPT %d\n", section.mark, rr.(*dns.OPT).UDPSize()))
				continue
			}
			lines = append(lines, section.mark+strings.ReplaceAll(rr.String(), "\t", " ")+"\n")
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	return b.String()
}

// ask has a line of testdata answered: name, type, and words that say how.
func ask(s *Server, line string) *dns.Msg {
	words := strings.Fields(line)
	m := new(dns.Msg)
	m.SetQuestion(words[0], dns.StringToType[words[1]])
	datagram := true
	for _, word := range words[2:] {
		switch word {
		case "edns":
			m.SetEdns0(4096, false)
		case "badvers":
			m.SetEdns0(4096, false)
			m.IsEdns0().SetVersion(1)
		case "chaos":
			m.Question[0].Qclass = dns.ClassCHAOS
		case "notify":
			m.Opcode = dns.OpcodeNotify
		case "two":
			m.Question = append(m.Question, m.Question[0])
		case "none":
			m.Question = nil
		case "tcp":
			datagram = false
		}
	}
	return s.answer(m, datagram)
}

// TestAnswers compares each question of testdata/answers.txtar with its answer.
func TestAnswers(t *testing.T) {
	const file = "testdata/answers.txtar"
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := New()
	s.Set(studyLab())
	s.SetReady(map[string]bool{"default/webpod-2": true})
	for i, f := range archive.Files {
		got := text(ask(s, f.Name))
		if diff := cmp.Diff(string(f.Data), got); diff != "" && !*update {
			t.Errorf("%s (-want +got):\n%s", f.Name, diff)
		}
		archive.Files[i].Data = []byte(got)
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadiness follows a headless service while its pods come and go.
func TestReadiness(t *testing.T) {
	s := New()
	s.Set(studyLab())
	for _, test := range []struct {
		name  string
		ready map[string]bool
		set   bool
		want  []string
	}{
		{"nobody said", nil, false, []string{"172.20.0.5", "172.20.2.6", "192.168.20.200"}},
		{"both", map[string]bool{"default/webpod-1": true, "default/webpod-2": true}, true, []string{"172.20.0.5", "172.20.2.6", "192.168.20.200"}},
		{"one", map[string]bool{"default/webpod-1": true, "default/webpod-2": false}, true, []string{"172.20.0.5", "192.168.20.200"}},
		{"none", nil, true, []string{"192.168.20.200"}},
	} {
		if test.set {
			s.SetReady(test.ready)
		}
		var got []string
		for _, rr := range ask(s, "peers.default.svc.cluster.local. A").Answer {
			got = append(got, rr.(*dns.A).A.String())
		}
		slices.Sort(got)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// crowd is a headless service of n pods.
func crowd(n int) api.State {
	state := studyLab()
	s := &state.Cluster.Services[1]
	s.Backends = nil
	for i := range n {
		s.Backends = append(s.Backends, api.Backend{Address: netip.AddrFrom4([4]byte{172, 20, byte(i >> 8), byte(i)}), Ports: []uint16{80, 81}})
	}
	return state
}

// TestSizes bounds what goes into a datagram, and sends the rest over TCP.
func TestSizes(t *testing.T) {
	s := New()
	for _, test := range []struct {
		pods      int
		how       string
		most      int // bytes
		truncated bool
		answers   int // at least
	}{
		{28, "", 512, false, 28},
		{29, "", 512, true, 20},
		{70, "edns", 1232, false, 70},
		{200, "edns", 1232, true, 60},
		{1000, "tcp", 65535, false, 1000},
		{5000, "tcp", 65535, true, 4000},
	} {
		s.Set(crowd(test.pods))
		m := ask(s, "peers.default.svc.cluster.local. A "+test.how)
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if len(wire) > test.most || m.Truncated != test.truncated || len(m.Answer) < test.answers {
			t.Errorf("%d pods %s: %d bytes, truncated %v, %d answers; want at most %d, %v, at least %d",
				test.pods, test.how, len(wire), m.Truncated, len(m.Answer), test.most, test.truncated, test.answers)
		}
	}
}

// TestSpread asks often: every address is the first now and then.
func TestSpread(t *testing.T) {
	s := New()
	s.Set(studyLab())
	first := map[string]bool{}
	for range 200 {
		first[ask(s, "peers.default.svc.cluster.local. A").Answer[0].(*dns.A).A.String()] = true
	}
	if len(first) != 3 {
		t.Errorf("first are only %v", first)
	}
}

func BenchmarkCompile(b *testing.B) {
	state := studyLab()
	for i := range 10000 {
		at := netip.AddrFrom4([4]byte{10, 97, byte(i >> 8), byte(i)})
		state.Cluster.Services = append(state.Cluster.Services, api.Service{Namespace: "default", Name: fmt.Sprintf("service-%d", i), ClusterIP: at})
	}
	b.ReportAllocs()
	for b.Loop() {
		compile(state.Cluster)
	}
}

func BenchmarkAnswer(b *testing.B) {
	s := New()
	s.Set(studyLab())
	b.ReportAllocs()
	for b.Loop() {
		ask(s, "webpod.default.svc.cluster.local. A edns")
	}
}

// FuzzAnswer sends anything that can be parsed: each is answered with what can
// be packed and fits, and names nothing but what the lab has.
func FuzzAnswer(f *testing.F) {
	archive, err := txtar.ParseFile("testdata/answers.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		words := strings.Fields(file.Name)
		m := new(dns.Msg)
		m.SetQuestion(words[0], dns.StringToType[words[1]])
		m.SetEdns0(4096, true)
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, true)
	}
	s := New()
	s.Set(studyLab())
	f.Fuzz(func(t *testing.T, wire []byte, datagram bool) {
		query := new(dns.Msg)
		if query.Unpack(wire) != nil {
			return
		}
		most := dns.MaxMsgSize
		if datagram {
			most = largest
		}
		packed, err := s.answer(query, datagram).Pack()
		if err != nil || len(packed) > most {
			t.Fatalf("%v: %d bytes, %v", query, len(packed), err)
		}
		if again := new(dns.Msg); again.Unpack(packed) != nil || again.Id != query.Id || !again.Response {
			t.Fatalf("%v: answered with %v", query, again)
		}
	})
}
