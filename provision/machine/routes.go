package machine

import (
	"fmt"
	"slices"

	"github.com/native-routing/labctl/provision"
)

// unroute removes static routes that are not wanted: those that a person, a file or
// a DHCP server made by the lab's interfaces, or to the lab's addresses; whatever
// else the machine has it keeps. It comes before the addresses change, with which
// the kernel drops routes by itself. What another route takes the place of stays
// until then.
func (t *todo) unroute(w want, s seen, wanted []route, stale map[string]route) {
	for _, r := range s.Routes {
		left, ok := stale[r.place()]
		replaced := slices.ContainsFunc(wanted, func(w route) bool { return w.place() == r.place() })
		if ok && !replaced && left.key() == r.key() {
			t.ip("route del %s", r.line())
			t.changed(provision.Removed, w.name, r.object()+" "+r.describe(), "")
		}
	}
}

// routes makes the static routes that are wanted.
func (t *todo) routes(w want, s seen, wanted []route, stale map[string]route, fresh map[string]bool) {
	t.connected(w, s, fresh)
	have := map[string]bool{}
	for _, r := range s.Routes {
		have[r.key()] = true
	}
	for _, r := range wanted {
		if have[r.key()] {
			if slices.ContainsFunc(r.Hops, func(h hop) bool { return fresh[h.Device] }) {
				t.ip("route replace %s", r.line())
			}
			continue
		}
		t.ip("route replace %s", r.line())
		if was, replaced := stale[r.place()]; replaced {
			t.changed(provision.Changed, w.name, r.object(), r.describe()+", was "+was.describe())
		} else {
			t.changed(provision.Created, w.name, r.object()+" "+r.describe(), "")
		}
	}
}

// place is where the kernel keeps one route: another one there takes its place.
func (r route) place() string { return fmt.Sprint(r.To, r.Metric) }

// made says that a person, a file or a DHCP server made the route.
func (r route) made() bool {
	return r.Protocol == "boot" || r.Protocol == "static" || r.Protocol == "dhcp"
}

// stale are the routes that are the lab's to remove, by their places: also those
// of an earlier topology.
func (w want) stale(s seen, wanted []route) map[string]route {
	own := prefixes(w.topology)
	earlier := s.made().Routes
	stale := map[string]route{}
	for _, r := range s.Routes {
		byOurs := slices.ContainsFunc(w.node.Interfaces.Names(), r.by)
		asWanted := slices.ContainsFunc(wanted, func(w route) bool { return w.key() == r.key() })
		if r.made() && !asWanted && (byOurs || within(own, r.To) || slices.Contains(earlier, r.line())) {
			stale[r.place()] = r
		}
	}
	return stale
}

// routesApart: on a machine that is not the lab's yet no route is in the lab's way.
// Later ones are a student's, and go.
func (w want) routesApart(s seen) error {
	own := prefixes(w.topology)
	for _, r := range s.Routes {
		if r.made() && within(own, r.To) && !slices.ContainsFunc(w.node.Interfaces.Names(), r.by) {
			return fmt.Errorf("the machine's %s %s lies in one of the lab's networks (ip route del it, or choose other networks)", r.object(), r.describe())
		}
	}
	return nil
}

// connected puts back what the kernel made for an address and somebody removed.
// With a new address, or a link that comes up, the kernel makes it by itself.
func (t *todo) connected(w want, s seen, fresh map[string]bool) {
	for name, iface := range w.node.Interfaces.All() {
		l, there := s.link(name)
		if !there || !l.up() || fresh[name] || iface.Address.IsSingleIP() {
			continue
		}
		c := connected(name, iface)
		if !slices.ContainsFunc(s.Routes, func(r route) bool { return r.Protocol == "kernel" && r.To == c.To && r.by(name) }) {
			t.ip("route replace %s", c.line())
			t.changed(provision.Created, w.name, c.object()+" "+c.describe(), "")
		}
	}
}
