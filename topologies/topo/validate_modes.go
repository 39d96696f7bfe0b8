package topo

import "fmt"

// stageClusters: a stage changes a cluster that there is.
func (c *checker) stageClusters() {
	for stage := range c.t.Stages.All() {
		if p := at("stages", stage, "cluster"); c.has(p) && c.absent("cluster") {
			c.wrongKey(p, "the lab has no cluster to change", "add cluster, or take this out")
		}
	}
}

// mode is a routing mode that the lab can be in, and where the file says so.
type mode struct {
	routing RoutingMode
	stage   string // empty for the file's own
}

// modes are the routing modes of all stages; the file's own where no stage says
// anything else.
func (c *checker) modes() []mode {
	own := c.t.Cluster.RoutingMode
	if own == "" {
		own = RoutingNative
	}
	if len(c.t.Stages) == 0 {
		return []mode{{routing: own}}
	}
	var modes []mode
	for stage, s := range c.t.Stages.All() {
		m := mode{own, ""}
		if s.Cluster != nil && s.Cluster.RoutingMode != "" {
			m = mode{s.Cluster.RoutingMode, stage}
		}
		modes = append(modes, m)
	}
	return modes
}

// everIn says whether some stage is in the routing mode.
func (c *checker) everIn(routing RoutingMode) bool {
	for _, m := range c.modes() {
		if m.routing == routing {
			return true
		}
	}
	return false
}

// directWithTunnel: direct routes are native routing's; Cilium refuses them with
// a tunnel too. In a stage with a tunnel they are passed over.
func (c *checker) directWithTunnel() {
	p := at("cluster", "autoDirectNodeRoutes")
	if c.t.Cluster.AutoDirectNodeRoutes && !c.noted["cluster.routingMode"] && !c.holdsNoted["stages"] && !c.everIn(RoutingNative) {
		c.wrong(p, fmt.Sprintf("it means nothing with routingMode %s", RoutingVXLAN), "take it out: packets to other nodes' pods go through the tunnel")
	}
}
