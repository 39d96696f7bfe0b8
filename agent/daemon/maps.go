//go:build linux

package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/bpf"
)

// getMaps reads the kernel's maps; a node that has none answers with none.
func (d *daemon) getMaps(context.Context, api.None) (api.Maps, error) {
	maps, err := inspect.Open(d.config.BPFDir)
	if errors.Is(err, inspect.ErrNoDatapath) {
		return api.Maps{}, nil
	}
	if err != nil {
		return api.Maps{}, &api.Error{Code: api.CodeUnavailable, Message: err.Error()}
	}
	dump, err := maps.Read(bpf.Frontends, bpf.IPCache)
	if err != nil {
		return api.Maps{}, &api.Error{Code: api.CodeUnavailable, Message: err.Error()}
	}
	answer := api.Maps{Services: dump.ServiceTable(d.parts.balancer.Names()).Frontends, Settings: settings(d.parts.held())}
	for _, a := range dump.AddressList() {
		answer.Addresses = append(answer.Addresses, api.MapAddress{Prefix: a.Prefix, Identity: a.Identity, Node: a.Node, Flags: a.Flags})
	}
	return answer, nil
}

// settings are what the programs of a state are loaded with, as a student calls it.
func settings(state api.State) []api.Setting {
	if state.Cluster == nil {
		return nil
	}
	masquerade := "off"
	if state.Cluster.Masquerade {
		masquerade = "on, beyond " + state.Cluster.NativeCIDR.String()
	}
	routing := "native"
	if state.Pods != nil && state.Pods.Overlay != nil {
		routing = fmt.Sprintf("vxlan, VNI %d, UDP port %d", state.Pods.Overlay.VNI, state.Pods.Overlay.Port)
	}
	return []api.Setting{{Name: "masquerade", Value: masquerade}, {Name: "routing", Value: routing}}
}
