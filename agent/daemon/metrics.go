//go:build linux

package daemon

import (
	"context"
	"net/http"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/agent/metrics"
	"github.com/native-routing/labctl/bpf"
)

// metrics answers with what Prometheus may want to know, under Cilium's names
// where Cilium has one for the same thing. All is read when it is asked for.
func (d *daemon) metrics() http.Handler {
	registry := metrics.NewRegistry(reporter(d.config.Log.With("part", "metrics")))
	registry.Register(func(w *metrics.Writer) { metrics.Process(d.config.Version().Version)(w) })
	registry.Register(d.datapathMetrics)
	registry.Register(d.balancerMetrics)
	registry.Register(d.nodeMetrics)
	return registry
}

// firstDrop is the least number of a reason that stands for a drop (Cilium's).
const firstDrop = 130

func (d *daemon) datapathMetrics(w *metrics.Writer) {
	counters, err := d.counters()
	if err != nil {
		return // no datapath is loaded
	}
	for _, c := range counters {
		if c.Code == 0 {
			w.Counter("cilium_forward_count_total", "Packets forwarded.", float64(c.Packets), "direction", c.Direction)
			w.Counter("cilium_forward_bytes_total", "Bytes forwarded.", float64(c.Bytes), "direction", c.Direction)
		} else {
			w.Counter("cilium_drop_count_total", "Packets dropped, and sockets refused.", float64(c.Packets), "reason", c.Reason, "direction", c.Direction)
			w.Counter("cilium_drop_bytes_total", "Bytes dropped.", float64(c.Bytes), "reason", c.Reason, "direction", c.Direction)
		}
	}
	gc := d.parts.datapath.GC()
	w.Counter("cilium_datapath_conntrack_gc_runs_total", "Searches for connections that are over.", float64(gc.Runs), "status", "completed")
	w.Gauge("cilium_datapath_conntrack_gc_entries", "Connections that the last search found.", float64(gc.Flows), "family", "ipv4", "status", "alive")
	w.Counter("labctl_datapath_conntrack_gc_removed_total", "Connections that were removed.", float64(gc.FlowsRemoved))
	w.Counter("labctl_datapath_nat_gc_removed_total", "Translations that were removed.", float64(gc.NATsRemoved))
	w.Gauge("cilium_datapath_conntrack_gc_duration_seconds", "How long the last search took.", gc.Took.Seconds(), "status", "completed")
}

func (d *daemon) counters() ([]inspect.Metric, error) {
	maps, err := inspect.Open(d.config.BPFDir)
	if err != nil {
		return nil, err
	}
	dump, err := maps.Read(bpf.Metrics)
	if err != nil {
		return nil, err
	}
	return dump.MetricList(), nil
}

func (d *daemon) balancerMetrics(w *metrics.Writer) {
	m := d.parts.balancer.Metrics()
	w.Gauge("labctl_services", "Services that are balanced.", float64(m.Services))
	w.Gauge("labctl_frontends", "Frontends in the maps.", float64(m.Frontends))
	for state, n := range m.Backends {
		w.Gauge("labctl_backends", "Backends in the maps.", float64(n), "state", state.String())
	}
	used := map[string]int{bpf.Frontends: m.Frontends, bpf.Backends: 0}
	for _, n := range m.Backends {
		used[bpf.Backends] += n
	}
	for name, capacity := range m.Capacity {
		if capacity > 0 {
			w.Gauge("cilium_bpf_map_pressure", "How full a map is, from 0 to 1.", float64(used[name])/float64(capacity), "map_name", name)
		}
	}
	for op, n := range m.Operations {
		w.Counter("cilium_bpf_map_ops_total", "Entries of maps that were written.", float64(n),
			"map_name", op.Map, "operation", op.Operation, "outcome", op.Outcome)
	}
	w.Gauge("labctl_balancer_pass_seconds", "How long the last pass over services took.", m.Last.Seconds())
}

func (d *daemon) nodeMetrics(w *metrics.Writer) {
	states := map[api.Phase]int{}
	for _, p := range d.parts.pods.Pods() {
		states[p.Phase]++
	}
	total := 0
	for phase, n := range states {
		w.Gauge("cilium_endpoint_state", "Pods by phase.", float64(n), "endpoint_state", string(phase))
		total += n
	}
	w.Gauge("cilium_endpoint", "Pods on this node.", float64(total))
	conditions := map[[2]string]int{}
	for _, o := range d.parts.status().Objects {
		conditions[[2]string{o.Kind, string(o.Condition)}]++
	}
	for key, n := range conditions {
		w.Gauge("labctl_objects", "Objects that the agent holds and watches.", float64(n), "kind", key[0], "condition", key[1])
	}
	for code, n := range d.parts.names.Queries() {
		w.Counter("labctl_dns_answers_total", "Answers of the name server.", float64(n), "rcode", code)
	}
	stats := d.parts.peers.Stats()
	w.Counter("labctl_peer_datagrams_total", "Messages between agents.", float64(stats.Sent), "direction", "sent")
	w.Counter("labctl_peer_datagrams_total", "Messages between agents.", float64(stats.Received), "direction", "received")
}

// getDrops sums the drops of all programs by reason.
func (d *daemon) getDrops(context.Context, api.None) (api.DropCounts, error) {
	counts := api.DropCounts{Packets: map[string]uint64{}}
	counters, err := d.counters()
	if err != nil {
		return counts, &api.Error{Code: api.CodeUnavailable, Message: err.Error()}
	}
	for _, c := range counters {
		if c.Code >= firstDrop {
			counts.Packets[c.Reason] += c.Packets
		}
	}
	return counts, nil
}
