//go:build linux

package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/capture"
	"github.com/native-routing/labctl/agent/inspect"
)

// handler answers every operation of agent/api.
func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	api.GetVersion.Handle(mux, d.getVersion)
	api.GetClock.Handle(mux, getClock)
	api.PutState.Handle(mux, d.putState)
	api.GetStatus.Handle(mux, d.getStatus)
	api.GetTables.Handle(mux, d.getTables)
	api.LookupRoutes.Handle(mux, d.lookupRoutes)
	api.GetPods.Handle(mux, d.getPods)
	api.GetServices.Handle(mux, d.getServices)
	api.GetMaps.Handle(mux, d.getMaps)
	api.GetDrops.Handle(mux, d.getDrops)
	mux.HandleFunc("GET "+api.MonitorPath, d.monitor)
	mux.Handle("GET "+api.MetricsPath, d.metrics())
	d.handleExplain(mux)
	prober := d.parts.prober()
	handleProbes(mux, prober)
	mux.Handle("POST "+api.CapturePath, capture.NewHandler(prober.In))
	return d.recovered(mux)
}

// recovered answers a panic with an error, and logs where it was. When nothing
// was asked for a while memory is given back.
func (d *daemon) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			d.config.Log.Error("panic", "operation", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_ = json.NewEncoder(w).Encode(&api.Error{Code: api.CodeInternal, Message: fmt.Sprintf("panic: %v; the agent's log says where", p)})
		}()
		next.ServeHTTP(w, r)
		d.calm.Reset(calmDown)
	})
}

func (d *daemon) getVersion(context.Context, api.None) (api.Version, error) {
	return d.config.Version(), nil
}

func getClock(context.Context, api.None) (api.Clock, error) { return api.Clock{Now: time.Now()}, nil }

func (d *daemon) putState(_ context.Context, state api.State) (api.Applied, error) {
	if err := validate(state); err != nil {
		return api.Applied{}, err
	}
	raw, err := encodeState(state)
	if err != nil {
		return api.Applied{}, err
	}
	d.put.Lock()
	defer d.put.Unlock()
	if err := d.store.save(raw); err != nil {
		return api.Applied{}, &api.Error{Code: api.CodeUnavailable, Message: "keep the state: " + err.Error()}
	}
	held := sha256.Sum256(raw)
	changed := d.held != held
	d.held = held
	d.parts.set(state)
	d.config.Log.Info("state received", "generation", state.Generation, "changed", changed)
	return api.Applied{Generation: state.Generation, Changed: changed}, nil
}

func (d *daemon) getStatus(context.Context, api.None) (api.Status, error) {
	status := d.parts.status()
	status.Version = d.config.Version()
	return status, nil
}

func (d *daemon) getTables(context.Context, api.None) (api.Tables, error) {
	return d.parts.routes.Tables()
}

func (d *daemon) lookupRoutes(_ context.Context, request api.LookupRequest) (api.LookupResponse, error) {
	for i, q := range request.Queries {
		if !q.To.Is4() || (q.From.IsValid() && !q.From.Is4()) {
			return api.LookupResponse{}, &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf("queries[%d]: want IPv4 addresses", i)}
		}
	}
	decisions, err := d.parts.routes.Lookup(request.Queries)
	return api.LookupResponse{Decisions: decisions}, err
}

func (d *daemon) getPods(context.Context, api.None) (api.PodList, error) {
	return api.PodList{Pods: d.parts.pods.Pods()}, nil
}

// getServices reads the kernel's maps, not what was meant to be written there.
func (d *daemon) getServices(context.Context, api.None) (api.ServiceTable, error) {
	maps, err := inspect.Open(d.config.BPFDir)
	if err != nil {
		return api.ServiceTable{}, &api.Error{Code: api.CodeUnavailable, Message: err.Error()}
	}
	return maps.ServiceTable(d.parts.balancer.Names())
}
