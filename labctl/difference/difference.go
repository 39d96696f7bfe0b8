// Package difference compares two looks at a lab's nodes, line by line, in the
// words in which ip, and Cilium's tools, print their tables. It is pure.
package difference

import (
	"fmt"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// Look is one node as its agent told of it.
type Look struct {
	Tables api.Tables
	Maps   api.Maps
}

// Sign says whether a line came or went.
type Sign string

// The signs.
const (
	Added   Sign = "+"
	Removed Sign = "-"
)

// Table is where a line stands.
type Table string

// The tables: two of the kernel's own, two of the datapath's maps, and how the
// datapath is set.
const (
	Links    Table = "link"
	Routes   Table = "route"
	Services Table = "service"
	IPCache  Table = "ipcache"
	Settings Table = "setting"
)

// Difference is one line that one of two looks has and the other has not.
type Difference struct {
	Node  string `json:"node"`
	Table Table  `json:"table"`
	Sign  Sign   `json:"sign"`
	Text  string `json:"text"`
}

// line is one of a table's; what goes and what comes in its place have the same key.
type line struct{ key, text string }

type signedLine struct {
	line
	sign Sign
}

func signed(sign Sign, lines []line) []signedLine {
	all := make([]signedLine, len(lines))
	for i, l := range lines {
		all[i] = signedLine{l, sign}
	}
	return all
}

// Between lists what differs on a node: table by table, and in each by key, what
// went before what came. Services with the same backends in another order are
// the same: the kernel's slots have an order that means nothing.
func Between(node string, before, after Look) []Difference {
	var all []Difference
	for _, table := range []struct {
		name  Table
		lines func(Look) []line
	}{
		{Links, links}, {Routes, routes}, {Services, services}, {IPCache, addresses}, {Settings, settings},
	} {
		was, is := table.lines(before), table.lines(after)
		changed := append(signed(Removed, without(was, is)), signed(Added, without(is, was))...)
		slices.SortStableFunc(changed, func(a, b signedLine) int { return strings.Compare(a.key, b.key) })
		for _, l := range changed {
			all = append(all, Difference{Node: node, Table: table.name, Sign: l.sign, Text: l.text})
		}
	}
	return all
}

// without returns the lines of a that are not in b.
func without(a, b []line) []line {
	there := make(map[line]bool, len(b))
	for _, l := range b {
		there[l] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(l line) bool { return there[l] })
}

// links are as ip -brief prints them, with what else bears on a packet. The
// links of pods come and go with them and are left out.
func links(l Look) []line {
	var lines []line
	for _, link := range l.Tables.Links {
		if strings.HasPrefix(link.Name, "lxc") {
			continue
		}
		words := []string{link.Name, state(link), fmt.Sprintf("mtu %d", link.MTU)}
		for _, a := range link.Addresses {
			words = append(words, a.String())
		}
		if !link.Forwarding {
			words = append(words, "forwarding off")
		}
		if link.RPFilter != 0 {
			words = append(words, fmt.Sprintf("rp_filter %d", link.RPFilter))
		}
		lines = append(lines, line{link.Name, strings.Join(words, " ")})
	}
	return lines
}

func state(l api.Link) string {
	switch {
	case !l.Up:
		return "down"
	case !l.Carrier:
		return "up, no carrier"
	}
	return "up"
}

// routes are those of the main table but for the ones to single pods.
func routes(l Look) []line {
	var lines []line
	for _, r := range l.Tables.Routes {
		if len(r.NextHops) == 1 && strings.HasPrefix(r.NextHops[0].Device, "lxc") {
			continue
		}
		lines = append(lines, line{sortable(r), r.String()})
	}
	return lines
}

// sortable puts prefixes in the order of their addresses.
func sortable(r api.Route) string {
	a := r.To.Addr().As4()
	return fmt.Sprintf("%02x%02x%02x%02x/%02d", a[0], a[1], a[2], a[3], r.To.Bits())
}

// services are as bpf lb list has them, a frontend on a line.
func services(l Look) []line {
	var lines []line
	for _, f := range l.Maps.Services {
		backends := make([]string, len(f.Backends))
		for i, b := range f.Backends {
			backends[i] = fmt.Sprintf("%s (%s)", b.Address, b.State)
		}
		slices.Sort(backends)
		if len(backends) == 0 {
			backends = []string{"no backend"}
		}
		key := fmt.Sprintf("%s/%s %s", f.Address, f.Protocol, f.Scope)
		text := fmt.Sprintf("%s/%s %s => %s", f.Address, f.Protocol, f.Type, strings.Join(backends, ", "))
		lines = append(lines, line{key, text})
	}
	return lines
}

// addresses are as bpf ipcache list prints them.
func addresses(l Look) []line {
	var lines []line
	for _, a := range l.Maps.Addresses {
		flags := strings.Join(a.Flags, ",")
		if flags == "" {
			flags = "<none>"
		}
		lines = append(lines, line{a.Prefix.String(), fmt.Sprintf("%s identity=%d tunnelendpoint=%s flags=%s", a.Prefix, a.Identity, a.Node, flags)})
	}
	return lines
}

func settings(l Look) []line {
	var lines []line
	for _, s := range l.Maps.Settings {
		lines = append(lines, line{s.Name, s.Name + ": " + s.Value})
	}
	return lines
}
