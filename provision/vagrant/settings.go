package vagrant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2/maybe"

	"github.com/native-routing/labctl/topologies/topo"
)

// settings are what was chosen once for a lab, and cannot be seen later.
type settings struct {
	// Provider is VirtualBox or Libvirt.
	Provider string `json:"provider"`
	// HostOnly says that VirtualBox's networks are host-only ones.
	HostOnly bool `json:"hostOnly,omitempty"`
	// Management is the range of libvirt's management network.
	Management netip.Prefix `json:"management,omitzero"`
	// Images are the copies in libvirt's pools of every box that the topology has named.
	Images []image `json:"boxes,omitempty"`
	// NICs is with how many each of libvirt's machines was asked for, by node.
	NICs map[string]int `json:"nics,omitempty"`
}

// image is a box's copies in libvirt's pools.
type image struct {
	// Prefix begins their names.
	Prefix string `json:"prefix"`
	// Own says that there were none before the lab: then they go with the last
	// lab that uses them.
	Own bool `json:"own,omitempty"`
}

// image is the index of the box's copies whose names begin so; below zero where the lab has none.
func (s settings) image(prefix string) int {
	return slices.IndexFunc(s.Images, func(i image) bool { return i.Prefix == prefix })
}

// errNoSettings is a lab that this provider never made.
var errNoSettings = errors.New("this lab has no VMs")

func (p paths) load() (settings, error) {
	var s settings
	data, err := os.ReadFile(p.settings())
	if errors.Is(err, fs.ErrNotExist) {
		return s, errNoSettings
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read %s: %w (labctl up writes it anew once it is removed)", p.settings(), err)
	}
	return s, nil
}

// write puts a file where it differs, and says whether it did.
func (p paths) write(file string, data []byte) (bool, error) {
	if old, err := os.ReadFile(file); err == nil && string(old) == string(data) {
		return false, nil
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return false, err
	}
	return true, maybe.WriteFile(file, data, 0o644)
}

func (p paths) writeJSON(file string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	_, err = p.write(file, append(data, '\n'))
	return err
}

// made lists the machines that Vagrant has made for the lab, by their names:
// those that are there, and those that were removed behind its back.
func (p paths) made(provider string) []string {
	return within(p.machines(), func(node string) bool { return exists(p.id(node, provider)) })
}

// choose makes the choices for a new lab. Those that a machine stands on stay as
// they are, and it is an error where they do not do any more.
func (p *Provider) choose(ctx context.Context, t *topo.Topology, s settings) (settings, error) {
	lab, wanted := t.Metadata.Name, p.options.provider(t)
	if s.Provider == "" {
		s.Provider = wanted
	}
	if s.Provider != wanted {
		return s, fmt.Errorf("lab %s stands on %s, not on %s: take it down first (labctl down --lab %s)", lab, s.Provider, wanted, lab)
	}
	made := len(p.options.paths(lab).made(s.Provider)) > 0
	if s.Provider == VirtualBox {
		if made && p.options.HostOnly && !s.HostOnly {
			return s, fmt.Errorf("lab %s stands on internal networks, not on host-only ones: take it down first (labctl down --lab %s)", lab, lab)
		}
		s.HostOnly = s.HostOnly || p.options.HostOnly
		return s, nil
	}
	var err error
	if s.Management, err = p.management(ctx, t, s.Management, made); err != nil {
		return s, err
	}
	box, version := boxOf(t)
	prefix := imagePrefix(box, version)
	if s.image(prefix) < 0 {
		there, err := p.virsh.volumes(ctx, prefix)
		s.Images = append(s.Images, image{Prefix: prefix, Own: err == nil && len(there) == 0})
	}
	return s, nil
}

// management is the range of the lab's management network: the one that it has,
// as long as t uses no address of it.
func (p *Provider) management(ctx context.Context, t *topo.Topology, has netip.Prefix, made bool) (netip.Prefix, error) {
	lab := t.Metadata.Name
	if has.IsValid() {
		if !slices.ContainsFunc(rangesOf(t), has.Overlaps) {
			return has, nil
		}
		if made {
			return has, &Fault{Class: ErrNetwork,
				Said: fmt.Sprintf("the VMs of lab %s are reached by %s, of which the topology uses addresses now", lab, has),
				Cure: "labctl down --lab " + lab + ", then labctl up"}
		}
		_ = p.virsh.removeNetwork(ctx, managementName(lab)) // a failed up may have left it, with the old range
	}
	taken := hostRanges()
	for _, name := range p.options.stored() {
		if other, err := p.options.paths(name).load(); err == nil && other.Management.IsValid() {
			taken = append(taken, other.Management)
		}
	}
	return freeRange(t, taken)
}

