//go:build linux

package daemon

import (
	"net/http"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/probe"
)

// handleProbes answers the operations that send and see packets.
func handleProbes(mux *http.ServeMux) {
	api.Ping.Handle(mux, probe.Ping)
	api.Trace.Handle(mux, probe.Trace)
	witness := new(probe.Witness)
	api.StartWitness.Handle(mux, witness.Start)
	api.StopWitness.Handle(mux, witness.Stop)
}
