package lab

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/provision/fake"
)

// agentOf is the connections of a lab whose one agent answers by mux.
func agentOf(t *testing.T, mux *http.ServeMux) *agents {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(l) }()
	client := api.NewClient(func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) })
	return &agents{lab: &Lab{Provider: fake.New()}, open: map[string]*connection{"k8s-ctr": {client: client}}}
}

func fetched(_ context.Context, r api.FetchRequest) (api.FetchResponse, error) {
	return api.FetchResponse{Results: make([]api.FetchResult, len(r.Targets))}, nil
}

// What an agent is asked to send may take longer than what it is asked to tell,
// as long as it shows that it lives.
func TestSendingTakesItsTime(t *testing.T) {
	if testing.Short() {
		t.Skip("waits longer than an answer may take")
	}
	mux := http.NewServeMux()
	var signs atomic.Int32
	api.GetVersion.Handle(mux, func(context.Context, api.None) (api.Version, error) {
		signs.Add(1)
		return api.Version{}, nil
	})
	api.Fetch.Handle(mux, func(ctx context.Context, r api.FetchRequest) (api.FetchResponse, error) {
		time.Sleep(answerTime + time.Second)
		return fetched(ctx, r)
	})
	p := prober{agentOf(t, mux)}
	if results, err := p.Fetch(context.Background(), "k8s-ctr", make([]api.FetchTarget, 3)); err != nil || len(results) != 3 {
		t.Errorf("%d results, %v", len(results), err)
	}
	if signs.Load() < 2 {
		t.Errorf("%d signs of life were asked for", signs.Load())
	}
}

// An agent that hangs while it sends is given up soon, in the words of one that
// hangs before.
func TestAgentThatHangsIsTold(t *testing.T) {
	if testing.Short() {
		t.Skip("waits as long as an answer may take")
	}
	mux := http.NewServeMux()
	silent := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	mux.HandleFunc("/", silent)
	p := prober{agentOf(t, mux)}
	start := time.Now()
	_, sending := p.Fetch(context.Background(), "k8s-ctr", make([]api.FetchTarget, 1))
	if took := time.Since(start); took > 3*answerTime {
		t.Errorf("it took %s", took)
	}
	_, telling := p.Pods(context.Background(), "k8s-ctr")
	if sending == nil || telling == nil || sending.Error() != telling.Error() || !errors.Is(sending, context.DeadlineExceeded) || !strings.Contains(sending.Error(), "k8s-ctr does not answer") {
		t.Errorf("sending: %v\ntelling: %v", sending, telling)
	}
}

// The caller's own end is not the agent's fault.
func TestCallEndsWithItsContext(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	p := prober{agentOf(t, mux)}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Fetch(ctx, "k8s-ctr", make([]api.FetchTarget, 1)); err == nil || strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
}

func TestStatusIsAsked(t *testing.T) {
	mux := http.NewServeMux()
	api.GetStatus.Handle(mux, func(context.Context, api.None) (api.Status, error) { return api.Status{Node: "k8s-ctr"}, nil })
	if status, err := (prober{agentOf(t, mux)}).Status(context.Background(), "k8s-ctr"); err != nil || status.Node != "k8s-ctr" {
		t.Errorf("%+v, %v", status, err)
	}
}
