//go:build linux

// Package daemon runs the agent: it keeps the desired state on disk, holds the
// node in line with it, and serves the operations of agent/api on a private
// unix socket.
package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/route"
)

// Config is what an agent runs on.
type Config struct {
	// RunDir holds the socket and the lock, DataDir the desired state. Both are
	// made where they are not.
	RunDir  string
	DataDir string
	// BPFDir is a directory in a BPF file system, Cgroup one in a cgroup2
	// hierarchy; both are this node's alone, and are there. Without a Cgroup
	// sockets are not balanced.
	BPFDir string
	Cgroup string
	// Executable is the agent's own, which pods are held by.
	Executable string
	Sysctls    route.Sysctls
	// Version names this agent. It is called for each answer that bears it.
	Version func() api.Version
	Log     *slog.Logger
}

// daemon is one running agent.
type daemon struct {
	config Config
	store  store
	parts  *parts
	calm   *time.Timer // when memory is given back

	put  sync.Mutex        // one state after the other
	held [sha256.Size]byte // the digest of the last one, as it is on disk
}

// Run serves until ctx ends, and returns nil then. Everything that was made
// stays in place, so that traffic goes on. It returns [ErrRunning] where another
// agent has the run directory.
func Run(ctx context.Context, config Config) error {
	for _, dir := range []string{config.RunDir, config.DataDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	lock, err := acquire(config.RunDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	parts, err := newParts(config)
	if err != nil {
		return err
	}
	d := &daemon{config: config, store: store{config.DataDir}, parts: parts, calm: time.AfterFunc(calmDown, giveBack)}
	defer d.calm.Stop()
	d.restore()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		parts.run(ctx)
	}()
	err = d.serve(ctx)
	cancel()
	<-done
	// The parts' sockets stay open: an operation that was cut short may
	// still look at them, and the process ends here.
	return err
}

// restore takes up the state of the agent before. Without one there is nothing
// to do until labctl sends it, so no trouble here is worth dying of.
func (d *daemon) restore() {
	state, err := d.store.load()
	switch {
	case err != nil:
		d.config.Log.Error("start without a state", "error", err)
	case state != nil:
		if raw, err := encodeState(*state); err == nil {
			d.held = sha256.Sum256(raw)
		}
		d.parts.set(*state)
		d.config.Log.Info("state restored", "generation", state.Generation)
	}
}

// reporter logs an error once for as long as it stays the same.
func reporter(log *slog.Logger) func(error) {
	var mu sync.Mutex
	last := ""
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil && last != "":
			last = ""
			log.Info("the kernel does what is asked again")
		case err != nil && err.Error() != last:
			last = err.Error()
			log.Error("reconcile", "error", err)
		}
	}
}

func (d *daemon) serve(ctx context.Context) error {
	listener, err := listen(ctx, d.config.RunDir)
	if err != nil {
		return err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // for callers to whom a connection is dear
	server := &http.Server{
		Handler:           d.handler(),
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(d.config.Log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // requests end too: their callers ask again
	defer stop()
	d.config.Log.Info("ready", "socket", listener.Addr().String(), "pid", os.Getpid())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
