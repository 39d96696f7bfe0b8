package graph

import (
	"fmt"
	"strings"

	"github.com/native-routing/labctl/topologies/topo"
)

// DOT describes the lab in Graphviz's language, for `dot -Tsvg` and its kin.
// Static routes are tooltips.
func DOT(t *topo.Topology) []byte {
	s := newScene(t)
	a := arrange(s)
	var b strings.Builder
	fmt.Fprintf(&b, "graph %s {\n", dotQuote(s.name))
	b.WriteString(`  graph [rankdir=LR, ranksep=0.6, nodesep=0.4, fontname="monospace", labelloc=b, label=` + dotQuote(s.uplink) + "]\n")
	b.WriteString(`  node [shape=box, style="rounded,filled", fillcolor=white, fontname="monospace", fontsize=11]` + "\n")
	b.WriteString(`  edge [fontname="monospace", fontsize=9]` + "\n")
	for i, n := range s.segments {
		label := dotQuote(words(n.name, n.cidr, n.note)...)
		fmt.Fprintf(&b, "  network%d [label=%s, style=filled, fillcolor=lightblue]\n", i, label)
	}
	for i, m := range s.members {
		fmt.Fprintf(&b, "  node%d [label=%s%s%s]\n", i, dotQuote(m.label()...), dotFill(m.role), dotTooltip(m))
	}
	s.edges(a, func(node, network int, r row, left bool) {
		from, to := fmt.Sprintf("node%d", node), fmt.Sprintf("network%d", network)
		if !left {
			from, to = to, from
		}
		fmt.Fprintf(&b, "  %s -- %s [label=%s]\n", from, to, dotQuote(words(r.name, r.address, r.note)...))
	})
	b.WriteString("}\n")
	return []byte(b.String())
}

// edges yields every wired interface. Left ones stand to the left of their
// network: drawn in that direction, the tools' own layout follows ours.
func (s *scene) edges(a *arrangement, yield func(node, network int, r row, left bool)) {
	for i, m := range s.members {
		for _, r := range m.rows {
			if r.kind == wired {
				yield(i, r.network, r, a.leftOf(i, r.network))
			}
		}
	}
}

// label is a node's text where its wired interfaces stand on the edges.
func (m *member) label() []string {
	lines := words(m.name, m.role)
	for _, r := range m.rows {
		switch r.kind {
		case alone:
			lines = append(lines, fmt.Sprintf("%s %s (%s)", r.name, r.address, r.note))
		case pods:
			lines = append(lines, "pods "+r.address)
		}
	}
	return lines
}

func dotFill(role string) string {
	if topo.Role(role) == topo.RoleRouter {
		return ", fillcolor=lightyellow"
	}
	return ""
}

func dotTooltip(m member) string {
	if len(m.routes) == 0 {
		return ""
	}
	return ", tooltip=" + dotQuote(m.routes...)
}

// dotQuote returns lines as one quoted string of DOT. A backslash would begin an
// escape such as \N, the node's own name, and an ampersand a character's name.
func dotQuote(lines ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "&", "&amp;")
	for i, line := range lines {
		lines[i] = escape.Replace(line)
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}
