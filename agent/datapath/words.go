//go:build linux

package datapath

import (
	"strconv"

	"github.com/native-routing/labctl/bpf"
)

// reasons are Cilium's texts (pkg/monitor/api/drop.go), which people search for.
var reasons = map[bpf.DatapathReason]string{
	0:   "Success",
	2:   "Invalid packet",
	3:   "Interface",
	4:   "Interface Decrypted",
	5:   "LB, sock cgroup: No backend slot entry found",
	6:   "LB, sock cgroup: No backend entry found",
	7:   "LB, sock cgroup: Reverse entry update failed",
	8:   "LB, sock cgroup: Reverse entry stale",
	9:   "Fragmented packet",
	10:  "Fragmented packet entry update failed",
	11:  "Missed tail call to custom program",
	132: "Invalid source ip",
	133: "Policy denied",
	134: "Invalid packet",
	135: "CT: Truncated or invalid header",
	136: "Fragmentation needed",
	137: "CT: Unknown L4 protocol",
	139: "Unsupported L3 protocol",
	140: "Missed tail call",
	141: "Error writing to packet",
	142: "Unknown L4 protocol",
	150: "Unknown L3 target address",
	151: "Stale or unroutable IP",
	153: "Error while correcting L3 checksum",
	154: "Error while correcting L4 checksum",
	155: "CT: Map insertion failed",
	157: "IP fragmentation not supported",
	158: "Service backend not found",
	163: "Unknown connection tracking state",
	167: "No mapping for NAT masquerade",
	168: "Unsupported protocol for NAT masquerade",
	169: "FIB lookup failed",
	174: "Is a ClusterIP",
	175: "First logical datagram fragment not found",
	177: "Denied by LB src range check",
	196: "TTL exceeded",
}

// ReasonText is Cilium's text for why a packet was dropped or a socket call
// refused; the number for a reason without one.
func ReasonText(reason bpf.DatapathReason) string {
	if text, ok := reasons[reason]; ok {
		return text
	}
	return strconv.Itoa(int(reason))
}

// IsDrop says whether a reason means that a packet was dropped; what is below
// is counted only.
func IsDrop(reason bpf.DatapathReason) bool { return reason >= 130 }

// points are Cilium's observation points.
var points = [...]string{
	0: "to-endpoint", 1: "to-proxy", 2: "to-host", 3: "to-stack", 4: "to-overlay",
	5: "from-endpoint", 6: "from-proxy", 7: "from-host", 8: "from-stack", 9: "from-overlay",
	10: "from-network", 11: "to-network",
}

// PointText is Cilium's name of where a packet was seen; the number for a point
// without one.
func PointText(point bpf.DatapathPoint) string {
	if int(point) < len(points) {
		return points[point]
	}
	return strconv.Itoa(int(point))
}

// DirectionText is INGRESS, EGRESS or SERVICE, as Cilium's metrics have it.
func DirectionText(direction bpf.DatapathDirection) string {
	switch direction {
	case bpf.DatapathDirectionDIRECTION_INGRESS:
		return "INGRESS"
	case bpf.DatapathDirectionDIRECTION_EGRESS:
		return "EGRESS"
	case bpf.DatapathDirectionDIRECTION_SERVICE:
		return "SERVICE"
	default:
		return "UNKNOWN"
	}
}

// StateText is what Cilium's monitor calls the state of a packet's flow.
func StateText(state bpf.DatapathFlowState) string {
	switch state {
	case bpf.DatapathFlowStateSTATE_NEW:
		return "new"
	case bpf.DatapathFlowStateSTATE_ESTABLISHED:
		return "established"
	case bpf.DatapathFlowStateSTATE_REPLY:
		return "reply"
	case bpf.DatapathFlowStateSTATE_RELATED:
		return "related"
	default:
		return "unknown"
	}
}
