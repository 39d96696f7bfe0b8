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
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2/maybe"

	"github.com/native-routing/labctl/topologies/topo"
)

// settings are what was chosen once for a lab, and cannot be seen later.
type settings struct {
	// Provider is VirtualBox or Libvirt.
	Provider string `json:"provider"`
	// Management is the range of libvirt's management network.
	Management netip.Prefix `json:"management,omitzero"`
	// Images begins the names of the box's copies in libvirt's pools. They are
	// OwnImages where there were none before the lab: then they go with the last
	// lab that uses them.
	Images    string `json:"images,omitempty"`
	OwnImages bool   `json:"ownImages,omitempty"`
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
	ids, _ := filepath.Glob(p.id("*", provider)) // the pattern is a good one
	var names []string
	for _, id := range ids {
		names = append(names, filepath.Base(filepath.Dir(filepath.Dir(id))))
	}
	slices.Sort(names)
	return names
}

// choose makes the choices for a new lab.
func (p *Provider) choose(ctx context.Context, t *topo.Topology) (settings, error) {
	s := settings{Provider: p.options.provider(t)}
	if s.Provider != Libvirt {
		return s, nil
	}
	taken := hostRanges()
	for _, lab := range p.options.stored() {
		if other, err := p.options.paths(lab).load(); err == nil && other.Management.IsValid() {
			taken = append(taken, other.Management)
		}
	}
	var err error
	if s.Management, err = freeRange(t, taken); err != nil {
		return s, err
	}
	box, version := boxOf(t)
	s.Images = imagePrefix(box, version)
	images, err := p.virsh.volumes(ctx, s.Images)
	s.OwnImages = err == nil && len(images) == 0
	return s, nil
}

// stored are the labs that this provider has files of, sorted.
func (o Options) stored() []string {
	files, _ := filepath.Glob(o.paths("*").settings()) // a directory with a bracket in its name hides them from nobody but Labs
	var labs []string
	for _, f := range files {
		labs = append(labs, filepath.Base(filepath.Dir(filepath.Dir(f))))
	}
	slices.Sort(labs)
	return labs
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
	if errors.Is(err, errNoSettings) {
		s, err = p.choose(ctx, t)
	}
	if err != nil {
		return s, err
	}
	if wanted := p.options.provider(t); wanted != s.Provider {
		return s, fmt.Errorf("lab %s stands on %s, not on %s: take it down first (labctl down --lab %s)",
			t.Metadata.Name, s.Provider, wanted, t.Metadata.Name)
	}
	v := describe(t, s, p.options.HostOnly, s.Provider == Libvirt && !hasKVM())
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
