//go:build linux

package inspect

import "github.com/native-routing/labctl/bpf"

// Names of the maps, as Cilium calls those that hold the same.
const (
	LBServices    = "cilium_lb4_services_v2"
	LBBackends    = "cilium_lb4_backends_v3"
	LBRevNAT      = "cilium_lb4_reverse_nat"
	IPCacheMap    = "cilium_ipcache_v2"
	EndpointMap   = "cilium_lxc"
	conntrackTCP  = "cilium_ct4_global"
	conntrackAny  = "cilium_ct_any4_global"
	affinityMap   = "cilium_lb4_affinity"
	affinityMatch = "cilium_lb_affinity_match"
	maglevMap     = "cilium_lb4_maglev"
	reverseSocket = "cilium_lb4_reverse_sk"
	snatMap       = "cilium_snat_v4_external"
	fragmentMap   = "cilium_ipv4_frag_datagrams"
	ipmasqMap     = "cilium_ipmasq_v4"
	metricsMap    = "cilium_metrics"
	devicesMap    = "labctl_devices"
)

// MapSummary is a map as Cilium would have it, and how much it would hold.
type MapSummary struct {
	Name    string `json:"name"`
	Entries int    `json:"entries"`
	Errors  int    `json:"errors"`
	// Cached is what Cilium says of the map of that name. Nothing is cached here.
	Cached bool `json:"cacheEnabled"`
}

// MapList is sorted by name. Entries are counted as Cilium's map would have
// them: a service of three backends is four.
func (d *Dump) MapList() []MapSummary {
	services := len(d.Frontends)
	for _, f := range d.Frontends {
		services += int(f.Value.Count) + int(f.Value.Qcount)
	}
	var tcp, other int
	for _, flow := range d.mergedFlows() {
		if n := len(d.connections(flow)); flow.Key.Proto == protoTCP {
			tcp += n
		} else {
			other += n
		}
	}
	return []MapSummary{
		{Name: conntrackTCP, Entries: tcp},
		{Name: conntrackAny, Entries: other},
		{Name: IPCacheMap, Entries: len(d.IPCache), Cached: true},
		{Name: ipmasqMap, Entries: len(d.Nonmasquerade), Cached: true},
		{Name: fragmentMap, Entries: len(d.Fragments), Cached: true},
		{Name: affinityMap, Entries: len(d.Affinities), Cached: true},
		{Name: LBBackends, Entries: len(d.Backends), Cached: true},
		{Name: maglevMap, Entries: len(d.Maglev), Cached: true},
		{Name: LBRevNAT, Entries: len(d.RevNATs()), Cached: true},
		{Name: reverseSocket, Entries: len(d.Sockets), Cached: true},
		{Name: LBServices, Entries: services, Cached: true},
		{Name: affinityMatch, Entries: len(d.AffinityMatch), Cached: true},
		{Name: EndpointMap, Entries: len(d.Endpoints), Cached: true},
		{Name: metricsMap, Entries: len(d.Metrics)},
		{Name: snatMap, Entries: 2 * len(d.NATs)},
		{Name: devicesMap, Entries: len(d.Devices)},
	}
}

// ciliumNames are the names of maps in [Size], where they hold about the same.
var ciliumNames = map[string]string{
	bpf.Frontends: LBServices, bpf.Backends: LBBackends, bpf.Maglev: maglevMap, bpf.Affinities: affinityMap,
	bpf.AffinityMatch: affinityMatch, bpf.Endpoints: EndpointMap, bpf.IPCache: IPCacheMap,
	bpf.Nonmasquerade: ipmasqMap, bpf.Flows: conntrackTCP, bpf.NATs: snatMap, bpf.Fragments: fragmentMap,
	bpf.Sockets: reverseSocket, bpf.Metrics: metricsMap, bpf.Devices: devicesMap, bpf.Slots: "labctl_slots",
	bpf.Events: EventsMap,
}

// EventsMap is Cilium's name of the buffer that packets are told of in.
const EventsMap = "cilium_events"
