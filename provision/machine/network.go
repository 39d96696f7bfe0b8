package machine

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// planNetwork makes the network real at once by ip(8), and writes it down for the
// next boot. To let systemd-networkd make it from its files alone would be less
// to do, but it works behind its caller's back: when it has begun, what is not
// there yet cannot be told from what is missing. So ip comes first, the files
// say the same, and networkd finds nothing to do.
//
// What is made is written down before it is made, and what is given up stays
// written down until it is: Clean finds all of it, whenever this was cut short.
func planNetwork(w want, s seen) (todo, error) {
	var t todo
	routes, err := statics(w.node)
	if err != nil {
		return t, err
	}
	uplink := s.uplink()
	if err := w.uplinkApart(uplink, s); err != nil {
		return t, err
	}
	made := w.made(routes)
	both := made.and(s.made())
	t.put(s, madeFile, both.text(), plainMode, rootOwner)
	moved, renames, err := t.rename(w, s)
	if err != nil {
		return t, err
	}
	if _, _, ours := s.owner(); !ours {
		if err := w.routesApart(moved); err != nil {
			return t, err
		}
	}
	stale := w.stale(moved, routes)
	t.unroute(w, moved, routes, stale)
	fresh, err := t.links(w, moved)
	if err != nil {
		return t, err
	}
	t.routes(w, moved, routes, stale, fresh)
	t.giveUp(w, moved)
	t.flush()
	t.sysctls(w, moved, uplink)
	t.boot(w, s, routes, renames, uplink)
	if both.text() != made.text() {
		t.write(madeFile, made.text(), plainMode, rootOwner)
	}
	return t, nil
}

// planPossible refuses what planNetwork would, while the machine is still nobody's.
func planPossible(w want, s seen) (todo, error) {
	if !s.Commands["ip"] {
		return todo{}, fmt.Errorf("%w: there is no ip(8) (install iproute2 on it)", ErrUnfit)
	}
	_, err := planNetwork(w, s)
	return todo{}, err
}

// batched marks lines for ip -batch among the steps, until flush.
const batched = "ip "

func (t *todo) ip(format string, args ...any) {
	t.steps = append(t.steps, batched+fmt.Sprintf(format, args...))
}

// flush makes one call of ip from all that were asked for, in the place of the first.
func (t *todo) flush() {
	var before, after, lines []string
	for _, step := range t.steps {
		line, ip := strings.CutPrefix(step, batched)
		switch {
		case ip:
			lines = append(lines, line+"\n")
		case len(lines) == 0:
			before = append(before, step)
		default:
			after = append(after, step)
		}
	}
	t.steps = before
	if len(lines) > 0 {
		t.feed(strings.Join(lines, ""), "ip", "-batch", "-")
	}
	t.steps = append(t.steps, after...)
}

// uplinkApart: the interface by which the machine is reached is none of the lab's,
// and no address that it needs lies within the lab's. Only SSH that comes in by the
// lab's own address is left where it is.
func (w want) uplinkApart(u topo.Uplink, s seen) error {
	const cure = "so it cannot be the lab's (name another device for it in the inventory)"
	if _, ours := w.node.Interfaces.Get(u.Interface); ours {
		return fmt.Errorf("%s is the machine's uplink, %s", u.Interface, cure)
	}
	if reached := s.reached(); reached != "" {
		if iface, ours := w.node.Interfaces.Get(reached); ours && iface.Address.Addr() != s.Server {
			return fmt.Errorf("by %s this SSH connection comes in, %s", reached, cure)
		}
	}
	own := prefixes(w.topology)
	for _, needed := range []struct {
		what string
		a    netip.Addr
	}{
		{"the address of its uplink " + u.Interface, u.Address.Addr()}, {"its gateway", u.Gateway}, {"its name server", u.DNS},
		{"the address that this SSH connection comes from", s.Client},
	} {
		if needed.a.IsValid() && within(own, netip.PrefixFrom(needed.a, needed.a.BitLen())) {
			return fmt.Errorf("%s, %s, lies in one of the lab's networks, and would be cut off (choose other networks)", needed.what, needed.a)
		}
	}
	return nil
}

// asidePrefix begins the name of a device that made way for the lab's, asideBack's
// that of one on its way back.
const (
	asidePrefix = "labctl"
	asideBack   = "labctl-"
)

// rename gives the devices of the inventory the names of the node's interfaces.
// It returns what would be seen after, and each interface's Ethernet address.
func (t *todo) rename(w want, s seen) (after seen, renames map[string]string, err error) {
	after = s
	after.Links = slices.Clone(s.Links)
	after.Routes = slices.Clone(s.Routes)
	renames = map[string]string{}
	for name := range w.node.Interfaces.All() {
		wanted, named := w.access.Devices[name]
		if !named {
			continue
		}
		i := after.device(name, wanted)
		if i < 0 {
			return after, nil, fmt.Errorf("there is no device %s to become %s (there are %s)", wanted, name, strings.Join(s.devices(), ", "))
		}
		l := &after.Links[i]
		renames[name] = l.hardware()
		if l.Name == name {
			continue
		}
		if l.Name == s.uplink().Interface || l.Name == s.reached() {
			return after, nil, fmt.Errorf("%s is to become %s, and the machine is reached by it (name another device in the inventory)", l.Name, name)
		}
		if other := slices.IndexFunc(after.Links, func(l link) bool { return l.Name == name }); other >= 0 {
			if name == s.reached() {
				return after, nil, fmt.Errorf("%s is to become %s, and the machine is reached by the %s that it has (call the interface otherwise in the topology)", l.Name, name, name)
			}
			t.renameLink(&after, other, fmt.Sprintf("%s%d", asidePrefix, other))
		}
		t.changed(provision.Changed, w.name, name, "was "+l.Name)
		t.renameLink(&after, i, name)
	}
	for i, l := range after.Links {
		if aside(l.Name) && s.Links[i].up() && !l.up() {
			t.ip("link set dev %s up", l.Name) // it is still the machine's own
		}
	}
	return after, renames, nil
}

