package graph

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/native-routing/labctl/topologies/topo"
)

// Text draws the lab as a tree: networks, the nodes on each with their
// interfaces, and then the static routes.
func Text(t *topo.Topology) []byte {
	s := newScene(t)
	var b strings.Builder
	b.WriteString(s.name)
	if s.about != "" {
		b.WriteString(": " + s.about)
	}
	b.WriteByte('\n')
	for _, line := range []string{s.cluster, s.uplink} {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	shown := make([]bool, len(s.members))
	widths := s.widths()
	for i, n := range s.segments {
		b.WriteString("\n" + strings.Join(words(n.name, n.cidr, n.note), "  ") + "\n")
		writeTree(&b, widths, s.branches(shown, func(r row) bool { return r.kind == wired && r.network == i }))
	}
	s.writeLoose(&b, widths, shown)
	s.writeRoutes(&b, widths)
	return []byte(b.String())
}

// branch is one line of a tree: cells in columns, and the lines under it.
type branch struct {
	cells  [4]string
	leaves []string
}

// branches returns a line for each interface that is wanted. A node's dummy
// interfaces stand under its first line in the whole drawing.
func (s *scene) branches(shown []bool, want func(row) bool) []branch {
	var found []branch
	for i := range s.members {
		m := &s.members[i]
		for _, r := range m.rows {
			if !want(r) {
				continue
			}
			line := branch{cells: [4]string{m.name, m.role, r.name + " " + r.address, m.remark(s, r)}}
			if !shown[i] {
				shown[i] = true
				line.leaves = m.standalone()
			}
			found = append(found, line)
		}
	}
	return found
}

// remark is what is worth saying of m beside its interface r. A node on very
// many networks names the first few.
func (m *member) remark(s *scene, r row) string {
	const few = 6
	remarks := words(r.note)
	others := 0
	for _, other := range m.rows {
		switch {
		case other.kind == pods:
			remarks = append(remarks, "pods "+other.address)
		case other.kind == wired && other.network != r.network:
			if others++; others <= few {
				remarks = append(remarks, fmt.Sprintf("to %s by %s", s.segments[other.network].name, other.name))
			}
		}
	}
	if others > few {
		remarks = append(remarks, fmt.Sprintf("to %d more", others-few))
	}
	return strings.Join(remarks, ", ")
}

func (m *member) standalone() []string {
	var lines []string
	for _, r := range m.rows {
		if r.kind == alone {
			lines = append(lines, fmt.Sprintf("%s %s (%s)", r.name, r.address, r.note))
		}
	}
	return lines
}

func writeTree(b *strings.Builder, widths [4]int, lines []branch) {
	for i, line := range lines {
		twig, under := "├─ ", "│  "
		if i == len(lines)-1 {
			twig, under = "└─ ", "   "
		}
		b.WriteString(twig)
		writeCells(b, line.cells[:], widths[:])
		for j, leaf := range line.leaves {
			twig := "├─ "
			if j == len(line.leaves)-1 {
				twig = "└─ "
			}
			b.WriteString(under + twig + leaf + "\n")
		}
	}
}

// widths are the same for every network, so that the eye finds its column.
func (s *scene) widths() (w [4]int) {
	for _, m := range s.members {
		w[0] = max(w[0], utf8.RuneCountInString(m.name))
		w[1] = max(w[1], utf8.RuneCountInString(m.role))
		for _, r := range m.rows {
			if r.kind == wired {
				w[2] = max(w[2], utf8.RuneCountInString(r.name+" "+r.address))
			}
		}
	}
	return w
}

// writeCells pads cells to their widths; those beyond the widths stand as they are.
func writeCells(b *strings.Builder, cells []string, widths []int) {
	var line strings.Builder
	for i, cell := range cells {
		width := 0
		if i < len(widths) {
			width = widths[i]
		}
		fmt.Fprintf(&line, "%-*s  ", width, cell)
	}
	b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}

func (s *scene) writeLoose(b *strings.Builder, widths [4]int, shown []bool) {
	var lines []branch
	for i := range s.members {
		if m := &s.members[i]; !shown[i] {
			line := branch{cells: [4]string{m.name, m.role}, leaves: m.standalone()}
			line.cells[2] = m.remark(s, row{network: -1})
			lines = append(lines, line)
		}
	}
	if len(lines) > 0 {
		b.WriteString("\non no network\n")
		writeTree(b, widths, lines)
	}
}

func (s *scene) writeRoutes(b *strings.Builder, widths [4]int) {
	var lines [][]string
	for _, m := range s.members {
		for _, r := range m.routes {
			lines = append(lines, []string{m.name, r})
		}
	}
	if len(lines) == 0 {
		return
	}
	b.WriteString("\nstatic routes\n")
	for i, cells := range lines {
		if i > 0 && lines[i-1][0] == cells[0] {
			cells = []string{"", cells[1]}
		}
		b.WriteString("   ")
		writeCells(b, cells, widths[:1])
	}
}

// words returns those that are not empty.
func words(all ...string) []string {
	var some []string
	for _, w := range all {
		if w != "" {
			some = append(some, w)
		}
	}
	return some
}
