//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
)

// cluster is a pod 10.0.0.2 and a host 10.0.0.1 that serves in many ways, good and bad.
type cluster struct {
	pod, host *nstest.Namespace
	prober    *Prober
}

const (
	podAddress  = "10.0.0.2"
	hostAddress = "10.0.0.1"
	podName     = "default/curl-pod"
)

func newCluster(t *testing.T) cluster {
	t.Helper()
	c := cluster{pod: nstest.New(t), host: nstest.New(t)}
	c.pod.Connect("eth0", c.host, "lxc0")
	c.pod.IP("addr add " + podAddress + "/24 dev eth0")
	c.host.IP("addr add " + hostAddress + "/24 dev lxc0")
	// A host that is there and says nothing, one that nobody is, and one that is forbidden.
	c.pod.IP("neigh add 10.0.0.66 lladdr 02:00:00:00:00:66 dev eth0")
	c.pod.IP("route add prohibit 192.0.2.1")
	c.pod.IP("route add unreachable 192.0.2.2")
	c.prober = New(Config{
		Netns: func(pod string) (string, bool) { return c.pod.Path(), pod == podName },
		Resolver: func() Resolver {
			return Resolver{Server: netip.MustParseAddrPort(hostAddress + ":53"), Search: []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"}}
		},
	})
	return c
}

// listen opens a TCP port on the host, on which handle answers each connection.
func (c cluster) listen(t *testing.T, port int, handle func(net.Conn)) {
	t.Helper()
	var l net.Listener
	var err error
	c.host.Do(func() { l, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", hostAddress, port)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
}

func (c cluster) serve(t *testing.T, port int, handler http.HandlerFunc) {
	t.Helper()
	var l net.Listener
	var err error
	c.host.Do(func() { l, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", hostAddress, port)) })
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(l) }()
}

func whoami(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hostname: webpod-1\nIP: 127.0.0.1\nRemoteAddr: %s\nGET / HTTP/1.1\nHost: %s\nRemoteAddr: 9.9.9.9:9\n", r.RemoteAddr, r.Host)
}

func (c cluster) fetch(t *testing.T, targets ...api.FetchTarget) []api.FetchResult {
	t.Helper()
	for i := range targets {
		targets[i].Count = max(targets[i].Count, 1)
		if targets[i].Timeout == 0 {
			targets[i].Timeout = 5 * time.Second
		}
		if targets[i].Protocol == "" {
			targets[i].Protocol = protocolHTTP
		}
	}
	r, err := c.prober.Fetch(context.Background(), api.FetchRequest{Targets: targets})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Results) != len(targets) {
		t.Fatalf("%d results for %d targets", len(r.Results), len(targets))
	}
	return r.Results
}

func TestFetchFromAPod(t *testing.T) {
	c := newCluster(t)
	c.serve(t, 80, whoami)
	c.serve(t, 81, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("RemoteAddr", r.RemoteAddr)
		fmt.Fprintln(w, "<h1>Web Server : router</h1>")
	})
	before, _ := os.Readlink("/proc/self/ns/net")
	got := c.fetch(t, api.FetchTarget{Pod: podName, To: addr(hostAddress), Port: 80, Count: 20, Parallel: 8}, api.FetchTarget{Pod: podName, To: addr(hostAddress), Port: 81})
	if after, _ := os.Readlink("/proc/self/ns/net"); after != before {
		t.Errorf("the process was in %s and is in %s", before, after)
	}
	var ports []uint16
	for _, a := range got[0].Attempts {
		ports = append(ports, a.Local.Port())
		local := netip.AddrPortFrom(addr(podAddress), a.Local.Port())
		want := api.FetchAttempt{Peer: netip.MustParseAddrPort(hostAddress + ":80"), Local: local, RemoteAddr: local, Status: 200, Hostname: "webpod-1", Took: a.Took}
		if diff := cmp.Diff(want, a, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	slices.Sort(ports)
	if n := len(slices.Compact(ports)); n != 20 {
		t.Errorf("20 requests went over %d connections", n)
	}
	if a := got[1].Attempts[0]; a.RemoteAddr != a.Local || a.Hostname != "" || a.Status != 200 {
		t.Errorf("the router's page: %+v", a)
	}
}

func TestFetchFailures(t *testing.T) {
	c := newCluster(t)
	c.listen(t, 90, func(conn net.Conn) { // resets what was established
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	})
	c.listen(t, 91, func(conn net.Conn) { fmt.Fprint(conn, "SSH-2.0-OpenSSH\r\n"); conn.Close() })
	c.listen(t, 92, func(conn net.Conn) { conn.Close() })
	c.listen(t, 93, func(net.Conn) {}) // takes the request and says nothing
	const short = 200 * time.Millisecond
	tests := []struct {
		name, class, text string
		target            api.FetchTarget
	}{
		{"black hole", classTimeout, "no answer in time", api.FetchTarget{Pod: podName, To: addr("10.0.0.66"), Port: 80, Timeout: short}},
		{"silent server", classTimeout, "connected, but no answer in time", api.FetchTarget{Pod: podName, To: addr(hostAddress), Port: 93, Timeout: short}},
		{"closed port", classRefused, "connection refused", api.FetchTarget{Pod: podName, To: addr(hostAddress), Port: 99}},
		{"no route", classUnreachable, "network is unreachable", api.FetchTarget{Pod: podName, To: addr("203.0.113.1"), Port: 80}},
		{"unreachable route", classUnreachable, "no route to host", api.FetchTarget{Pod: podName, To: addr("192.0.2.2"), Port: 80}},
		{"prohibit route", classOther, "permission denied", api.FetchTarget{Pod: podName, To: addr("192.0.2.1"), Port: 80}},
		{"not HTTP", classProtocol, "not an HTTP answer: malformed HTTP response \"SSH-2.0-OpenSSH\"", api.FetchTarget{Pod: podName, To: addr(hostAddress), Port: 91}},
		{"no such pod", classOther, "pod default/gone is not on this node", api.FetchTarget{Pod: "default/gone", To: addr(hostAddress), Port: 91}},
	}
	var targets []api.FetchTarget
	for _, test := range tests {
		targets = append(targets, test.target)
	}
	got := c.fetch(t, targets...)
	for i, test := range tests {
		if a := got[i].Attempts[0]; a.Error != test.class || a.Message != test.text {
			t.Errorf("%s: %s: %s, want %s: %s", test.name, a.Error, a.Message, test.class, test.text)
		}
	}
	// Whether a reset is met by the write or by the read is a race of the two ends.
	reset := c.fetch(t, api.FetchTarget{Pod: podName, To: addr(hostAddress), Port: 90}, api.FetchTarget{Pod: podName, To: addr(hostAddress), Port: 92})
	if a := reset[0].Attempts[0]; a.Error != classOther || a.Message != "connection reset by peer" && a.Message != "broken pipe" {
		t.Errorf("reset: %+v", a)
	}
	if a := reset[1].Attempts[0]; a.Error != classProtocol && a.Error != classOther {
		t.Errorf("closed without an answer: %+v", a)
	}
}

func TestFetchHostUnreachable(t *testing.T) {
	c := newCluster(t)
	c.pod.IP("route add default via " + hostAddress)
	c.host.Run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	c.host.IP("route add unreachable 198.51.100.1")
	got := c.fetch(t, api.FetchTarget{Pod: podName, To: addr("198.51.100.1"), Port: 80})
	if a := got[0].Attempts[0]; a.Error != classUnreachable || a.Message != "no route to host" {
		t.Errorf("%+v", a)
	}
}

// Losses are waited for all at once, within the bound on sockets.
func TestFetchIsParallel(t *testing.T) {
	c := newCluster(t)
	const timeout = 300 * time.Millisecond
	hole := api.FetchTarget{Pod: podName, To: addr("10.0.0.66"), Port: 80, Protocol: protocolTCP, Count: maxSockets, Parallel: maxSockets, Timeout: timeout}
	var got []api.FetchResult
	took := prompt(t, 4*timeout, func() { got = c.fetch(t, hole, hole) })
	if took < 2*timeout {
		t.Errorf("%d losses of %s with %d sockets took %s", 2*maxSockets, timeout, maxSockets, took)
	}
	for _, a := range append(got[0].Attempts, got[1].Attempts...) {
		if a.Error != classTimeout {
			t.Errorf("%+v", a)
		}
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := c.prober.Fetch(ctx, api.FetchRequest{Targets: []api.FetchTarget{{Pod: podName, To: addr("10.0.0.66"), Port: 80, Protocol: protocolTCP, Count: 1000, Parallel: 10, Timeout: time.Minute}}})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

func TestFetchFromTheNode(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(whoami))
	defer server.Close()
	to := netip.MustParseAddrPort(server.Listener.Addr().String())
	request := api.FetchRequest{Targets: []api.FetchTarget{{To: to.Addr(), Port: to.Port(), Protocol: protocolHTTP, Count: 3, Timeout: 5 * time.Second}}}
	r, err := New(Config{}).Fetch(context.Background(), request)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Results[0].Attempts {
		if a.Hostname != "webpod-1" || a.RemoteAddr != a.Local || a.Error != "" {
			t.Errorf("%+v", a)
		}
	}
}

// names serves DNS on the host; a name of silent. is not answered.
func (c cluster) names(t *testing.T) {
	t.Helper()
	var pc net.PacketConn
	var err error
	c.host.Do(func() { pc, err = net.ListenPacket("udp4", hostAddress+":53") })
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]string{"webpod.default.svc.cluster.local.": "10.96.0.20", "host.cluster.local.": hostAddress, "a.b.c.d.e.": "10.0.0.7"}
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		switch a, ok := records[name]; {
		case strings.HasSuffix(name, "silent."):
			return
		case ok:
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.ParseIP(a)})
		case !strings.HasSuffix(name, "cluster.local."):
			m.Rcode = dns.RcodeRefused
		default:
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})}
	t.Cleanup(func() { _ = server.Shutdown() })
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { _ = server.ActivateAndServe() }()
	<-started
}