// renameLink: older kernels rename only what is down, and what is down has no routes.
func (t *todo) renameLink(s *seen, i int, name string) {
	l := &s.Links[i]
	t.ip("link set dev %s down", l.Name)
	t.ip("link set dev %s name %s", l.Name, name)
	s.Routes = slices.DeleteFunc(s.Routes, func(r route) bool { return r.by(l.Name) })
	l.Name = name
	l.Flags = slices.DeleteFunc(slices.Clone(l.Flags), func(f string) bool { return f == "UP" })
}

// device is the index of the device that becomes an interface; below zero where there is none.
func (s seen) device(name, wanted string) int {
	if mac, err := net.ParseMAC(wanted); err == nil && len(mac) == 6 {
		return slices.IndexFunc(s.Links, func(l link) bool { return !l.borrows() && strings.EqualFold(l.hardware(), mac.String()) })
	}
	// It may bear its new name already.
	for _, n := range []string{wanted, name} {
		if i := slices.IndexFunc(s.Links, func(l link) bool { return l.Name == n }); i >= 0 {
			return i
		}
	}
	return -1
}

// borrows says that the link has its Ethernet address from another device.
func (l link) borrows() bool {
	return slices.Contains([]string{"vlan", "macvlan", "macvtap", "ipvlan", "bridge", "bond", "team"}, l.Info.Kind)
}

// hardware is the address that the device was made with.
func (l link) hardware() string {
	if l.Permanent != "" {
		return l.Permanent
	}
	return l.Address
}

func (s seen) devices() []string {
	var names []string
	for _, l := range s.Links {
		if l.Name != "lo" {
			names = append(names, l.Name)
		}
	}
	return names
}

// links compares interfaces: there, up, MTU, addresses. What is the lab's has no
// other address than the file's. Those whose addresses change are fresh: the
// kernel drops routes with an address.
func (t *todo) links(w want, s seen) (fresh map[string]bool, err error) {
	fresh = map[string]bool{}
	for name, iface := range w.node.Interfaces.All() {
		l, there := s.link(name)
		dummy := iface.Type == topo.Dummy
		switch {
		case !there && !dummy:
			return nil, fmt.Errorf("there is no %s (there are %s; an inventory's interfaces say which of them it is)", name, strings.Join(s.devices(), ", "))
		case there && dummy && l.Info.Kind != "dummy":
			return nil, fmt.Errorf("%s is to be a dummy, and is a device of the machine's own (call it otherwise in the topology)", name)
		case !there:
			t.ip("link add name %s type dummy", name)
			t.changed(provision.Created, w.name, name, iface.Address.String())
		}
		if dummy && l.Alias != w.alias() {
			t.ip("link set dev %s alias %q", name, w.alias()) // its mark, which networkd does not give it at boot
		}
		details := t.adjust(name, iface, l)
		if !slices.Contains(l.ipv4(), iface.Address) || len(l.ipv4()) > 1 {
			fresh[name] = true
		}
		if there && len(details) > 0 {
			t.changed(provision.Changed, w.name, name, strings.Join(details, ", "))
		}
	}
	// Dummies of an earlier topology.
	for _, l := range s.Links {
		if _, wanted := w.node.Interfaces.Get(l.Name); !wanted && l.Info.Kind == "dummy" && s.ours(l) {
			t.ip("link del dev %s", l.Name)
			t.changed(provision.Removed, w.name, l.Name, "")
		}
	}
	return fresh, nil
}

// ours says whether labctl made a dummy.
func (s seen) ours(l link) bool {
	_, file := s.Files[networkdPrefix+l.Name+".netdev"]
	return file || strings.HasPrefix(l.Alias, aliasPrefix)
}

const aliasPrefix = "labctl lab="

func (w want) alias() string { return aliasPrefix + w.lab }

func (t *todo) adjust(name string, iface topo.Interface, l link) (details []string) {
	note := func(format string, args ...any) { details = append(details, fmt.Sprintf(format, args...)) }
	if l.MTU != iface.MTU {
		t.ip("link set dev %s mtu %d", name, iface.MTU)
		note("MTU %d, was %d", iface.MTU, l.MTU)
	}
	found := false
	for _, a := range l.ipv4() {
		if a == iface.Address {
			found = true
			continue
		}
		t.ip("addr del %s dev %s", a, name)
		note("without %s", a)
	}
	if !found {
		t.ip("addr replace %s brd + dev %s", iface.Address, name)
		note("%s", iface.Address)
	}
	if !l.up() {
		t.ip("link set dev %s up", name)
		note("up, was down")
	}
	return details
}

// by says whether the route leaves by the device.
func (r route) by(device string) bool {
	return slices.ContainsFunc(r.Hops, func(h hop) bool { return h.Device == device })
}
