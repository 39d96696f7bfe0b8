//go:build linux

// Package capturetest lets tests capture in namespaces of their own, through the
// agent's API and without an agent.
package capturetest

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/capture"
	"github.com/native-routing/labctl/agent/nstest"
)

// Node answers captures of a namespace, and of others as its pods, for as long
// as the test lasts or until stop.
func Node(t testing.TB, ns *nstest.Namespace, pods map[string]*nstest.Namespace) (client *api.Client, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "capture") // a unix socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+api.CapturePath, capture.NewHandler(func(pod string, do func() error) error {
		in := ns
		if pod != "" {
			in = pods[pod]
		}
		var err error
		in.Do(func() { err = do() })
		return err
	}))
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	client = api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	})
	t.Cleanup(client.Close)
	return client, func() { _ = server.Close() }
}
