//go:build linux

package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/route"
)

func validState() api.State {
	return api.State{
		Generation: "1", Lab: "study", Node: "k8s-ctr",
		Pods: &api.PodNetwork{
			CIDR: netip.MustParsePrefix("172.20.0.0/24"), Gateway: netip.MustParseAddr("172.20.0.1"), MTU: 1500, DirectRoutes: true,
			Peers: []api.Peer{{Name: "k8s-w1", Address: netip.MustParseAddr("192.168.10.101"), CIDR: netip.MustParsePrefix("172.20.1.0/24")}},
		},
		Sysctls: []api.Sysctl{{Name: "net/ipv4/ip_forward", Value: "1"}, {Name: "net/ipv4/conf/eth0.100/rp_filter", Value: "0"}},
		Underlay: api.Underlay{
			Links:  []api.UnderlayLink{{Name: "eth1", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.10.100/24")}}},
			Routes: []api.UnderlayRoute{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: []netip.Addr{netip.MustParseAddr("10.0.2.2")}}},
		},
	}
}

func TestValidate(t *testing.T) {
	if err := validate(validState()); err != nil {
		t.Errorf("a good state: %v", err)
	}
	for _, test := range []struct {
		want  string
		spoil func(*api.State)
	}{
		{"generation is missing", func(s *api.State) { s.Generation = "" }},
		{`lab "a\nb": want at most 128 printable bytes`, func(s *api.State) { s.Lab = "a\nb" }},
		{"pods.cidr 172.20.0.5/24: want an IPv4 network such as 172.20.0.0/24", func(s *api.State) { s.Pods.CIDR = netip.MustParsePrefix("172.20.0.5/24") }},
		{"pods.cidr invalid Prefix: want an IPv4 network", func(s *api.State) { s.Pods.CIDR = netip.Prefix{} }},
		{"pods.cidr 0.0.0.0/0: want a prefix length of at least 8", func(s *api.State) { s.Pods.CIDR = netip.MustParsePrefix("0.0.0.0/0") }},
		{"pods.cidr fd00::/64: want an IPv4 network", func(s *api.State) { s.Pods.CIDR = netip.MustParsePrefix("fd00::/64") }},
		{"pods.gateway 172.21.0.1: want an address in pods.cidr 172.20.0.0/24", func(s *api.State) { s.Pods.Gateway = netip.MustParseAddr("172.21.0.1") }},
		{"pods.gateway invalid IP: want the IPv4 address of a host", func(s *api.State) { s.Pods.Gateway = netip.Addr{} }},
		{"pods.mtu 0: want 68 to 65535", func(s *api.State) { s.Pods.MTU = 0 }},
		{"pods.peers[0].address 0.0.0.0: want the IPv4 address of a host", func(s *api.State) { s.Pods.Peers[0].Address = netip.IPv4Unspecified() }},
		{"pod CIDR 172.20.0.128/25 overlaps 172.20.0.0/24", func(s *api.State) { s.Pods.Peers[0].CIDR = netip.MustParsePrefix("172.20.0.128/25") }},
		{`sysctl "kernel/hostname": want a name under net/`, func(s *api.State) { s.Sysctls[0].Name = "kernel/hostname" }},
		{`sysctl "net/../kernel/hostname": want a name under net/`, func(s *api.State) { s.Sysctls[0].Name = "net/../kernel/hostname" }},
		{`sysctl "net/ipv4/": want a name under net/`, func(s *api.State) { s.Sysctls[0].Name = "net/ipv4/" }},
		{`sysctl "net/ipv4/ip_forward\x00": want a name under net/`, func(s *api.State) { s.Sysctls[0].Name += "\x00" }},
		{"sysctl net/ipv4/ip_forward is given twice", func(s *api.State) { s.Sysctls[1].Name = s.Sysctls[0].Name }},
		{"sysctl net/ipv4/ip_forward has no value", func(s *api.State) { s.Sysctls[0].Value = "" }},
		{`underlay.links[0].name "../x": want an interface name`, func(s *api.State) { s.Underlay.Links[0].Name = "../x" }},
		{"underlay.links[0].mtu 70000: want 68 to 65535", func(s *api.State) { s.Underlay.Links[0].MTU = 70000 }},
		{"underlay.routes[0].to 10.0.0.1/8: want an IPv4 network", func(s *api.State) { s.Underlay.Routes[0].To = netip.MustParsePrefix("10.0.0.1/8") }},
		{"underlay.routes[0].via fe80::1: want the IPv4 address of a host", func(s *api.State) { s.Underlay.Routes[0].Via[0] = netip.MustParseAddr("fe80::1") }},
	} {
		s := validState()
		test.spoil(&s)
		err := validate(s)
		if !errors.Is(err, api.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v\nwant %s", err, test.want)
		}
	}
	s := validState()
	s.Generation, s.Pods.MTU = "", 1
	if err := validate(s); err == nil || err.Error() != "state: generation is missing; pods.mtu 1: want 68 to 65535" {
		t.Errorf("all mistakes at once: %v", err)
	}
}

func TestStore(t *testing.T) {
	s := store{t.TempDir()}
	if state, err := s.load(); state != nil || err != nil {
		t.Errorf("nothing there: %v, %v", state, err)
	}
	raw, err := encodeState(validState())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.save(raw); err != nil {
		t.Fatal(err)
	}
	state, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := encodeState(*state); !bytes.Equal(again, raw) {
		t.Errorf("read back:\n%s\nwant:\n%s", again, raw)
	}
	// A half-written file of an agent that was killed is of no account.
	path := filepath.Join(s.dir, stateFile)
	if err := os.WriteFile(path+".new", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if state, err := s.load(); state == nil || err != nil {
		t.Errorf("with a half-written one beside it: %v", err)
	}
	for name, content := range map[string]string{"truncated": string(raw[:len(raw)/2]), "empty": "", "invalid": `{"generation":""}`, "unknown": `{"generation":"1","mood":"good"}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.load(); !errors.Is(err, errCorrupt) {
			t.Errorf("%s: %v, want %v", name, err, errCorrupt)
		}
		if aside, err := os.ReadFile(path + ".corrupt"); err != nil || string(aside) != content {
			t.Errorf("%s: moved aside: %q, %v", name, aside, err)
		}
		if state, err := s.load(); state != nil || err != nil {
			t.Errorf("%s: the second time: %v, %v", name, state, err)
		}
	}
	// A disk that does not take it: the old state stays.
	if err := s.save(raw); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + ".new"); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+".new/x", 0o700); err != nil {
		t.Fatal(err)
	}
	other := validState()
	other.Generation = "2"
	raw2, _ := encodeState(other)
	if err := s.save(raw2); err == nil {
		t.Error("saved into a directory")
	}
	if state, err := s.load(); err != nil || state.Generation != "1" {
		t.Errorf("after a failed save: %v, %v", state, err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	lock, err := acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = acquire(dir)
	want := "an agent runs here already: pid " + strconv.Itoa(os.Getpid()) + " holds " + filepath.Join(dir, lockName)
	if !errors.Is(err, ErrRunning) || err.Error() != want {
		t.Errorf("second: %v\nwant %s", err, want)
	}
	lock.Close()
	lock, err = acquire(dir)
	if err != nil {
		t.Errorf("after the first ended: %v", err)
	}
	lock.Close()
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	if err := os.WriteFile(path, nil, 0o644); err != nil { // what a dead agent left
		t.Fatal(err)
	}
	l, err := listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v, want a socket of 0600", info.Mode(), err)
	}
	l.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after Close: %v", err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 120))
	_, err = listen(t.Context(), long)
	if err == nil || !strings.HasSuffix(err.Error(), "and a unix socket's holds 107: choose a shorter run directory") {
		t.Errorf("long path: %v", err)
	}
}

// client serves the handler to a real client over a real socket.
func client(t *testing.T, h http.Handler) *api.Client {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c := api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	t.Cleanup(c.Close)
	return c
}

func TestPanicIsAnswered(t *testing.T) {
	var log bytes.Buffer
	d := &daemon{config: Config{
		Log:     slog.New(slog.NewTextHandler(&log, nil)),
		Version: func() api.Version { panic("no version") },
	}}
	_, err := api.GetVersion.Call(t.Context(), client(t, d.handler()), api.None{})
	var failure *api.Error
	if !errors.As(err, &failure) || failure.Code != api.CodeInternal || failure.Message != "panic: no version; the agent's log says where" {
		t.Errorf("answer: %v", err)
	}
	if !strings.Contains(log.String(), "TestPanicIsAnswered") {
		t.Errorf("the log does not say where:\n%s", &log)
	}
}

// FuzzState throws bodies at PutState up to where the kernel begins: decoding,
// validation and the plan.
func FuzzState(f *testing.F) {
	raw, err := encodeState(validState())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"generation":"1","pods":{}}`))
	f.Add([]byte(`{"generation":"1","pods":{"cidr":"0.0.0.0/0","gateway":"1.1.1.1","mtu":68,"peers":[{}]}}`))
	f.Add([]byte(`null`))
	mux := http.NewServeMux()
	api.PutState.Handle(mux, func(_ context.Context, s api.State) (api.Applied, error) {
		if err := validate(s); err != nil {
			return api.Applied{}, err
		}
		route.Plan(s, route.Observation{})
		return api.Applied{Generation: s.Generation}, nil
	})
	f.Fuzz(func(t *testing.T, body []byte) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodPut, api.PutState.Path, bytes.NewReader(body)))
		answer, _ := io.ReadAll(w.Result().Body)
		if !json.Valid(answer) {
			t.Errorf("status %d: %q is no JSON", w.Code, answer)
		}
		if state, err := decodeState(body); err == nil {
			if again, err := encodeState(state); err != nil {
				t.Errorf("encode: %v", err)
			} else if _, err := decodeState(again); err != nil {
				t.Errorf("what was written cannot be read: %v\n%s", err, again)
			}
		}
	})
}
