package graph

import (
	"fmt"
	"testing"
	"time"

	"github.com/native-routing/labctl/topologies/topo"
)

func (r rect) overlaps(o rect) bool {
	return r.x < o.right() && o.x < r.right() && r.y < o.bottom() && o.y < r.bottom()
}

// TestNothingOverlaps holds boxes, bars and labels apart from each other and
// inside the picture.
func TestNothingOverlaps(t *testing.T) {
	eachLab(t, func(t *testing.T, lab *topo.Topology) {
		s := newScene(lab)
		d := layout(s)
		type thing struct {
			name string
			rect
		}
		var things []thing
		for _, b := range d.boxes {
			things = append(things, thing{"node " + s.members[b.node].name, b.rect})
		}
		for _, b := range d.bars {
			name := "network " + s.segments[b.network].name
			things = append(things, thing{name, b.rect}, thing{name + "'s label", b.label})
		}
		if want := len(lab.Nodes) + 2*len(lab.Networks); len(things) != want {
			t.Errorf("%d things are drawn, want %d", len(things), want)
		}
		for i, x := range things {
			if x.x < margin-1 || x.y < margin+titleHeight-1 || x.right() > d.width-margin+1 || x.bottom() > d.height-footHeight {
				t.Errorf("%s leaves the picture: %+v of %v x %v", x.name, x.rect, d.width, d.height)
			}
			for _, y := range things[:i] {
				if x.overlaps(y.rect) {
					t.Errorf("%s %+v overlaps %s %+v", x.name, x.rect, y.name, y.rect)
				}
			}
		}
	})
}

// between is the place of a line, without its ends.
func between(x1, y1, x2, y2 float64) rect {
	x, y := min(x1, x2), min(y1, y2)
	return rect{x + 0.5, y - 0.5, max(x1, x2) - x - 1, max(y1, y2) - y + 1}
}

// TestWires holds every wire to its box and its bar, through no box between.
func TestWires(t *testing.T) {
	eachLab(t, func(t *testing.T, lab *topo.Topology) {
		s := newScene(lab)
		d := layout(s)
		for _, w := range d.wires {
			if span := max(w.x1, w.x2) - min(w.x1, w.x2); span < wireLength-1 {
				t.Errorf("a wire of %v: %+v", span, w)
			}
			bend := between(w.x1, w.y1, w.turn, w.y2)
			level := between(w.turn, w.y2, w.x2, w.y2)
			for _, b := range d.boxes {
				if b.overlaps(bend) || b.overlaps(level) {
					t.Errorf("wire %+v crosses node %s", w, s.members[b.node].name)
				}
			}
			for _, b := range d.bars {
				if b.network != w.network && (b.overlaps(bend) || b.overlaps(level)) {
					t.Errorf("wire %+v crosses network %s", w, s.segments[b.network].name)
				}
				if b.label.overlaps(bend) || b.label.overlaps(level) {
					t.Errorf("wire %+v crosses the label of %s", w, s.segments[b.network].name)
				}
				if b.network == w.network && (w.y2 < b.y || w.y2 > b.bottom()) {
					t.Errorf("wire %+v ends beside its network", w)
				}
			}
		}
	})
}

func TestTextsFitTheirBox(t *testing.T) {
	eachLab(t, func(t *testing.T, lab *topo.Topology) {
		s := newScene(lab)
		for _, b := range layout(s).boxes {
			m := s.members[b.node]
			if need := textWidth(m.name, nameSize) + textWidth(m.role, noteSize); need > b.w-2*boxPadding {
				t.Errorf("head of %s needs %v of %v", m.name, need, b.w)
			}
			for _, r := range m.rows {
				need := b.nameWidth + cellGap + textWidth(r.address, textSize) + textWidth(r.note, noteSize)
				if need > b.w-2*boxPadding {
					t.Errorf("row %s of %s needs %v of %v", r.name, m.name, need, b.w)
				}
			}
		}
	})
}

func TestColumns(t *testing.T) {
	tests := map[string]string{
		"native-routing": "[[k8s-ctr k8s-w1] [router] [k8s-w0]]",
		"chain":          "[[left] [r1] [r2] [r3] [right]]",
		"square":         "[[a] [r1 r2] [b]]",
	}
	for name, want := range tests {
		s := newScene(readLab(t, "testdata/"+name+".txtar"))
		a := arrange(s)
		if len(a.parts) != 1 || len(a.loose) != 0 {
			t.Fatalf("%s has %d parts", name, len(a.parts))
		}
		var columns [][]string
		for _, column := range a.parts[0].columns {
			var names []string
			for _, node := range column {
				names = append(names, s.members[node].name)
			}
			columns = append(columns, names)
		}
		if got := fmt.Sprint(columns); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// TestManyNetworks holds the time that a large file may take: a chain of
// thousands, and one router on all of them.
func TestManyNetworks(t *testing.T) {
	const n = 1000
	lab := &topo.Topology{}
	hub := topo.Node{Role: topo.RoleRouter}
	name := func(i int) string { return fmt.Sprintf("net%d", i) }
	for i := range n {
		lab.Networks = append(lab.Networks, topo.Entry[topo.Network]{Name: name(i)})
		link := topo.Node{Interfaces: topo.Map[topo.Interface]{
			{Name: "eth1", Value: topo.Interface{Network: name(i)}},
			{Name: "eth2", Value: topo.Interface{Network: name((i + 1) % n)}},
		}}
		lab.Nodes = append(lab.Nodes, topo.Entry[topo.Node]{Name: fmt.Sprintf("r%d", i), Value: link})
		hub.Interfaces = append(hub.Interfaces, topo.Entry[topo.Interface]{Name: fmt.Sprintf("hub%d", i), Value: topo.Interface{Network: name(i)}})
	}
	start := time.Now()
	chain := len(SVG(lab)) + len(Text(lab))
	lab.Nodes = append(lab.Nodes, topo.Entry[topo.Node]{Name: "hub", Value: hub})
	star := len(SVG(lab)) + len(Text(lab))
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("%d networks took %v", n, took)
	}
	if limit := n * 4000; chain > limit || star > limit {
		t.Errorf("pictures of %d and %d bytes", chain, star)
	}
}
