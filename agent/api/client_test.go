package api_test

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// An agent behind one session of an SSH connection is called as often at once as
// any other, and a call that is given up takes none of the others with it.
func TestMultiplexedClient(t *testing.T) {
	mux := http.NewServeMux()
	const callers = 50
	var inside sync.WaitGroup
	inside.Add(callers)
	api.GetVersion.Handle(mux, func(context.Context, api.None) (api.Version, error) {
		inside.Done()
		inside.Wait() // all are under way at once
		return api.Version{Version: "1"}, nil
	})
	api.GetStatus.Handle(mux, func(ctx context.Context, _ api.None) (api.Status, error) {
		<-ctx.Done()
		return api.Status{}, ctx.Err()
	})
	socket := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	var dialled atomic.Int32
	client := api.NewMultiplexedClient(func(ctx context.Context) (net.Conn, error) {
		dialled.Add(1)
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	})
	defer client.Close()
	given, giveUp := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer giveUp()
	if _, err := api.GetStatus.Call(given, client, api.None{}); err == nil {
		t.Error("a call that has no answer ended well")
	}
	errs := make(chan error, callers)
	for range callers {
		go func() {
			_, err := api.GetVersion.Call(t.Context(), client, api.None{})
			errs <- err
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}
