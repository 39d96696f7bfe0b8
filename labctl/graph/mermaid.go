package graph

import (
	"fmt"
	"strings"

	"github.com/native-routing/labctl/topologies/topo"
)

// Mermaid describes the lab as a Mermaid flowchart, which GitHub draws where it
// stands in a Markdown file.
func Mermaid(t *topo.Topology) []byte {
	s := newScene(t)
	a := arrange(s)
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for i, n := range s.segments {
		fmt.Fprintf(&b, "  network%d([%s]):::network\n", i, mermaidQuote(words(n.name, n.cidr, n.note)...))
	}
	for i, m := range s.members {
		class := "machine"
		if topo.Role(m.role) == topo.RoleRouter {
			class = "router"
		}
		fmt.Fprintf(&b, "  node%d[%s]:::%s\n", i, mermaidQuote(m.label()...), class)
	}
	s.edges(a, func(node, network int, r row, left bool) {
		from, to := fmt.Sprintf("node%d", node), fmt.Sprintf("network%d", network)
		if !left {
			from, to = to, from
		}
		fmt.Fprintf(&b, "  %s ---|%s| %s\n", from, mermaidQuote(words(r.name, r.address, r.note)...), to)
	})
	b.WriteString("  classDef network fill:#dbeafe,stroke:#2563eb,color:#1e3a8a\n")
	b.WriteString("  classDef router fill:#fef3c7,stroke:#b45309,color:#78350f\n")
	b.WriteString("  classDef machine fill:#f1f5f9,stroke:#64748b,color:#0f172a\n")
	return []byte(b.String())
}

// mermaidQuote returns lines as one quoted label. All but what an address or a
// name is made of becomes a character code, since quotes, hashes, brackets and
// backticks each mean something to Mermaid.
func mermaidQuote(lines ...string) string {
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteString("<br/>")
		}
		for _, r := range line {
			if strings.ContainsRune("./-:_ (),", r) || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, "#%d;", r)
			}
		}
	}
	return `"` + b.String() + `"`
}
