// Package whoami is an HTTP server that answers as traefik/whoami v1.11 does:
// who it is, and what it was asked. It has neither TLS, gRPC nor /echo.
package whoami

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// idleTimeout closes a kept connection that nobody uses.
	idleTimeout = 2 * time.Minute
	// headerTimeout bounds how long a request may take to arrive.
	headerTimeout = 30 * time.Second
	// endTimeout is for requests in flight, less than the usual grace of a pod.
	endTimeout = 25 * time.Second
)

// Main is the command whoami, and returns its exit code. It serves until
// SIGTERM or SIGINT, and then answers the requests in flight. It calls listening
// once, when nobody is refused any more.
func Main(args []string, stdout, stderr io.Writer, listening func()) int {
	// A server of many on a machine, whose work is small.
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetGCPercent(25)
	flags := flag.NewFlagSet("whoami", flag.ContinueOnError)
	flags.SetOutput(stderr)
	port := flags.String("port", or(os.Getenv("WHOAMI_PORT_NUMBER"), "80"), "give me a port number")
	name := flags.String("name", os.Getenv("WHOAMI_NAME"), "give me a name")
	verbose := flags.Bool("verbose", false, "enable verbose logging")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	logger := log.New(stderr, "", log.LstdFlags)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A multipath socket cannot go into a sockmap, and shows as another protocol.
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("", *port))
	if err != nil {
		logger.Print(err)
		return 1
	}
	listening()
	logger.Printf("Starting up on port %s", *port)
	handler := New(*name)
	if *verbose {
		handler = logged(handler, logger)
	}
	if err := Serve(ctx, listener, handler); err != nil {
		logger.Print(err)
		return 1
	}
	return 0
}

func or(value, otherwise string) string {
	if value != "" {
		return value
	}
	return otherwise
}

// Serve answers on the listener until ctx ends, and returns nil when the
// requests in flight then are answered.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, IdleTimeout: idleTimeout, ReadHeaderTimeout: headerTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	err := server.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("requests were still in flight after %s", endTimeout)
	}
	return err
}

// logged writes a line for each request, in the shape of the common log format.
func logged(next http.Handler, logger *log.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		logger.Printf("%s - - [%s] \"%s %s %s\" - -", r.RemoteAddr,
			time.Now().Format("02/Jan/2006:15:04:05 -0700"), r.Method, r.URL.Path, r.Proto)
	})
}

// server has what does not change from request to request, but for the health.
type server struct {
	name   string
	health atomic.Int32 // the status of GET /health
}

// New returns a handler that calls itself by name, if that is not empty.
func New(name string) http.Handler {
	s := &server{name: name}
	s.health.Store(http.StatusOK)
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.describe)
	mux.HandleFunc("/api", s.api)
	mux.HandleFunc("/bench", bench)
	mux.HandleFunc("/data", data)
	mux.HandleFunc("/health", s.serveHealth)
	return mux
}

// describe answers with the server, the way the request came, and the request
// as it would be sent on.
func (s *server) describe(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if wait, err := time.ParseDuration(query.Get("wait")); err == nil {
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
			return
		}
	}
	if s.name != "" {
		fmt.Fprintln(w, "Name:", s.name)
	}
	hostname, _ := os.Hostname()
	fmt.Fprintln(w, "Hostname:", hostname)
	for _, ip := range addresses() {
		fmt.Fprintln(w, "IP:", ip)
	}
	fmt.Fprintln(w, "RemoteAddr:", r.RemoteAddr)
	if err := r.Write(w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if wanted(query.Get("env")) {
		for _, v := range os.Environ() {
			fmt.Fprintln(w, v)
		}
	}
}

func wanted(text string) bool {
	yes, err := strconv.ParseBool(text)
	return err == nil && yes
}

func addresses() []string {
	list := []string{}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok {
				list = append(list, ip.IP.String())
			}
		}
	}
	return list
}

func (s *server) api(w http.ResponseWriter, r *http.Request) {
	answer := struct {
		Hostname   string            `json:"hostname,omitempty"`
		IP         []string          `json:"ip,omitempty"`
		Headers    http.Header       `json:"headers,omitempty"`
		URL        string            `json:"url,omitempty"`
		Host       string            `json:"host,omitempty"`
		Method     string            `json:"method,omitempty"`
		Name       string            `json:"name,omitempty"`
		RemoteAddr string            `json:"remoteAddr,omitempty"`
		Environ    map[string]string `json:"environ,omitempty"`
	}{IP: addresses(), Headers: r.Header, URL: r.URL.RequestURI(), Host: r.Host, Method: r.Method, Name: s.name, RemoteAddr: r.RemoteAddr}
	answer.Hostname, _ = os.Hostname()
	if wanted(r.URL.Query().Get("env")) {
		answer.Environ = make(map[string]string)
		for _, v := range os.Environ() {
			name, value, _ := strings.Cut(v, "=")
			answer.Environ[name] = value
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the client may have gone
}

func bench(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Connection", "keep-alive")
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprint(w, "1")
}

// serveHealth answers with the status that was posted last.
func (s *server) serveHealth(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.WriteHeader(int(s.health.Load()))
		return
	}
	var code int32
	if _, err := fmt.Fscan(io.LimitReader(r.Body, 32), &code); err != nil || code < 200 || code > 599 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.health.Store(code)
}

// alphabet fills the answers of /data, between two bars.
const alphabet = "-ABCDEFGHIJKLMNOPQRSTUVWXYZ"

var units = map[string]int64{"": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}

func data(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	size, err := strconv.ParseInt(query.Get("size"), 10, 64)
	if err != nil {
		size = 1
	}
	unit, ok := units[strings.ToLower(query.Get("unit"))]
	if !ok {
		unit = 1
	}
	if size < 0 || size > (1<<62)/unit {
		size, unit = 0, 1
	}
	if wanted(query.Get("attachment")) {
		w.Header().Set("Content-Disposition", "Attachment")
	}
	http.ServeContent(w, r, "data.txt", time.Now(), &content{size: size * unit})
}

// content is a text of any size that is never in memory.
type content struct {
	size, at int64
}

func (c *content) Read(b []byte) (int, error) {
	if c.at >= c.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), c.size-c.at))
	for i := range n {
		switch at := c.at + int64(i); at {
		case 0, c.size - 1:
			b[i] = '|'
		default:
			b[i] = alphabet[at%int64(len(alphabet))]
		}
	}
	c.at += int64(n)
	return n, nil
}

func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.at
	case io.SeekEnd:
		offset += c.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	c.at = offset
	return offset, nil
}
