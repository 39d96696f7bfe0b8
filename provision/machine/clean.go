package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/native-routing/labctl/provision"
)

// Clean makes the node into the machine that it was: ends what runs of the lab,
// removes what labctl made, and puts back what it changed. Packages stay. Where
// nothing is left to do, or the machine is another's, it changes nothing. It may
// be repeated and cut short at any moment: the mark goes last.
func (m *Machines) Clean(ctx context.Context, lab, node string, access Access) ([]provision.Change, error) {
	h, err := m.host(lab, node, access)
	if err != nil {
		return nil, err
	}
	s, err := look(ctx, h, access.user(), lookAll)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	t := planClean(lab, node, s)
	if err := act(ctx, h, t); err != nil {
		return nil, fmt.Errorf("%s: clean: %w", node, err)
	}
	return t.changes, m.Forget(ctx, lab, node)
}

func planClean(lab, node string, s seen) todo {
	var t todo
	ownerLab, ownerNode, made := s.owner()
	_, begun := s.Files[foundFile]
	switch {
	case made && (ownerLab != lab || ownerNode != node):
		return t
	case !made && (begun || s.Places[runDir]): // a claim that was cut short
		t.do("run", "rm", "-rf", dir, runDir)
		return t
	case !made:
		return t
	}
	t.endServices(lab, s)
	t.unlink(s)
	t.restoreNetwork(s)
	t.removeFiles(s)
	t.restoreNames(s)
	t.removeHalves(s)
	t.do("run", "rm", "-rf", runDir)
	t.do("run", "find", dir, "-mindepth", "1", "!", "-path", markFile, "-delete")
	t.do("run", "rm", "-rf", dir)
	t.changed(provision.Removed, node, "node", "")
	return t
}

// endServices stops units and ends pods and whatever else bears the lab's mark.
func (t *todo) endServices(lab string, s seen) {
	for _, path := range slices.Sorted(maps.Keys(s.Files)) {
		name, unit := strings.CutPrefix(path, unitDir+"/"+unitPrefix)
		if !unit {
			continue
		}
		t.do("try", "systemctl", "--quiet", "disable", "--now", unitPrefix+name)
		t.do("run", "rm", "-f", path)
	}
	if s.Systemd {
		t.do("run", "systemctl", "daemon-reload")
	}
	t.do("end", lab)
	if s.Cgroup != "" {
		t.do("empty", s.Cgroup+"/pods")
	}
}

// unlink removes the datapath and every link that is the agent's or a dummy of ours.
func (t *todo) unlink(s seen) {
	for _, l := range s.Links {
		t.do("unfilter", l.Name)
	}
	t.do("run", "rm", "-rf", s.pins())
	if s.Ruleset != "" {
		t.do("try", "nft", "delete", "table", "netdev", "labctl")
	}
	for _, l := range s.Links {
		agents := strings.HasPrefix(l.Name, "labctl_") || strings.HasPrefix(l.Alias, "labctl-agent ")
		if agents || l.Info.Kind == "dummy" && s.ours(l) {
			t.do("try", "ip", "link", "del", "dev", l.Name) // of a pair the other end has gone already
		}
	}
	t.do("try", "ip", "route", "flush", "proto", strings.Fields(routeProtocol)[0])
}

// restoreNetwork gives the machine's devices back their addresses and names, and
// the kernel its settings. Where systemd-networkd has files of its own for a
// device, it puts its routes back too, when it reads them.
func (t *todo) restoreNetwork(s seen) {
	was, ours := s.was(), s.made()
	for _, r := range ours.Routes {
		t.do(append([]string{"try", "ip", "route", "del"}, strings.Fields(r)...)...)
	}
	lent := slices.DeleteFunc(slices.Clone(s.Links), func(l link) bool {
		return !aside(l.Name) && !slices.Contains(ours.Interfaces, l.Name)
	})
	names := t.renameBack(lent, was)
	for _, l := range lent {
		f, known := was.device(l)
		switch {
		case known:
			t.giveBack(l, f, f.Name)
		case !aside(l.Name): // it came later: what it has is the lab's
			t.giveBack(l, foundLink{MTU: l.MTU, Up: l.up()}, l.Name)
		}
	}
	t.flush()
	// Forwarding first: it sets the interfaces' own.
	for _, name := range append([]string{"net/ipv4/ip_forward"}, slices.Sorted(maps.Keys(was.Sysctls))...) {
		if now, there := s.Sysctls[sysctlOf(name, names)]; there && now != was.Sysctls[name] {
			t.do("sysctl", name, was.Sysctls[name])
		}
	}
}

// was is the machine as it was found; empty where that is not known.
func (s seen) was() found {
	var f found
	if json.Unmarshal([]byte(s.Files[foundFile].Content), &f) != nil {
		return found{}
	}
	return f
}

// sysctlOf is a setting's present path: that of an interface has its name in it.
func sysctlOf(path string, present map[string]string) string {
	parts := strings.Split(path, "/")
	if len(parts) == 5 && present[parts[3]] != "" {
		parts[3] = present[parts[3]]
	}
	return strings.Join(parts, "/")
}

