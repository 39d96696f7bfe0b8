package whoami

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test's own executable be the server where it is called so.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "whoami" {
		os.Exit(Main(os.Args[2:], os.Stdout, os.Stderr, func() {}))
	}
	os.Exit(m.Run())
}

// ask sends a request as it is and returns the answer's header and body.
func ask(t *testing.T, address, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func TestDescribes(t *testing.T) {
	server := httptest.NewServer(New("iamfoo"))
	defer server.Close()
	hostname, _ := os.Hostname()
	response, body := ask(t, server.Listener.Addr().String(),
		"GET /some/path?a=b HTTP/1.1\nHost: webpod\nX-B: 2\nAccept: */*\nUser-Agent: curl/8.5.0\nX-A: 1\n\n")
	want := regexp.MustCompile(`^Name: iamfoo\nHostname: ` + regexp.QuoteMeta(hostname) + `\nIP: 127\.0\.0\.1\n(IP: [0-9a-f.:]+\n)*RemoteAddr: 127\.0\.0\.1:\d+\n` +
		`GET /some/path\?a=b HTTP/1\.1\r\nHost: webpod\r\nUser-Agent: curl/8\.5\.0\r\nAccept: \*/\*\r\nX-A: 1\r\nX-B: 2\r\n\r\n$`)
	if !want.MatchString(body) {
		t.Errorf("body:\n%q\nwant\n%s", body, want)
	}
	if got := response.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("type %q", got)
	}
	begin := time.Now()
	_, body = ask(t, server.Listener.Addr().String(), "GET /?wait=100ms&env=true HTTP/1.0\n\n")
	if took := time.Since(begin); took < 100*time.Millisecond || !strings.Contains(body, "\nPATH=") {
		t.Errorf("after %v: %q", took, body)
	}
}

func TestOtherPaths(t *testing.T) {
	server := httptest.NewServer(New(""))
	defer server.Close()
	at := server.Listener.Addr().String()
	for _, test := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET /bench HTTP/1.0\n\n", 200, "1"},
		{"GET /health HTTP/1.0\n\n", 200, ""},
		{"POST /health HTTP/1.0\nContent-Length: 3\n\n503", 200, ""},
		{"GET /health HTTP/1.0\n\n", 503, ""},
		{"HEAD /health HTTP/1.0\n\n", 503, ""},
		{"POST /health HTTP/1.0\nContent-Length: 3\n\n999", 400, ""},
		{"POST /health HTTP/1.0\nContent-Length: 2\n\nno", 400, ""},
		{"GET /health HTTP/1.0\n\n", 503, ""},
		{"POST /health HTTP/1.0\nContent-Length: 3\n\n200", 200, ""},
		{"GET /health HTTP/1.0\n\n", 200, ""},
		{"GET /data?size=5 HTTP/1.0\n\n", 200, "|ABC|"},
		{"GET /data?size=30 HTTP/1.0\n\n", 200, "|ABCDEFGHIJKLMNOPQRSTUVWXYZ-A|"},
		{"GET /data HTTP/1.0\n\n", 200, "|"},
		{"GET /data?size=-1 HTTP/1.0\n\n", 200, ""},
		{"GET /data?size=1&unit=KB HTTP/1.0\nRange: bytes=1022-\n\n", 206, "W|"},
	} {
		response, body := ask(t, at, test.request)
		if response.StatusCode != test.status || body != test.body {
			t.Errorf("%q: %d %q, want %d %q", test.request, response.StatusCode, body, test.status, test.body)
		}
	}
	response, body := ask(t, at, "GET /data?size=2&unit=mb&attachment=true HTTP/1.0\n\n")
	if len(body) != 2<<20 || response.Header.Get("Content-Disposition") != "Attachment" {
		t.Errorf("%d bytes, %v", len(body), response.Header)
	}
}

func TestAPI(t *testing.T) {
	server := httptest.NewServer(New("foo"))
	defer server.Close()
	response, body := ask(t, server.Listener.Addr().String(), "GET /api?x=1 HTTP/1.1\nHost: web\nAccept: */*\n\n")
	var answer map[string]any
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	hostname, _ := os.Hostname()
	for key, want := range map[string]string{
		"hostname": hostname, "url": "/api?x=1", "host": "web", "method": "GET", "name": "foo", "headers": "map[Accept:[*/*]]",
	} {
		if got := fmt.Sprint(answer[key]); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
	if response.Header.Get("Content-Type") != "application/json" || len(answer["ip"].([]any)) == 0 {
		t.Errorf("%v %v", response.Header, answer)
	}
}

// SIGTERM lets a request in flight be answered, and nothing else.
func TestEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := listener.Addr().String()
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, listener, New("")) }()
	answered := make(chan string, 1)
	go func() {
		_, body := ask(t, at, "GET /?wait=300ms HTTP/1.1\nHost: web\n\n")
		answered <- body
	}()
	time.Sleep(100 * time.Millisecond)
	end()
	if body := <-answered; !strings.HasPrefix(body, "Hostname: ") {
		t.Errorf("in flight: %q", body)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", at); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

func TestCommand(t *testing.T) {
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	busy := exec.Command(os.Args[0], "whoami", "--port", port)
	if out, err := busy.CombinedOutput(); err == nil || !strings.Contains(string(out), "address already in use") || busy.ProcessState.ExitCode() != 1 {
		t.Errorf("busy port: %v, %q", err, out)
	}
	listener.Close()
	cmd := exec.Command(os.Args[0], "whoami", "--port", port, "--name=foo", "--verbose")
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if _, body := ask(t, "127.0.0.1:"+port, "GET / HTTP/1.1\nHost: web\n\n"); !strings.HasPrefix(body, "Name: foo\nHostname: ") {
		t.Errorf("body %q", body)
	}
	if mptcp, err := os.ReadFile("/proc/net/protocols"); err == nil && strings.Contains(string(mptcp), "MPTCP") {
		if out, err := exec.Command("ss", "-HlnM", "sport", "=", port).Output(); err == nil && len(out) > 0 {
			t.Errorf("a multipath listener:\n%s", out)
		}
	}
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	want := regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d Starting up on port ` + port + `\n\d{4}/\d\d/\d\d \d\d:\d\d:\d\d 127\.0\.0\.1:\d+ - - \[[^]]+\] "GET / HTTP/1\.1" - -\n$`)
	if !want.MatchString(log.String()) {
		t.Errorf("log %q", log.String())
	}
}
