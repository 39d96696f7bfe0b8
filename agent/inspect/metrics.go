//go:build linux

package inspect

import (
	"cmp"
	"slices"

	"github.com/native-routing/labctl/agent/datapath"
	"github.com/native-routing/labctl/bpf"
)

// Metric counts the packets of one reason and direction, over all CPUs.
type Metric struct {
	// Code is Cilium's number of the reason: 0 is forwarded, from 130 on dropped.
	Code      uint32 `json:"code"`
	Reason    string `json:"reason"`
	Direction string `json:"direction"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
}

// MetricList is sorted by reason and direction, in words.
func (d *Dump) MetricList() []Metric {
	found := make([]Metric, 0, len(d.Metrics))
	for _, entry := range d.Metrics {
		reason, direction := bpf.Metric(entry.Key)
		found = append(found, Metric{
			Code: uint32(reason), Reason: datapath.ReasonText(reason), Direction: datapath.DirectionText(direction),
			Packets: entry.Value.Packets, Bytes: entry.Value.Bytes,
		})
	}
	slices.SortFunc(found, func(a, b Metric) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Code, b.Code))
	})
	return found
}