// stored are the labs that this provider has files of, sorted.
func (o Options) stored() []string {
	return within(o.DataDir, func(lab string) bool { return exists(o.paths(lab).settings()) })
}

// within are the names in a directory that are taken, sorted; none where it is not there.
func within(dir string, take func(name string) bool) []string {
	entries, _ := os.ReadDir(dir) // sorts them
	var names []string
	for _, e := range entries {
		if take(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// prepare writes what vagrant needs to know of t, and keeps to what was chosen before.
func (p *Provider) prepare(ctx context.Context, t *topo.Topology) (settings, error) {
	l := p.lab(t.Metadata.Name)
	at := l.at
	if err := l.preparing.lock(ctx); err != nil {
		return settings{}, err
	}
	defer l.preparing.unlock()
	s, err := at.load()
	if err != nil && !errors.Is(err, errNoSettings) {
		return s, err
	}
	if s, err = p.choose(ctx, t, s); err != nil {
		return s, err
	}
	v := describe(t, s, s.Provider == Libvirt && !hasKVM())
	for _, name := range at.made(s.Provider) {
		if _, wanted := t.Nodes.Get(name); !wanted {
			v.Stale = append(v.Stale, name)
		}
	}
	text, err := v.render()
	if err != nil {
		return s, err
	}
	if err := at.writeJSON(at.settings(), s); err != nil {
		return s, fmt.Errorf("write the settings of lab %s: %w", t.Metadata.Name, err)
	}
	if _, err := at.write(at.vagrantfile(), text); err != nil {
		return s, fmt.Errorf("write the Vagrantfile of lab %s: %w", t.Metadata.Name, err)
	}
	return s, nil
}

// note writes down with how many NICs machines are asked for, before they are.
func (p *Provider) note(ctx context.Context, l *lab, t *topo.Topology, nodes []string) error {
	if err := l.preparing.lock(ctx); err != nil {
		return err
	}
	defer l.preparing.unlock()
	s, err := l.at.load()
	if err != nil {
		return err
	}
	if s.NICs == nil {
		s.NICs = map[string]int{}
	}
	for _, node := range nodes {
		s.NICs[node] = nicsOf(t, node)
	}
	if err := l.at.writeJSON(l.at.settings(), s); err != nil {
		return fmt.Errorf("write the settings of lab %s: %w", l.name, err)
	}
	return nil
}

// hostRanges are those of the host's own interfaces.
func hostRanges() []netip.Prefix {
	var ranges []netip.Prefix
	addresses, _ := net.InterfaceAddrs() // without them the topology's still count
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() {
			ranges = append(ranges, prefix.Masked())
		}
	}
	return ranges
}

// freeRange picks a /24 for a lab's management network: of 192.168.130.0 to
// 192.168.249.0 the one that the lab's name leads to, or the next one that
// overlaps with nothing of the topology and nothing that is taken.
func freeRange(t *topo.Topology, taken []netip.Prefix) (netip.Prefix, error) {
	const first, count = 130, 120
	taken = append(slices.Clone(taken), rangesOf(t)...)
	start := 0
	for _, b := range []byte(t.Metadata.Name) {
		start = (start*31 + int(b)) % count
	}
	for i := range count {
		third := byte(first + (start+i)%count)
		candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, third, 0}), 24)
		if !slices.ContainsFunc(taken, candidate.Overlaps) {
			return candidate, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free range for the management network of lab %s among 192.168.%d.0/24 to 192.168.%d.0/24 (use other ranges in the topology): %w",
		t.Metadata.Name, first, first+count-1, ErrNetwork)
}

// rangesOf are all addresses that the topology speaks of.
func rangesOf(t *topo.Topology) []netip.Prefix {
	ranges := []netip.Prefix{t.Cluster.PodCIDR, t.Cluster.ServiceCIDR, t.Cluster.NativeRoutingCIDR}
	for _, n := range t.Networks.All() {
		ranges = append(ranges, n.CIDR)
	}
	for _, n := range t.Nodes.All() {
		ranges = append(ranges, n.PodCIDR)
		for _, iface := range n.Interfaces.All() {
			ranges = append(ranges, iface.Address.Masked())
		}
		for _, r := range n.Routes {
			ranges = append(ranges, r.To)
		}
	}
	return slices.DeleteFunc(ranges, func(p netip.Prefix) bool { return !p.IsValid() || p.Bits() == 0 })
}

// networksOf are the lab's networks, as /etc/vbox/networks.conf takes them.
func networksOf(t *topo.Topology) string {
	var ranges []string
	for _, n := range t.Networks.All() {
		ranges = append(ranges, n.CIDR.String())
	}
	return strings.Join(ranges, " ")
}