// renameBack gives the node's devices, and those that made way for them, the names
// that they were found with, and returns their present names by those.
func (t *todo) renameBack(lent []link, was found) (present map[string]string) {
	present = map[string]string{}
	taken := map[string]bool{}
	for _, l := range lent {
		taken[l.Name] = true
	}
	var second [][2]string
	for _, l := range lent {
		f, known := was.device(l)
		if !known || f.Name == l.Name {
			continue
		}
		present[f.Name] = l.Name
		// By way of a name that is free: two may have each other's.
		free := l.Name
		for i := 0; !strings.HasPrefix(l.Name, asideBack) && taken[free]; i++ {
			free = fmt.Sprintf("%s%d", asideBack, i)
		}
		if free != l.Name {
			t.ip("link set dev %s down", l.Name)
			t.ip("link set dev %s name %s", l.Name, free)
			taken[free] = true
		}
		second = append(second, [2]string{free, f.Name})
	}
	for _, names := range second {
		t.ip("link set dev %s name %s", names[0], names[1])
	}
	return present
}

// aside says that labctl gave a device this name while another took its own.
func aside(name string) bool {
	number, back := strings.CutPrefix(name, asideBack)
	if !back {
		number = strings.TrimPrefix(name, asidePrefix)
	}
	_, err := strconv.ParseUint(number, 10, 16)
	return err == nil && strings.HasPrefix(name, asidePrefix)
}

// device is what the link was when the machine was found. Its name may be another
// now; where its address is none of Ethernet's, or several had it, it is not.
func (f found) device(l link) (foundLink, bool) {
	same := slices.DeleteFunc(slices.Clone(f.Links), func(f foundLink) bool {
		return f.Kind != l.Info.Kind || !strings.EqualFold(f.Hardware, l.hardware())
	})
	mac, err := net.ParseMAC(l.hardware())
	if len(same) == 1 && err == nil && len(mac) == 6 {
		return same[0], true
	}
	i := slices.IndexFunc(same, func(f foundLink) bool { return f.Name == l.Name })
	if i < 0 {
		return foundLink{}, false
	}
	return same[i], true
}

// giveBack puts the addresses, MTU, state and routes of one device back, which by
// then has the name.
func (t *todo) giveBack(l link, f foundLink, name string) {
	for _, a := range l.ipv4() {
		if !slices.Contains(f.Addresses, a) {
			t.ip("addr del %s dev %s", a, name)
		}
	}
	if l.MTU != f.MTU {
		t.ip("link set dev %s mtu %d", name, f.MTU)
	}
	state := "down"
	if f.Up {
		state = "up"
	}
	t.ip("link set dev %s %s", name, state)
	for _, a := range f.Addresses {
		t.ip("addr replace %s brd + dev %s", a, name)
	}
	if f.Name != name {
		return
	}
	for _, r := range f.Routes {
		t.do(append([]string{"try", "ip", "route", "replace"}, strings.Fields(r)...)...)
	}
}

// giveUp gives back the devices that are the node's no more since the topology
// was edited.
func (t *todo) giveUp(w want, s seen) {
	was := s.was()
	for _, name := range s.made().Interfaces {
		l, there := s.link(name)
		f, known := was.device(l)
		if _, wanted := w.node.Interfaces.Get(name); wanted || !there || !known {
			continue
		}
		back := f.Name
		if _, taken := s.link(back); taken {
			back = name
		} else {
			t.ip("link set dev %s down", name)
			t.ip("link set dev %s name %s", name, back)
		}
		t.giveBack(l, f, back)
		t.changed(provision.Removed, w.name, name, "the machine's own again")
	}
}

// removeFiles removes files of ours, and has their readers know.
func (t *todo) removeFiles(s seen) {
	networkd, manager := false, false
	for _, path := range slices.Sorted(maps.Keys(s.Files)) {
		held := strings.HasPrefix(path, networkdPrefix) || path == networkdConf
		plain := path == protocolsFile || path == sysctlFile || path == sshConfigFile || path == knownFile || strings.HasSuffix(path, "/"+keyName)
		if held || plain || path == managerConf {
			t.do("discard", path)
		}
		networkd = networkd || held
		manager = manager || path == managerConf
	}
	if networkd && s.Managers["systemd-networkd"] {
		t.do("try", "networkctl", "reload")
	}
	if manager && s.Managers["NetworkManager"] {
		t.do("try", "nmcli", "general", "reload")
	}
}

// removeHalves removes new files that were not put in place of the old yet. What a
// pattern of lookedAt fits is removed by its own name.
func (t *todo) removeHalves(s seen) {
	words := []string{"run", "rm", "-f"}
	for _, path := range []string{
		hostsFile, hostnameFile, protocolsFile, sysctlFile, sshConfigFile, knownFile, networkdConf, managerConf,
		s.Account.Home + "/" + keysFile, s.Account.Home + "/" + keyName, "/root/" + keyName,
	} {
		words = append(words, path+halfSuffix)
	}
	t.do(words...)
}

// restoreNames gives the machine its hostname back, and takes our lines out of files.
func (t *todo) restoreNames(s seen) {
	if f, ok := s.Files[hostsFile]; ok {
		t.put(s, hostsFile, withoutBlock(f.Content), f.Mode, rootOwner)
	}
	keys := s.Account.Home + "/" + keysFile
	if f, ok := s.Files[keys]; ok {
		t.put(s, keys, withoutKeys(f.Content), f.Mode, s.Account.owner())
	}
	was := s.was()
	if was.Hostname == "" {
		return
	}
	if s.Hostname != was.Hostname {
		t.do("sysctl", "kernel/hostname", was.Hostname)
	}
	if was.Named != nil {
		t.put(s, hostnameFile, *was.Named, s.mode(hostnameFile), rootOwner)
	} else {
		t.drop(s, hostnameFile)
	}
}
