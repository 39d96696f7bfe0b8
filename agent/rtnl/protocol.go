// Package rtnl is the plumbing under rtnetlink that a netlink library does not
// give: batches whose acknowledgements are matched one by one, one wait for all
// kinds of change, retried dumps, and the files under /proc/sys. It imports
// nothing of the module.
package rtnl

import "strconv"

// RouteProtocol is the protocol number that the agent's routes bear, "labctl"
// in rt_protos on each node. Numbers above 4 are free for user space; this one
// is nobody's in rtnetlink.h nor in iproute2.
const RouteProtocol = 108

// BGPProtocol is what routes bear that BGP taught (RTPROT_BGP of
// linux/rtnetlink.h), and BGPMetric the metric by which the agent knows its own:
// FRR gives 20 to what it learns from outside.
const (
	BGPProtocol = 186
	BGPMetric   = 108
)

// ProtocolName is the name of a route protocol as ip-route(8) prints it: the
// names of linux/rtnetlink.h and iproute2's rt_protos, and the agent's own. A
// number without a name is printed as the number.
func ProtocolName(number int) string {
	switch number {
	case 0:
		return "unspec"
	case 1:
		return "redirect"
	case 2:
		return "kernel"
	case 3:
		return "boot"
	case 4:
		return "static"
	case 8:
		return "gated"
	case 9:
		return "ra"
	case 10:
		return "mrt"
	case 11:
		return "zebra"
	case 12:
		return "bird"
	case 13:
		return "dnrouted"
	case 14:
		return "xorp"
	case 15:
		return "ntk"
	case 16:
		return "dhcp"
	case 18:
		return "keepalived"
	case 42:
		return "babel"
	case 99:
		return "openr"
	case RouteProtocol:
		return "labctl"
	case 186:
		return "bgp"
	case 187:
		return "isis"
	case 188:
		return "ospf"
	case 189:
		return "rip"
	case 192:
		return "eigrp"
	default:
		return strconv.Itoa(number)
	}
}
