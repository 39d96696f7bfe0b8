package graph

import (
	_ "embed"
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/native-routing/labctl/topologies/topo"
)

//go:embed style.css
var styleSheet string

// colours is the number of network colours in the style sheet.
const colours = 6

// SVG draws the lab as a picture that stands alone: networks as bars, nodes as
// boxes beside them, routers between the networks they join. It has a background
// of its own, and follows the reader's choice of light or dark.
func SVG(t *topo.Topology) []byte {
	s := newScene(t)
	d := layout(s)
	c := &canvas{scene: s}
	c.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" viewBox="0 0 %[1]s %[2]s" role="img" aria-labelledby="lab-title lab-about">`+"\n",
		px(d.width), px(d.height))
	c.printf("<title id=\"lab-title\">%s</title>\n", esc("Lab "+s.name))
	c.printf("<desc id=\"lab-about\">%s</desc>\n", esc(s.summary()))
	c.printf("<style>\n%s</style>\n", styleSheet)
	c.printf(`<rect class="back" width="%s" height="%s" rx="10"/>`+"\n", px(d.width), px(d.height))
	c.text("title", margin, margin+titleSize*0.8, s.name)
	c.text("dim", margin, margin+titleSize*0.8+20, s.cluster)
	for _, w := range d.wires {
		c.wire(w)
	}
	for _, b := range d.bars {
		c.bar(b)
	}
	for i := range d.boxes {
		c.box(&d.boxes[i])
	}
	for _, w := range d.wires {
		c.printf(`<circle class="port n%d" cx="%s" cy="%s" r="3.5"/>`+"\n", w.network%colours, px(w.x1), px(w.y1))
	}
	c.text("note", margin, d.height-margin+noteSize*0.4, s.uplink)
	c.printf("</svg>\n")
	return []byte(c.b.String())
}

// summary says in a sentence what the picture shows.
func (s *scene) summary() string {
	names := make([]string, len(s.members))
	for i, m := range s.members {
		names[i] = m.name
		for _, n := range m.networks {
			names[i] += " on " + s.segments[n].name
		}
	}
	about := strings.TrimRight(s.about, ".")
	return strings.Join(words(about, strings.Join(names, ", ")), ". ")
}

// canvas gathers the picture's elements.
type canvas struct {
	scene *scene
	b     strings.Builder
}

func (c *canvas) printf(format string, args ...any) { fmt.Fprintf(&c.b, format, args...) }

// text writes one line whose baseline begins at x, y.
func (c *canvas) text(class string, x, y float64, text string) {
	if text != "" {
		c.printf(`<text class="%s" x="%s" y="%s">%s</text>`+"\n", class, px(x), px(y), esc(text))
	}
}

func (c *canvas) wire(w wire) {
	class := fmt.Sprintf("wire n%d", w.network%colours)
	if w.y1 == w.y2 {
		c.printf(`<path class="%s" d="M%s %sH%s"/>`+"\n", class, px(w.x1), px(w.y1), px(w.x2))
		return
	}
	half := (w.x1 + w.turn) / 2
	c.printf(`<path class="%s" d="M%s %sC%s %s %s %s %s %sH%s"/>`+"\n", class,
		px(w.x1), px(w.y1), px(half), px(w.y1), px(half), px(w.y2), px(w.turn), px(w.y2), px(w.x2))
}

func (c *canvas) bar(b bar) {
	n := &c.scene.segments[b.network]
	colour := fmt.Sprintf("n%d", b.network%colours)
	c.printf(`<rect class="bar %s" x="%s" y="%s" width="%s" height="%s" rx="%s"/>`+"\n",
		colour, px(b.x), px(b.y), px(b.w), px(b.h), px(b.w/2))
	middle, y := b.x+b.w/2, b.label.y+labelLine*0.75
	for _, line := range []struct{ class, text string }{{"net " + colour, n.name}, {"addr mid", n.cidr}, {"note mid", n.note}} {
		if line.text != "" {
			c.text(line.class, middle, y, line.text)
			y += labelLine
		}
	}
}

func (c *canvas) box(b *box) {
	m := &c.scene.members[b.node]
	c.printf("<g>\n")
	c.printf("<title>%s</title>\n", esc(strings.Join(append([]string{m.name}, m.routes...), "\n")))
	c.printf(`<rect class="box" x="%s" y="%s" width="%s" height="%s" rx="6"/>`+"\n", px(b.x), px(b.y), px(b.w), px(b.h))
	c.printf(`<path class="head %s" d="M%s %sv%sa6 6 0 0 1 6 -6h%sa6 6 0 0 1 6 6v%sz"/>`+"\n",
		roleClass(m.role), px(b.x), px(b.y+headHeight), px(6-headHeight), px(b.w-12), px(headHeight-6))
	c.text("name "+roleClass(m.role), b.x+boxPadding, b.y+headHeight*0.66, m.name)
	c.text("role "+roleClass(m.role), b.right()-boxPadding, b.y+headHeight*0.66, m.role)
	for i, r := range m.rows {
		c.row(b, b.rowY(i), r)
	}
	c.printf("</g>\n")
}

func (c *canvas) row(b *box, y float64, r row) {
	class := ""
	switch r.kind {
	case pods:
		class = " pods"
		c.printf(`<rect class="pill" x="%s" y="%s" width="%s" height="%s" rx="4"/>`+"\n",
			px(b.x+boxPadding/2), px(y-rowHeight/2+1), px(b.w-boxPadding), px(rowHeight-2))
	case alone:
		class = " alone"
	}
	base := y + textSize*0.35
	c.text("label"+class, b.x+boxPadding, base, r.name)
	c.text("addr"+class, b.x+boxPadding+b.nameWidth+cellGap, base, r.address)
	c.text("note end", b.right()-boxPadding, base, r.note)
}

func roleClass(role string) string {
	switch topo.Role(role) {
	case topo.RoleRouter:
		return "router"
	case topo.RoleControlPlane:
		return "control"
	case topo.RoleWorker:
		return "worker"
	}
	return "host"
}

// px writes a length without needless digits.
func px(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.1f", v), "0"), ".")
}

func esc(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text))
	return b.String()
}
