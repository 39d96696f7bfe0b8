package api

import (
	"net/netip"
	"time"
)

// MonitorPath answers a GET with a stream of MonitorEvent, one JSON object a
// line, until the caller closes. The query's level is drops, flows or all.
const MonitorPath = "/v1/monitor"

// MetricsPath answers a GET with the agent's metrics in Prometheus' text format.
const MetricsPath = "/metrics"

// MonitorEvent is one packet that the datapath told of.
type MonitorEvent struct {
	Time time.Time `json:"time"`
	// Type is drop or trace, or lost for Lost events that no reader took in time.
	Type string `json:"type"`
	Lost uint64 `json:"lost,omitempty"`
	// Reason is the drop's number and text, Point the trace's (to-network).
	Reason     int    `json:"reason,omitempty"`
	ReasonText string `json:"reasonText,omitempty"`
	Point      string `json:"point,omitempty"`
	// State is new, established, reply, related or unknown.
	State  string `json:"state,omitempty"`
	Device string `json:"device,omitempty"`
	Index  int    `json:"index,omitempty"`
	// Endpoint is the datapath's number of the pod, 0 for none.
	Endpoint            uint32     `json:"endpoint,omitempty"`
	Hash                uint32     `json:"hash"`
	SourceIdentity      uint32     `json:"sourceIdentity"`
	DestinationIdentity uint32     `json:"destinationIdentity"`
	OrigSource          netip.Addr `json:"origSource,omitzero"`
	Length              int        `json:"length"`
	// Packet is its beginning, from the Ethernet header on.
	Packet []byte `json:"packet,omitempty"`
}
