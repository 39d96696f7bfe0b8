package api

import (
	"fmt"
	"strings"
)

// String is the route as ip-route(8) prints it, in one line, and as it takes it.
func (r Route) String() string {
	var b strings.Builder
	if r.Type != "unicast" && r.Type != "" {
		b.WriteString(r.Type + " ")
	}
	switch {
	case r.To.Bits() == 0:
		b.WriteString("default")
	case r.To.IsSingleIP():
		b.WriteString(r.To.Addr().String())
	default:
		b.WriteString(r.To.String())
	}
	for _, hop := range r.NextHops {
		if len(r.NextHops) > 1 {
			b.WriteString(" nexthop")
		}
		if hop.Via.IsValid() {
			b.WriteString(" via " + hop.Via.String())
		}
		if hop.Device != "" {
			b.WriteString(" dev " + hop.Device)
		}
		if hop.OnLink {
			b.WriteString(" onlink")
		}
		if len(r.NextHops) > 1 && hop.Weight > 1 {
			fmt.Fprintf(&b, " weight %d", hop.Weight)
		}
	}
	if r.ProtocolName != "" {
		b.WriteString(" proto " + r.ProtocolName)
	}
	if r.Scope == "link" || r.Scope == "host" {
		b.WriteString(" scope " + r.Scope)
	}
	if r.Source.IsValid() {
		b.WriteString(" src " + r.Source.String())
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	return b.String()
}
