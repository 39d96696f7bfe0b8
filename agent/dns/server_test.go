//go:build linux

package dns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/listen"
	"github.com/native-routing/labctl/agent/nstest"
)

// start runs a server in the namespace until the test ends, or stop.
func start(t *testing.T, ns *nstest.Namespace) (s *Server, stop func()) {
	s = New()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ns.Do(func() { s.Run(ctx) })
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return s, stop
}

// eventually waits until the server stands like that.
func eventually(t *testing.T, s *Server, want []api.Object, wantSettled bool) {
	t.Helper()
	var diff string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		objects, settled := s.Objects()
		if diff = cmp.Diff(want, objects); diff == "" && settled == wantSettled {
			return
		}
	}
	t.Fatalf("settled is not %v, or objects differ (-want +got):\n%s", wantSettled, diff)
}

func inPlace(at string) []api.Object {
	return []api.Object{{Kind: "dns", Name: at, Owner: "agent", Condition: api.InPlace}}
}

// exchange asks over the namespace's own network.
func exchange(ns *nstest.Namespace, network, name string) (answer *dns.Msg, err error) {
	query := new(dns.Msg)
	query.SetQuestion(name, dns.TypeA)
	client := dns.Client{Net: network, Timeout: 5 * time.Second}
	ns.Do(func() { answer, _, err = client.Exchange(query, "172.20.0.1:53") })
	return answer, err
}

const webpod = "webpod.default.svc.cluster.local."

func wantAnswer(t *testing.T, ns *nstest.Namespace) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		answer, err := exchange(ns, network, webpod)
		if err != nil {
			t.Errorf("%s: %v", network, err)
			continue
		}
		if got, want := text(answer), "NOERROR aa\n"+webpod+" 5 IN A 10.97.1.2\n"; got != want {
			t.Errorf("%s: got %s\nwant %s", network, got, want)
		}
	}
}

// TestAddressComesAndGoes serves before the gateway's address is there, while
// somebody deletes the device, and after it was put back.
func TestAddressComesAndGoes(t *testing.T) {
	ns := nstest.New(t)
	s, stop := start(t, ns)
	eventually(t, s, nil, true)
	s.Set(studyLab())
	eventually(t, s, inPlace("172.20.0.1:53"), true)
	if _, err := exchange(ns, "udp", webpod); err == nil {
		t.Error("answered without the address")
	}
	for range 2 {
		ns.IP("link add labctl_host type veth peer labctl_net")
		ns.IP("addr add 172.20.0.1/32 dev labctl_host")
		ns.IP("link set labctl_host up")
		wantAnswer(t, ns)
		ns.IP("link del labctl_host")
		if _, err := exchange(ns, "udp", webpod); err == nil {
			t.Error("answered without the address")
		}
	}
	ns.IP("addr add 172.20.0.1/32 dev lo")
	wantAnswer(t, ns)
	if diff := cmp.Diff(map[string]uint64{"NOERROR": 6}, s.Queries()); diff != "" {
		t.Errorf("queries (-want +got):\n%s", diff)
	}

	moved := studyLab()
	moved.Cluster.Nodes[0].Gateway = address("172.20.0.254")
	s.Set(moved)
	eventually(t, s, inPlace("172.20.0.254:53"), true)
	if got := listeners(ns); got != "tcp 172.20.0.254:53\nudp 172.20.0.254:53\n" {
		t.Errorf("after the gateway has moved:\n%s", got)
	}
	s.Set(api.State{Node: "router"})
	eventually(t, s, nil, true)
	if got := listeners(ns); got != "" {
		t.Errorf("without a cluster:\n%s", got)
	}
	s.Set(studyLab())
	eventually(t, s, inPlace("172.20.0.1:53"), true)
	stop()
	if got := listeners(ns); got != "" {
		t.Errorf("after the end:\n%s", got)
	}
}

func listeners(ns *nstest.Namespace) string {
	var lines []string
	for line := range strings.Lines(ns.Run("ss", "-Hltun")) {
		fields := strings.Fields(line)
		lines = append(lines, fields[0]+" "+fields[4]+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestTakenPort has another server on the port first.
func TestTakenPort(t *testing.T) {
	ns := nstest.New(t)
	var other interface{ Close() error }
	var err error
	ns.Do(func() { other, err = listen.TCP(t.Context(), netip.MustParseAddrPort("0.0.0.0:53")) })
	if err != nil {
		t.Fatal(err)
	}
	s, _ := start(t, ns)
	s.Set(studyLab())
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, s, []api.Object{{Kind: "dns", Name: "172.20.0.1:53", Owner: "agent", Condition: api.Failed,
		Reason: fmt.Sprintf("listen on tcp 172.20.0.1:53: address already in use (%s has it, process %d)", strings.TrimSpace(string(comm)), os.Getpid())}}, false)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, s, inPlace("172.20.0.1:53"), true) // by itself
}

// TestResolver asks by the C library, with a pod's resolv.conf.
func TestResolver(t *testing.T) {
	ns := nstest.New(t)
	ns.IP("addr add 172.20.0.1/32 dev lo")
	s, _ := start(t, ns)
	s.Set(crowd(100))
	eventually(t, s, inPlace("172.20.0.1:53"), true)
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 172.20.0.1\noptions ndots:5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ command, want string }{
		{"getent hosts webpod", "10.97.1.2       webpod.default.svc.cluster.local\n"},
		{"getent ahosts webpod", "10.97.1.2       STREAM webpod.default.svc.cluster.local\n10.97.1.2       DGRAM  \n10.97.1.2       RAW    \n"},
		{"getent hosts webpod.default", "10.97.1.2       webpod.default.svc.cluster.local\n"},
		{"getent hosts webpod.default.svc.cluster.local", "10.97.1.2       webpod.default.svc.cluster.local\n"},
		{"getent hosts kube-dns.kube-system", "10.96.0.10      kube-dns.kube-system.svc.cluster.local\n"},
		{"getent hosts k8s-w0", "192.168.20.100  k8s-w0.cluster.local\n"},
		{"getent hosts k8s-w0.", "192.168.20.100  k8s-w0\n"},
		{"getent hosts 10.97.1.2", "10.97.1.2       webpod.default.svc.cluster.local\n"},
		{"getent hosts 192.168.20.100", "192.168.20.100  k8s-w0\n"},
		{"getent hosts 172.20.2.6", "172.20.2.6      172-20-2-6.default.pod.cluster.local\n"},
		{"getent ahosts peers | grep -c STREAM", "100\n"}, // by TCP
		{"getent hosts nothing; echo $?", "2\n"},
		{"getent hosts example.com; echo $?", "2\n"},
		{"curl -s http://nothing/; echo $?", "6\n"}, // CURLE_COULDNT_RESOLVE_HOST
	} {
		begin := time.Now()
		got := ns.Run("unshare", "-m", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && `+test.command, conf)
		if got != test.want {
			t.Errorf("%s\n got %q\nwant %q", test.command, got, test.want)
		}
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("%s took %s: the resolver waits for something", test.command, took)
		}
	}
}
