//go:build linux

package daemon

import (
	"cmp"
	"encoding/json"
	"net/http"

	"github.com/native-routing/labctl/agent/datapath"
)

// monitor streams what the datapath tells, one event a line, until the caller
// goes away. While nobody listens the programs write nothing.
func (d *daemon) monitor(w http.ResponseWriter, r *http.Request) {
	level, err := datapath.ParseLevel(cmp.Or(r.URL.Query().Get("level"), "flows"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	events := d.parts.datapath.Subscribe(r.Context(), level)
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	if out.Flush() != nil { // the caller learns that he is heard
		return
	}
	enc := json.NewEncoder(w)
	for event := range events {
		if enc.Encode(event) != nil || len(events) == 0 && out.Flush() != nil {
			return
		}
	}
}
