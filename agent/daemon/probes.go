//go:build linux

package daemon

import (
	"net/http"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/probe"
)

// handleProbes answers the operations that send and see packets.
func handleProbes(mux *http.ServeMux, prober *probe.Prober) {
	api.Ping.Handle(mux, prober.Ping)
	api.Fetch.Handle(mux, prober.Fetch)
	api.Knock.Handle(mux, prober.Knock)
	api.Trace.Handle(mux, probe.Trace)
	witness := new(probe.Witness)
	api.StartWitness.Handle(mux, witness.Start)
	api.StopWitness.Handle(mux, witness.Stop)
}
