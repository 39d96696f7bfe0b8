package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// sysctl is a file below /proc/sys and what is to be in it.
type sysctl struct{ name, value string }

// sysctls are what the network needs to pass packets on: forwarding, and no filter
// on reverse paths, which are asymmetric here on purpose. Interfaces of the lab
// have no IPv6, whose solicitations would be noise in every capture. What else the
// agent wants it sets itself.
func (w want) sysctls(uplink topo.Uplink) []sysctl {
	list := []sysctl{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv4/conf/all/rp_filter", "0"},
		{"net/ipv4/conf/default/rp_filter", "0"},
	}
	names := w.node.Interfaces.Names()
	if uplink.Interface != "" {
		names = append([]string{uplink.Interface}, names...)
	}
	for _, name := range names {
		list = append(list, sysctl{"net/ipv4/conf/" + name + "/rp_filter", "0"})
	}
	for _, name := range w.node.Interfaces.Names() {
		list = append(list, sysctl{"net/ipv6/conf/" + name + "/disable_ipv6", "1"})
	}
	return list
}

// sysctls sets what differs now. An interface that is only just made has none that
// could be looked at.
func (t *todo) sysctls(w want, s seen, uplink topo.Uplink) {
	for _, c := range w.sysctls(uplink) {
		have, there := s.Sysctls[c.name]
		if there && have == c.value {
			continue
		}
		t.do("sysctl", c.name, c.value)
		if there {
			t.changed(provision.Changed, w.name, "sysctl "+c.name, c.value+", was "+have)
		}
	}
}

// sysctlText is for sysctl.d(5). Distributions set rp_filter of every interface by
// a pattern; the same pattern in a later file takes that one's place.
func (w want) sysctlText(uplink topo.Uplink) string {
	text := header(w.lab) + "-net/ipv4/conf/*/rp_filter = 0\n"
	for _, c := range w.sysctls(uplink) {
		text += c.name + " = " + c.value + "\n"
	}
	return text
}

// made is what the network of the node consists of, for Clean, which knows no topology.
type made struct {
	// Interfaces are the machine's own devices that are the lab's.
	Interfaces []string `json:"interfaces"`
	Dummies    []string `json:"dummies,omitempty"`
	Routes     []string `json:"routes,omitempty"` // as ip takes them
}

const madeFile = dir + "/made.json"

// made is empty where nothing was made yet.
func (s seen) made() made {
	var m made
	if json.Unmarshal([]byte(s.Files[madeFile].Content), &m) != nil {
		return made{}
	}
	return m
}

func (w want) made(routes []route) made {
	m := made{Interfaces: []string{}}
	for name, iface := range w.node.Interfaces.All() {
		if iface.Type == topo.Dummy {
			m.Dummies = append(m.Dummies, name)
		} else {
			m.Interfaces = append(m.Interfaces, name)
		}
	}
	for _, r := range routes {
		m.Routes = append(m.Routes, r.line())
	}
	return m
}

// and adds what only another has.
func (m made) and(other made) made {
	union := func(a, b []string) []string {
		return append(slices.Clone(a), slices.DeleteFunc(slices.Clone(b), func(s string) bool { return slices.Contains(a, s) })...)
	}
	return made{union(m.Interfaces, other.Interfaces), union(m.Dummies, other.Dummies), union(m.Routes, other.Routes)}
}

func (m made) text() string {
	text, _ := json.Marshal(m) // strings alone
	return string(text) + "\n"
}

// boot writes down what holds from the next boot on, and has the ruleset loaded.
func (t *todo) boot(w want, s seen, routes []route, renames map[string]string, uplink topo.Uplink) {
	t.keep(s, w.name, sysctlFile, w.sysctlText(uplink))
	networkd := s.Managers["systemd-networkd"]
	t.managed(w, s, networkd, renames)
	var starts []string
	if networkd {
		t.drop(s, batchFile)
	} else {
		t.put(s, batchFile, w.batch(routes), plainMode, rootOwner)
		starts = append(starts, "ip -force -batch "+batchFile)
	}
	if l, ok := s.link(uplink.Interface); ok && s.Commands["nft"] {
		ruleset, mark := silence(w.lab, uplink.Interface, l.Address, prefixes(w.topology), s.kernelFrom(egressMajor, egressMinor))
		t.put(s, silenceFile, ruleset, plainMode, rootOwner)
		starts = append(starts, "nft -f "+silenceFile)
		if !strings.Contains(s.Ruleset, mark) {
			t.feed(ruleset, "nft", "-f", "-")
			t.changed(provision.Created, w.name, "silence of "+uplink.Interface, "")
		}
	}
	if s.Systemd {
		t.unit(w, s, bootUnit, bootUnitText(w, uplink.Interface, starts), len(starts) > 0)
	}
}

// unit writes and enables a unit; or removes it where it is not wanted.
func (t *todo) unit(w want, s seen, name, text string, wanted bool) {
	path := unitDir + "/" + name
	_, enabled := s.Files[wantsDir+"/"+name]
	switch {
	case wanted:
		// As systemctl enable does, which has systemd read all units anew besides:
		// this one is for the next boot, when it does that anyway.
		if t.keep(s, w.name, path, text) || !enabled {
			t.do("run", "mkdir", "-p", wantsDir)
			t.do("run", "ln", "-sf", path, wantsDir+"/"+name)
		}
	case enabled:
		t.do("run", "systemctl", "--quiet", "disable", name)
		fallthrough
	default:
		t.drop(s, path)
	}
}

// wantsDir is where systemd keeps what is enabled.
const wantsDir = unitDir + "/multi-user.target.wants"

