package explain

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// routeText is a route as ip-route(8) prints it, as far as it decides.
func routeText(r api.Route) string {
	text := routeKey(r)
	for _, h := range r.NextHops {
		if len(r.NextHops) > 1 {
			text += " nexthop"
		}
		if h.Via.IsValid() {
			text += " via " + h.Via.String()
		}
		text += " dev " + h.Device
	}
	if r.Metric != 0 {
		text += " metric " + strconv.Itoa(r.Metric)
	}
	return text
}

// routeKey is a route's type and destination.
func routeKey(r api.Route) string {
	text := r.To.String()
	switch {
	case r.To.Bits() == 0:
		text = "default"
	case r.To.IsSingleIP():
		text = r.To.Addr().String()
	}
	if r.Type != path.Unicast {
		text = r.Type + " " + text
	}
	return text
}

// routeDelete is what names a route to ip-route(8), to remove it.
func routeDelete(r api.Route) string {
	text := "ip route del " + routeText(api.Route{To: r.To, Type: r.Type, Metric: r.Metric})
	if len(r.NextHops) == 1 {
		text = "ip route del " + routeText(r)
	}
	if r.Table != 0 && r.Table != api.TableMain {
		text += " table " + tableName(r.Table)
	}
	return text
}

func tableName(n int) string {
	switch n {
	case api.TableLocal:
		return "local"
	case api.TableMain:
		return "main"
	case api.TableDefault:
		return "default"
	}
	return strconv.Itoa(n)
}

// ruleText is a rule as ip-rule(8) prints it.
func ruleText(r api.Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", r.Priority)
	if r.Not {
		b.WriteString(" not")
	}
	if r.From.IsValid() {
		b.WriteString(" from " + r.From.String())
	} else {
		b.WriteString(" from all")
	}
	if r.To.IsValid() {
		b.WriteString(" to " + r.To.String())
	}
	if r.Mark != 0 {
		fmt.Fprintf(&b, " fwmark %#x", r.Mark)
	}
	if r.In != "" {
		b.WriteString(" iif " + r.In)
	}
	if r.Out != "" {
		b.WriteString(" oif " + r.Out)
	}
	if r.Action == "lookup" {
		return b.String() + " lookup " + tableName(r.Table)
	}
	return b.String() + " " + r.Action
}
