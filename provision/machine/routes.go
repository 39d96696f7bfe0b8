package machine

import (
	"fmt"
	"slices"

	"github.com/native-routing/labctl/provision"
)

// routes brings static routes in line. Those that a person, a file or a DHCP
// server made by the lab's interfaces, or to the lab's addresses, and that the
// topology does not have, go; whatever else the machine has it keeps.
func (t *todo) routes(w want, s seen, fresh map[string]bool) error {
	wanted, err := statics(w.node)
	if err != nil {
		return err
	}
	t.connected(w, s, fresh)
	have := map[string]bool{}
	for _, r := range s.Routes {
		have[r.key()] = true
	}
	stale := w.stale(s, wanted)
	for _, r := range wanted {
		if have[r.key()] {
			if slices.ContainsFunc(r.Hops, func(h hop) bool { return fresh[h.Device] }) {
				t.ip("route replace %s", r.line())
			}
			continue
		}
		was, replaced := stale[r.place()]
		delete(stale, r.place())
		t.ip("route replace %s", r.line())
		if replaced {
			t.changed(provision.Changed, w.name, r.object(), r.describe()+", was "+was.describe())
		} else {
			t.changed(provision.Created, w.name, r.object()+" "+r.describe(), "")
		}
	}
	for _, r := range s.Routes {
		if left, ok := stale[r.place()]; ok && left.key() == r.key() {
			t.ip("route del %s", r.line())
			t.changed(provision.Removed, w.name, r.object()+" "+r.describe(), "")
		}
	}
	return nil
}

// place is where the kernel keeps one route: another one there takes its place.
func (r route) place() string { return fmt.Sprint(r.To, r.Metric) }

// stale are the routes that are the lab's to remove, by their places.
func (w want) stale(s seen, wanted []route) map[string]route {
	own := prefixes(w.topology)
	stale := map[string]route{}
	for _, r := range s.Routes {
		made := r.Protocol == "boot" || r.Protocol == "static" || r.Protocol == "dhcp"
		byOurs := slices.ContainsFunc(r.Hops, func(h hop) bool { _, ok := w.node.Interfaces.Get(h.Device); return ok })
		asWanted := slices.ContainsFunc(wanted, func(w route) bool { return w.key() == r.key() })
		if made && !asWanted && (byOurs || within(own, r.To)) {
			stale[r.place()] = r
		}
	}
	return stale
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