func bootUnitText(w want, uplink string, starts []string) string {
	text := header(w.lab) + "[Unit]\nDescription=labctl: the network of " + w.name + " in lab " + w.lab + "\n"
	after := "network.target"
	if uplink != "" {
		device := deviceUnit(uplink)
		text += "Wants=" + device + "\n"
		after += " " + device
	}
	text += "After=" + after + "\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
	for _, start := range starts {
		text += "ExecStart=-" + start + "\n"
	}
	return text + "\n[Install]\nWantedBy=multi-user.target\n"
}

// deviceUnit is the unit of a network device, escaped as systemd-escape(1) does.
func deviceUnit(device string) string {
	var b strings.Builder
	for i := range len(device) {
		c := device[i]
		if c == '_' || c == ':' || c == '.' && i > 0 || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return "sys-subsystem-net-devices-" + b.String() + ".device"
}

// batch is the whole network for ip -force -batch, on a machine where nobody else
// puts it back at boot.
func (w want) batch(routes []route) string {
	var b strings.Builder
	for name, iface := range w.node.Interfaces.All() {
		if iface.Type == topo.Dummy {
			fmt.Fprintf(&b, "link add name %s type dummy\nlink set dev %s alias %q\n", name, name, w.alias())
		}
		fmt.Fprintf(&b, "link set dev %s mtu %d up\naddr replace %s brd + dev %s\n", name, iface.MTU, iface.Address, name)
	}
	for _, r := range routes {
		fmt.Fprintf(&b, "route replace %s\n", r.line())
	}
	return b.String()
}

// managed writes the files of systemd-networkd and NetworkManager, and has them read.
//
// Vagrant writes 50-vagrant-eth1.network, and netplan (of which Vagrant's
// 50-vagrant.yaml is read) 10-netplan-eth1.network in /run; both write theirs
// anew whenever they like. Of all files that match an interface networkd takes
// the first by name, wherever it lies. So ours come before and say everything,
// and no file of netplan's own is needed: it would only be turned into one more
// of networkd's.
func (t *todo) managed(w want, s seen, networkd bool, renames map[string]string) {
	files := linkFiles(w.lab, renames)
	if networkd {
		maps.Copy(files, w.networkdFiles())
	}
	read := false
	for _, path := range slices.Sorted(maps.Keys(files)) {
		read = t.keep(s, w.name, path, files[path]) || read
	}
	for _, path := range slices.Sorted(maps.Keys(s.Files)) {
		_, wanted := files[path]
		if ours := strings.HasPrefix(path, networkdPrefix) || path == networkdConf; ours && !wanted {
			read = t.drop(s, path) || read
			t.changed(provision.Removed, w.name, path, "")
		}
	}
	if networkd && read {
		t.reload(w.node.Interfaces.Names())
	}
	if s.Managers["NetworkManager"] && !networkd && t.keep(s, w.name, managerConf, w.managerText()) {
		t.do("try", "nmcli", "general", "reload")
	}
}

// reload has networkd read its files, and waits until it finds them fulfilled.
func (t *todo) reload(links []string) {
	t.do("run", "networkctl", "reload")
	if len(links) > 0 {
		t.do(append([]string{"settle"}, links...)...)
	}
}

// linkFiles are for udev (systemd.link(5)), which renames devices at boot.
func linkFiles(lab string, renames map[string]string) map[string]string {
	files := map[string]string{}
	for name, mac := range renames {
		files[networkdPrefix+name+".link"] = header(lab) + "[Match]\nMACAddress=" + mac + "\n\n[Link]\nName=" + name + "\n"
	}
	return files
}

// networkdFiles are those of the node's interfaces. networkd is told to leave
// routes alone that are not its own: the agent's, and what a student tries.
func (w want) networkdFiles() map[string]string {
	files := map[string]string{
		networkdConf: header(w.lab) + "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
	}
	for name, iface := range w.node.Interfaces.All() {
		if iface.Type == topo.Dummy {
			files[networkdPrefix+name+".netdev"] = header(w.lab) + "[NetDev]\nName=" + name + "\nKind=dummy\n"
		}
		files[networkdPrefix+name+".network"] = w.networkText(name, iface)
	}
	return files
}

func (w want) networkText(name string, iface topo.Interface) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s[Match]\nName=%s\n\n[Link]\nMTUBytes=%d\nRequiredForOnline=no\n\n", header(w.lab), name, iface.MTU)
	fmt.Fprintf(&b, "[Network]\nAddress=%s\nDHCP=no\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n", iface.Address)
	for _, r := range w.node.Routes {
		var via []netip.Addr
		for _, a := range r.Via {
			if device, ok := deviceTo(w.node, a); ok && device == name {
				via = append(via, a)
			}
		}
		// A route with next hops on several interfaces stands with its first.
		if first, _ := deviceTo(w.node, r.Via[0]); first != name {
			continue
		}
		fmt.Fprintf(&b, "\n[Route]\nDestination=%s\n", r.To.Masked())
		if len(r.Via) == 1 {
			fmt.Fprintf(&b, "Gateway=%s\n", via[0])
			continue
		}
		for _, a := range r.Via {
			device, _ := deviceTo(w.node, a)
			fmt.Fprintf(&b, "MultiPathRoute=%s@%s\n", a, device)
		}
	}
	return b.String()
}

// managerText keeps NetworkManager's hands off the lab's interfaces.
func (w want) managerText() string {
	names := w.node.Interfaces.Names()
	for i, name := range names {
		names[i] = "interface-name:" + name
	}
	return header(w.lab) + "[keyfile]\nunmanaged-devices+=" + strings.Join(names, ";") + "\n"
}
