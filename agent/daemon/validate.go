//go:build linux

package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/native-routing/labctl/agent/api"
)

// minMTU is the least that IPv4 asks of a link, in bytes (RFC 791); maxMTU the
// most that a veth takes.
const (
	minMTU = 68
	maxMTU = 65535
)

// validate says all that makes no sense in s, as one error that matches
// [api.ErrInvalid]. A state that passes can be carried out, or be told of
// object by object.
func validate(s api.State) error {
	var v validator
	if s.Generation == "" {
		v.say("generation is missing")
	}
	v.text("generation", s.Generation)
	v.text("lab", s.Lab)
	v.text("node", s.Node)
	if s.Pods != nil {
		v.pods(*s.Pods)
	}
	v.sysctls(s.Sysctls)
	v.underlay(s.Underlay)
	if s.Cluster != nil {
		v.cluster(s.Node, *s.Cluster)
		if s.Pods == nil {
			v.say("a node of the cluster needs pods: its pod network")
		}
	}
	if s.BGP != nil {
		v.bgp(*s.BGP)
	}
	if len(s.Page) > maxPage {
		v.say("page has %d bytes: want at most %d", len(s.Page), maxPage)
	}
	if err := errors.Join(v.errs...); err != nil {
		return &api.Error{Code: api.CodeInvalid, Message: "state: " + strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	return nil
}

// maxErrs bounds the mistakes that are told.
const maxErrs = 20

type validator struct{ errs []error }

func (v *validator) say(format string, args ...any) {
	if len(v.errs) < maxErrs {
		v.errs = append(v.errs, fmt.Errorf(format, args...))
	}
}

// text goes into a link's alias and into logs, where a control character has no place.
func (v *validator) text(field, value string) {
	const maxText = 128
	if len(value) > maxText || strings.ContainsFunc(value, unicode.IsControl) {
		v.say("%s %.40q: want at most %d printable bytes", field, value, maxText)
	}
}

// prefix wants an IPv4 network: no bits beside the mask.
func (v *validator) prefix(field string, p netip.Prefix) {
	if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
		v.say("%s %s: want an IPv4 network such as 172.20.0.0/24", field, p)
	}
}

// podCIDR wants less than a whole class A, so that no route of the agent's takes
// all traffic.
func (v *validator) podCIDR(field string, p netip.Prefix) {
	v.prefix(field, p)
	if p.IsValid() && p.Bits() < 8 {
		v.say("%s %s: want a prefix length of at least 8", field, p)
	}
}

func (v *validator) address(field string, a netip.Addr) {
	if !isHost(a) {
		v.say("%s %s: want the IPv4 address of a host", field, a)
	}
}

// isHost says whether an address can be one machine's.
func isHost(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback()
}

func (v *validator) mtu(field string, mtu int) {
	if mtu < minMTU || mtu > maxMTU {
		v.say("%s %d: want %d to %d", field, mtu, minMTU, maxMTU)
	}
}

func (v *validator) pods(p api.PodNetwork) {
	v.podCIDR("pods.cidr", p.CIDR)
	v.address("pods.gateway", p.Gateway)
	v.mtu("pods.mtu", p.MTU)
	if p.CIDR.IsValid() && (p.CIDR.IsSingleIP() || !p.CIDR.Contains(p.Gateway)) {
		v.say("pods.gateway %s: want an address in pods.cidr %s", p.Gateway, p.CIDR)
	}
	cidrs := []netip.Prefix{p.CIDR}
	for i, peer := range p.Peers {
		field := fmt.Sprintf("pods.peers[%d]", i)
		v.text(field+".name", peer.Name)
		v.address(field+".address", peer.Address)
		v.podCIDR(field+".cidr", peer.CIDR)
		cidrs = append(cidrs, peer.CIDR)
	}
	v.disjoint(cidrs)
	if p.Overlay != nil {
		v.overlay(*p.Overlay, p.Peers)
	}
}

// maxVNI is the highest number of a virtual network: 24 bits (RFC 7348).
const maxVNI = 1<<24 - 1

func (v *validator) overlay(o api.Overlay, peers []api.Peer) {
	if o.VNI > maxVNI {
		v.say("pods.overlay.vni %d: want at most %d", o.VNI, maxVNI)
	}
	if o.Port == 0 {
		v.say("pods.overlay.port is missing")
	}
	v.address("pods.overlay.local", o.Local)
	v.mtu("pods.overlay.mtu", o.MTU)
	for i, peer := range peers {
		field := fmt.Sprintf("pods.peers[%d].gateway", i)
		v.address(field, peer.Gateway)
		if !peer.CIDR.Contains(peer.Gateway) {
			v.say("%s %s: want an address in %s", field, peer.Gateway, peer.CIDR)
		}
	}
}

// disjoint sorts, so that ten thousand peers take no quadratic time: networks
// that overlap are neighbours then.
func (v *validator) disjoint(cidrs []netip.Prefix) {
	cidrs = slices.DeleteFunc(cidrs, func(p netip.Prefix) bool { return !p.IsValid() })
	slices.SortFunc(cidrs, netip.Prefix.Compare)
	for i := 1; i < len(cidrs); i++ {
		if cidrs[i-1].Overlaps(cidrs[i]) {
			v.say("pod CIDR %s overlaps %s", cidrs[i], cidrs[i-1])
		}
	}
}

func (v *validator) sysctls(list []api.Sysctl) {
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		if !sysctlName(s.Name) {
			v.say("sysctl %.80q: want a name under net/, such as net/ipv4/ip_forward", s.Name)
		}
		if seen[s.Name] {
			v.say("sysctl %s is given twice", s.Name)
		}
		seen[s.Name] = true
		if s.Value == "" {
			v.say("sysctl %s has no value", s.Name)
		}
		v.text("sysctl "+s.Name+" =", s.Value)
	}
}

// sysctlName keeps the agent from writing anything but the network's files.
func sysctlName(name string) bool {
	return strings.HasPrefix(name, "net/") && path.Clean(name) == name && len(name) < 128 &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (v *validator) underlay(u api.Underlay) {
	for i, link := range u.Links {
		field := fmt.Sprintf("underlay.links[%d]", i)
		if !linkName(link.Name) {
			v.say("%s.name %.40q: want an interface name", field, link.Name)
		}
		if link.MTU != 0 { // absent: any will do
			v.mtu(field+".mtu", link.MTU)
		}
		for _, a := range link.Addresses {
			if !a.IsValid() || !a.Addr().Is4() {
				v.say("%s.addresses %s: want an IPv4 address with its prefix length", field, a)
			}
		}
	}
	for i, r := range u.Routes {
		field := fmt.Sprintf("underlay.routes[%d]", i)
		v.prefix(field+".to", r.To)
		if r.Device != "" && !linkName(r.Device) {
			v.say("%s.device %.40q: want an interface name", field, r.Device)
		}
		if r.Metric < 0 {
			v.say("%s.metric %d: want 0 or more", field, r.Metric)
		}
		for _, via := range r.Via {
			v.address(field+".via", via)
		}
	}
}

// linkName is the kernel's dev_valid_name.
func linkName(name string) bool {
	return name != "" && len(name) < 16 && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) })
}
