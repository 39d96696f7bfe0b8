//go:build linux

package web_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/listen"
	"github.com/native-routing/labctl/agent/nstest"
	"github.com/native-routing/labctl/agent/web"
)

const page = "<h1>Web Server : router</h1>"

// start runs a server in the namespace until the test ends, or stop.
func start(t *testing.T, ns *nstest.Namespace) (s *web.Server, stop func()) {
	s = web.New()
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

// eventually waits until the page stands like that.
func eventually(t *testing.T, s *web.Server, want []api.Object, wantSettled bool) {
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

var inPlace = []api.Object{{Kind: "page", Name: "0.0.0.0:80", Owner: "agent", Condition: api.InPlace}}

// dial connects from inside the namespace.
func dial(t *testing.T, ns *nstest.Namespace, to string) net.Conn {
	t.Helper()
	var conn net.Conn
	var err error
	ns.Do(func() { conn, err = net.Dial("tcp4", to) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func TestPage(t *testing.T) {
	ns := nstest.New(t)
	ns.IP("addr add 10.10.1.200/32 dev lo")
	s, stop := start(t, ns)
	eventually(t, s, nil, true)
	s.Set(api.State{Page: page})
	eventually(t, s, inPlace, true)

	date := regexp.MustCompile(`Date: [^\r]*`)
	for _, test := range []struct{ name, request, want string }{
		{"get", "GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 29\r\nContent-Type: text/html; charset=utf-8\r\n" +
			"RemoteAddr: CLIENT\r\nDate: …\r\nConnection: close\r\n\r\n" + page + "\n"},
		{"any path", "GET /a/../%2f//b?c HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 29\r\nContent-Type: text/html; charset=utf-8\r\n" +
			"RemoteAddr: CLIENT\r\nDate: …\r\nConnection: close\r\n\r\n" + page + "\n"},
		{"head", "HEAD / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 29\r\nContent-Type: text/html; charset=utf-8\r\n" +
			"RemoteAddr: CLIENT\r\nDate: …\r\nConnection: close\r\n\r\n"},
		{"post", "POST / HTTP/1.1", "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\nContent-Type: text/plain; charset=utf-8\r\n" +
			"RemoteAddr: CLIENT\r\nX-Content-Type-Options: nosniff\r\nDate: …\r\nContent-Length: 18\r\nConnection: close\r\n\r\nonly GET and HEAD\n"},
		{"options", "OPTIONS * HTTP/1.1", "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\nContent-Type: text/plain; charset=utf-8\r\n" +
			"RemoteAddr: CLIENT\r\nX-Content-Type-Options: nosniff\r\nDate: …\r\nContent-Length: 18\r\nConnection: close\r\n\r\nonly GET and HEAD\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := dial(t, ns, "10.10.1.200:80")
			fmt.Fprintf(conn, "%s\r\nHost: x\r\nConnection: close\r\n\r\n", test.request)
			got, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			text := date.ReplaceAllString(strings.ReplaceAll(string(got), conn.LocalAddr().String(), "CLIENT"), "Date: …")
			if diff := cmp.Diff(test.want, text); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := ns.Run("curl", "-s", "10.10.1.200"); got != page+"\n" {
		t.Errorf("curl gives %q", got)
	}

	// A connection that is open sees a new page, and is closed when there is none.
	conn := dial(t, ns, "127.0.0.1:80")
	reader := bufio.NewReader(conn)
	s.Set(api.State{Page: "other"})
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(answer.Body); string(body) != "other\n" {
		t.Errorf("the new page is %q", body)
	}
	s.Set(api.State{})
	eventually(t, s, nil, true)
	if _, err := reader.ReadByte(); err == nil {
		t.Error("the connection outlives the page")
	}
	if got := ns.Run("sh", "-c", "curl -s 10.10.1.200; echo $?"); got != "7\n" { // CURLE_COULDNT_CONNECT
		t.Errorf("without a page, curl ends with %q", got)
	}
	s.Set(api.State{Page: page})
	eventually(t, s, inPlace, true)
	stop()
	if got := ns.Run("ss", "-Hltn"); got != "" {
		t.Errorf("after the end somebody listens:\n%s", got)
	}
}

func TestPlainTCP(t *testing.T) {
	ns := nstest.New(t)
	s, _ := start(t, ns)
	s.Set(api.State{Page: page})
	eventually(t, s, inPlace, true)
	if got := ns.Run("sh", "-c", "ss -HlnM | wc -l"); got != "0\n" {
		t.Errorf("MPTCP listeners: %s", got)
	}
}

// TestTakenPort has another server on port 80 first.
func TestTakenPort(t *testing.T) {
	ns := nstest.New(t)
	var other io.Closer
	var err error
	ns.Do(func() { other, err = listen.TCP(t.Context(), netip.MustParseAddrPort("127.0.0.1:80")) })
	if err != nil {
		t.Fatal(err)
	}
	s, _ := start(t, ns)
	s.Set(api.State{Page: page})
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	failed := []api.Object{{Kind: "page", Name: "0.0.0.0:80", Owner: "agent", Condition: api.Failed,
		Reason: fmt.Sprintf("listen on tcp 0.0.0.0:80: address already in use (%s has it, process %d)", strings.TrimSpace(string(comm)), os.Getpid())}}
	eventually(t, s, failed, false)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, s, inPlace, true) // by itself
}
