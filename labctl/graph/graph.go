// Package graph draws a lab from its topology alone: as text for a terminal, as
// an SVG picture with a layout of its own, and as DOT and Mermaid for the tools
// that lay out by themselves. All follow the file's order, so that the same file
// always gives the same bytes.
package graph

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/native-routing/labctl/topologies/topo"
)

// defaultMTU is not worth a word in a picture.
const defaultMTU = 1500

// kind tells the rows of a node apart.
type kind int

const (
	wired kind = iota // an interface on a network
	alone             // a dummy interface
	pods              // the node's pod CIDR
)

// row is one fact of a node that has an address.
type row struct {
	kind kind
	// name of the interface, or "pods".
	name    string
	address string
	// note is what sets the interface apart: "dummy", "mtu 1400".
	note string
	// network is the index of the network of a wired interface.
	network int
}

// member is a node as the pictures show it.
type member struct {
	name   string
	role   string
	rows   []row
	routes []string
	// networks that it is on, each once.
	networks []int
}

// segment is a network as the pictures show it.
type segment struct {
	name string
	cidr string
	// note is the MTU where it is not the usual one.
	note string
}

// scene is a topology as the pictures show it, in the file's order.
type scene struct {
	name     string
	about    string
	cluster  string
	uplink   string
	segments []segment
	members  []member
}

func newScene(t *topo.Topology) *scene {
	s := &scene{
		name:    clean(t.Metadata.Name),
		about:   clean(t.Metadata.Description),
		cluster: clusterLine(t.Cluster),
		uplink:  uplinkLine(topo.NATUplink()),
	}
	index := map[string]int{}
	for name, n := range t.Networks.All() {
		if _, ok := index[name]; !ok {
			index[name] = len(s.segments)
		}
		s.segments = append(s.segments, segment{clean(name), n.CIDR.String(), mtuNote(n.MTU, defaultMTU)})
	}
	for name, n := range t.Nodes.All() {
		m := member{name: clean(name), role: clean(string(n.Role)), routes: routeLines(n.Routes)}
		for ifName, iface := range n.Interfaces.All() {
			m.rows = append(m.rows, newRow(t, index, ifName, iface))
		}
		if n.PodCIDR.IsValid() {
			m.rows = append(m.rows, row{kind: pods, name: "pods", address: n.PodCIDR.String()})
		}
		m.networks = on(m.rows)
		s.members = append(s.members, m)
	}
	return s
}

func newRow(t *topo.Topology, index map[string]int, name string, iface topo.Interface) row {
	r := row{kind: alone, name: clean(name), address: iface.Address.String()}
	var notes []string
	usual := defaultMTU
	if i, ok := index[iface.Network]; ok {
		r.kind, r.network = wired, i
		if mtu := t.Networks[i].Value.MTU; mtu != 0 {
			usual = mtu
		}
	} else {
		notes = append(notes, string(topo.Dummy))
	}
	if note := mtuNote(iface.MTU, usual); note != "" {
		notes = append(notes, note)
	}
	r.note = strings.Join(notes, ", ")
	return r
}

// on returns the network of each wired row, each once.
func on(rows []row) []int {
	var found []int
	seen := map[int]bool{}
	for _, r := range rows {
		if r.kind == wired && !seen[r.network] {
			seen[r.network] = true
			found = append(found, r.network)
		}
	}
	return found
}

func mtuNote(mtu, usual int) string {
	if mtu == 0 || mtu == usual {
		return ""
	}
	return fmt.Sprintf("mtu %d", mtu)
}

func clusterLine(c topo.Cluster) string {
	var parts []string
	if c.PodCIDR.IsValid() {
		parts = append(parts, "pods "+c.PodCIDR.String())
	}
	if c.ServiceCIDR.IsValid() {
		parts = append(parts, "services "+c.ServiceCIDR.String())
	}
	if c.RoutingMode != "" {
		parts = append(parts, clean(string(c.RoutingMode))+" routing")
	}
	return strings.Join(parts, ", ")
}

func uplinkLine(u topo.Uplink) string {
	return fmt.Sprintf("every node: %s %s (NAT), default via %s", u.Interface, u.Address, u.Gateway)
}

func routeLines(routes []topo.Route) []string {
	var lines []string
	for _, r := range routes {
		hops := make([]string, len(r.Via))
		for i, via := range r.Via {
			hops[i] = via.String()
		}
		lines = append(lines, fmt.Sprintf("%s via %s", r.To, strings.Join(hops, ", ")))
	}
	return lines
}

// clean replaces what no name should have: control characters and broken UTF-8.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
}
