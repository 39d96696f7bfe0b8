//go:build linux

package datapath

import (
	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// optionsOf are what the programs of a node are loaded with.
func optionsOf(state api.State, features bpf.Features, cookie uint64) bpf.Options {
	o := bpf.Options{
		NativeCIDR: state.Cluster.NativeCIDR,
		Masquerade: state.Cluster.Masquerade,
		Features:   features,
		Sizes:      sizesOf(state.Cluster.MapSizes),
		MaglevSize: bpf.DefaultMaglevSize,
	}
	if state.Pods != nil {
		o.PodCIDR = state.Pods.CIDR
	} else if self := ownNode(state); self != nil {
		o.PodCIDR = self.PodCIDR
	}
	if state.Cluster.KubeProxyReplacement {
		o.HostNetns = cookie
	}
	return o
}

// overlayOf is the tunnel to other nodes' pods; nil where they are routed natively.
func overlayOf(state api.State) *api.Overlay {
	if state.Pods == nil {
		return nil
	}
	return state.Pods.Overlay
}

// ownNode is the state's node as its cluster has it.
func ownNode(state api.State) *api.Node {
	for i := range state.Cluster.Nodes {
		if state.Cluster.Nodes[i].Name == state.Node {
			return &state.Cluster.Nodes[i]
		}
	}
	return nil
}

// sizesOf are those of all maps, the ones that nobody sets in proportion to
// those that somebody does.
func sizesOf(set api.MapSizes) bpf.Sizes {
	s := bpf.DefaultSizes()
	use := func(size int, fields ...*uint32) {
		if size > 0 {
			for _, field := range fields {
				*field = uint32(size)
			}
		}
	}
	use(set.Services, &s.Frontends, &s.Maglev)
	use(set.Backends, &s.Backends, &s.AffinityMatch)
	if set.Services > 0 || set.Backends > 0 {
		s.Slots = 4 * max(s.Frontends, s.Backends) // a change of a service holds two ranges for a moment
	}
	use(set.Flows, &s.Flows)
	use(set.Flows/2, &s.Sockets)
	use(set.NAT, &s.NATs)
	use(set.IPCache, &s.IPCache)
	use(set.Affinity, &s.Affinities)
	return s
}
