package api_test

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// One call that takes long on its way back does not count, and this machine's own
// clock does not differ from itself.
func TestClockOffset(t *testing.T) {
	for _, ahead := range []time.Duration{0, -3 * time.Second, 48 * time.Hour} {
		var calls atomic.Int32
		mux := http.NewServeMux()
		api.GetClock.Handle(mux, func(context.Context, api.None) (api.Clock, error) {
			now := time.Now().Add(ahead)
			if calls.Add(1) == 1 {
				time.Sleep(300 * time.Millisecond)
			}
			return api.Clock{Now: now}, nil
		})
		socket := filepath.Join(t.TempDir(), "agent")
		listener, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: mux}
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
		client := api.NewClient(func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		})
		defer client.Close()
		got, err := api.ClockOffset(t.Context(), client)
		if err != nil || (got-ahead).Abs() > time.Second || ahead == 0 && got != 0 {
			t.Errorf("a clock that is %s ahead is measured as %s, %v", ahead, got, err)
		}
	}
}
