//go:build linux

package inspect

import (
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// FlowsOf reads the flows whose client has one of the addresses.
func (m *Maps) FlowsOf(clients []netip.Addr) ([]api.Flow, error) {
	d, err := m.Read(bpf.Flows)
	if err != nil {
		return nil, err
	}
	var flows []api.Flow
	for _, entry := range d.mergedFlows() {
		client := addrPort(entry.Key.Client, entry.Key.ClientPort)
		if slices.Contains(clients, client.Addr()) {
			f := entry.Value
			flows = append(flows, api.Flow{
				Protocol: protocol(entry.Key.Proto), Client: client, Service: f.Service,
				Frontend: addrPort(f.Frontend, f.FrontendPort), Backend: addrPort(f.Backend, f.BackendPort),
			})
		}
	}
	return flows, nil
}