func TestFetchByName(t *testing.T) {
	c := newCluster(t)
	c.names(t)
	c.serve(t, 80, whoami)
	query := func(name string) api.FetchTarget {
		return api.FetchTarget{Pod: podName, To: addr(hostAddress), Port: 53, Protocol: protocolDNS, Path: name, Timeout: 300 * time.Millisecond}
	}
	got := c.fetch(t,
		api.FetchTarget{Pod: podName, Name: "host", Port: 80},
		api.FetchTarget{Pod: podName, Name: "nobody", Port: 80, Count: 2},
		query("webpod"), query("webpod.default.svc.cluster.local."), query("nobody.cluster.local."), query("a.b.c.d.e"), query("very.silent."),
	)
	if r := got[0]; r.Resolved != addr(hostAddress) || r.Attempts[0].Hostname != "webpod-1" {
		t.Errorf("host: %+v", r)
	}
	for _, a := range got[1].Attempts {
		want := "nobody: the name server answers REFUSED (asked 10.0.0.1:53)"
		if a.Error != classResolve || a.Message != want || got[1].Resolved.IsValid() {
			t.Errorf("nobody: %+v", got[1])
		}
	}
	var answers []string
	for _, r := range got[2:] {
		a := r.Attempts[0]
		answers = append(answers, fmt.Sprint(a.Addresses, " ", a.Error, " ", a.Message))
	}
	want := []string{"[10.96.0.20]  ", "[10.96.0.20]  ", "[] resolve no such name", "[10.0.0.7]  ", "[] timeout no answer in time"}
	if diff := cmp.Diff(want, answers); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A name server that is not there makes the name fail, not the address.
func TestFetchWithoutNameServer(t *testing.T) {
	c := newCluster(t)
	got := c.fetch(t, api.FetchTarget{Pod: podName, Name: "webpod", Port: 80})
	if a := got[0].Attempts[0]; a.Error != classResolve || a.Message != "webpod: connection refused (asked 10.0.0.1:53)" {
		t.Errorf("%+v", a)
	}
	c.prober = New(Config{Netns: c.prober.config.Netns})
	got = c.fetch(t, api.FetchTarget{Pod: podName, Name: "webpod", Port: 80})
	if a := got[0].Attempts[0]; a.Error != classResolve || a.Message != "webpod: no name server" {
		t.Errorf("%+v", a)
	}
}

func TestCandidates(t *testing.T) {
	r := Resolver{Search: []string{"default.svc.cluster.local", "cluster.local"}, Dots: 5}
	for name, want := range map[string]string{
		"webpod":      "webpod.default.svc.cluster.local. webpod.cluster.local. webpod.",
		"webpod.":     "webpod.",
		"a.b.c.d.e.f": "a.b.c.d.e.f. a.b.c.d.e.f.default.svc.cluster.local. a.b.c.d.e.f.cluster.local.",
	} {
		if got := strings.Join(r.candidates(name), " "); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestFetchRefusesNonsense(t *testing.T) {
	good := api.FetchTarget{To: addr(hostAddress), Port: 80, Protocol: protocolHTTP, Count: 1, Timeout: time.Second}
	for name, spoil := range map[string]func(*api.FetchTarget){
		"no address":   func(f *api.FetchTarget) { f.To = netip.Addr{} },
		"IPv6":         func(f *api.FetchTarget) { f.To = addr("2001:db8::1") },
		"no port":      func(f *api.FetchTarget) { f.Port = 0 },
		"protocol":     func(f *api.FetchTarget) { f.Protocol = "ftp" },
		"no count":     func(f *api.FetchTarget) { f.Count = 0 },
		"no timeout":   func(f *api.FetchTarget) { f.Timeout = 0 },
		"no DNS name":  func(f *api.FetchTarget) { f.Protocol = protocolDNS },
		"too many":     func(f *api.FetchTarget) { f.Count = maxAttempts + 1 },
		"bad parallel": func(f *api.FetchTarget) { f.Parallel = -1 },
	} {
		target := good
		spoil(&target)
		_, err := New(Config{}).Fetch(context.Background(), api.FetchRequest{Targets: []api.FetchTarget{target}})
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Code != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPingFromAPod(t *testing.T) {
	c := newCluster(t)
	echo := func(pod, to string) api.PingTarget {
		return api.PingTarget{Pod: pod, To: addr(to), Count: 2, Timeout: 300 * time.Millisecond, Size: 56}
	}
	targets := []api.PingTarget{echo(podName, hostAddress), echo("", "127.0.0.1"), echo("default/gone", hostAddress), echo(podName, "10.0.0.66"), echo(podName, "192.0.2.2")}
	r, err := c.prober.Ping(context.Background(), api.PingRequest{Targets: targets})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range r.Results {
		text := fmt.Sprintf("%d of %d", r.Received, r.Sent)
		if r.Failure != nil {
			text += ": " + r.Failure.Kind + ": " + r.Failure.Message
		}
		got = append(got, text)
	}
	want := []string{"2 of 2", "2 of 2", "0 of 0: local: pod default/gone is not on this node", "0 of 2", "0 of 2: local: no route to host"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := Ping(context.Background(), api.PingRequest{Targets: targets}); err == nil {
		t.Error("a node without pods sends from one")
	}
}

func TestProberLeavesNothing(t *testing.T) {
	c := newCluster(t)
	c.serve(t, 80, whoami)
	run := func() {
		c.fetch(t, api.FetchTarget{Pod: podName, To: addr(hostAddress), Port: 80, Count: 10, Parallel: 10}, api.FetchTarget{Pod: podName, To: addr("10.0.0.66"), Port: 80, Timeout: 50 * time.Millisecond})
		if _, err := c.prober.Ping(context.Background(), api.PingRequest{Targets: []api.PingTarget{{Pod: podName, To: addr(hostAddress), Count: 1, Timeout: time.Second, Size: 56}}}); err != nil {
			t.Fatal(err)
		}
	}
	run()
	time.Sleep(50 * time.Millisecond)
	leaks(t, run)
}

// A request for which there was no socket has failed, and is not sent to nowhere.
func TestFetchWithoutAFreeSocket(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	f := fetcher{rooms: New(Config{}).enter([]string{""}), sockets: make(chan struct{})} // none is ever free
	for name, target := range map[string]api.FetchTarget{
		"by name":    {Name: "webpod", Port: 80, Protocol: protocolHTTP, Count: 2, Timeout: time.Second},
		"by address": {To: addr("127.0.0.1"), Port: 80, Protocol: protocolHTTP, Count: 2, Timeout: time.Second},
	} {
		for _, a := range f.target(ctx, target).Attempts {
			if a.Error != classTimeout || a.Message == "" {
				t.Errorf("%s: %+v", name, a)
			}
		}
	}
	stopped, stop := context.WithCancel(context.Background())
	stop()
	if a := f.target(stopped, api.FetchTarget{To: addr("127.0.0.1"), Port: 80, Count: 1, Timeout: time.Second}).Attempts[0]; a.Error != classOther {
		t.Errorf("stopped: %+v", a)
	}
}

// Whatever becomes of one request, the agent lives on.
func TestFetchSurvivesAPanic(t *testing.T) {
	f := fetcher{sockets: make(chan struct{}, 1)}
	for range 2 { // the socket is free again
		err := f.within(context.Background(), time.Second, func(context.Context) error { panic("As4 called on IP zero value") })
		var known *failure
		if !errors.As(err, &known) || known.class != classOther {
			t.Errorf("%v", err)
		}
	}
}

func TestConnectRefusesNoAddress(t *testing.T) {
	for _, to := range []netip.AddrPort{{}, netip.MustParseAddrPort("[2001:db8::1]:80")} {
		if c, err := (*room)(nil).connect(context.Background(), unix.SOCK_STREAM, to); err == nil || c != nil || classify(err) != classOther {
			t.Errorf("%s: %v, %v", to, c, err)
		}
	}
}
