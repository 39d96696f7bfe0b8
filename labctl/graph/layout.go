package graph

import "unicode/utf8"

// The measures of the drawing, in pixels.
const (
	margin      = 24.0
	headHeight  = 28.0 // a box's head: name and role
	rowHeight   = 22.0
	boxFoot     = 8.0
	boxPadding  = 14.0
	boxGap      = 22.0 // between boxes of a column
	cellGap     = 10.0 // between texts of a row
	wireLength  = 34.0 // from a box to the bar
	barWidth    = 8.0
	barMinimum  = 56.0
	labelLine   = 16.0
	labelGap    = 8.0 // between a network's label and its bar
	partGap     = 36.0
	titleHeight = 28.0
	footHeight  = 34.0
)

// A monospaced font's advance is 0.602 of its size in all that are in use; a
// little more leaves room for those that are not.
const (
	advance   = 0.62
	titleSize = 17.0
	nameSize  = 13.5
	textSize  = 12.0
	noteSize  = 11.0
)

// rect is a place in the drawing; x and y are its upper left corner.
type rect struct{ x, y, w, h float64 }

func (r rect) right() float64  { return r.x + r.w }
func (r rect) bottom() float64 { return r.y + r.h }
func (r rect) middle() float64 { return r.y + r.h/2 }

// box is a node.
type box struct {
	rect
	node int
	// nameWidth and addressWidth align the texts of its rows.
	nameWidth, addressWidth float64
}

// rowY is the middle of a row.
func (b *box) rowY(i int) float64 {
	return b.y + headHeight + boxFoot/2 + rowHeight*(float64(i)+0.5)
}

// bar is a network, with its label above it.
type bar struct {
	rect
	network int
	label   rect
}

// wire joins a node's interface at x1, y1 with its network's bar at x2, y2. From
// turn on it is level, so that it passes beneath the labels above the bar.
type wire struct {
	network              int
	x1, y1, turn, x2, y2 float64
}

// drawing is a scene with a place for everything in it.
type drawing struct {
	width, height float64
	boxes         []box
	bars          []bar
	wires         []wire
}

// layout gives everything its place.
func layout(s *scene) *drawing {
	a := arrange(s)
	d := &drawing{}
	top := margin + titleHeight
	if s.cluster != "" {
		top += labelLine
	}
	y := top
	var parts []*drawing
	for i := range a.parts {
		p := layoutPart(s, a, &a.parts[i])
		p.shift(0, y)
		y += p.height + partGap
		parts = append(parts, p)
		d.width = max(d.width, p.width)
	}
	d.width = max(d.width, textWidth(s.name, titleSize), textWidth(s.cluster, textSize), textWidth(s.uplink, noteSize))
	for _, p := range parts {
		p.shift((d.width-p.width)/2+margin, 0)
		d.boxes = append(d.boxes, p.boxes...)
		d.bars = append(d.bars, p.bars...)
		d.wires = append(d.wires, p.wires...)
	}
	if len(a.loose) > 0 {
		y = d.placeLoose(s, a.loose, y) + partGap
	}
	d.width += 2 * margin
	d.height = max(y-partGap, top) + footHeight + margin/2
	return d
}

func (d *drawing) shift(dx, dy float64) {
	for i := range d.boxes {
		d.boxes[i].x += dx
		d.boxes[i].y += dy
	}
	for i := range d.bars {
		b := &d.bars[i]
		b.x, b.y = b.x+dx, b.y+dy
		b.label.x, b.label.y = b.label.x+dx, b.label.y+dy
	}
	for i := range d.wires {
		w := &d.wires[i]
		w.x1, w.y1, w.turn, w.x2, w.y2 = w.x1+dx, w.y1+dy, w.turn+dx, w.x2+dx, w.y2+dy
	}
}

// placeLoose sets the nodes without a network in rows beneath all else, and
// returns where they end.
func (d *drawing) placeLoose(s *scene, loose []int, y float64) float64 {
	x, bottom := margin, y
	for _, node := range loose {
		b := newBox(s, node)
		if x > margin && x+b.w > margin+d.width {
			x, y = margin, bottom+boxGap
		}
		b.x, b.y = x, y
		x += b.w + boxGap
		bottom = max(bottom, b.bottom())
		d.width = max(d.width, b.right()-margin)
		d.boxes = append(d.boxes, b)
	}
	return bottom
}

func newBox(s *scene, node int) box {
	m := &s.members[node]
	b := box{node: node}
	noteWidth := 0.0
	for _, r := range m.rows {
		b.nameWidth = max(b.nameWidth, textWidth(r.name, textSize))
		b.addressWidth = max(b.addressWidth, textWidth(r.address, textSize))
		if r.note != "" {
			noteWidth = max(noteWidth, cellGap+textWidth(r.note, noteSize))
		}
	}
	head := textWidth(m.name, nameSize) + 2*cellGap + textWidth(m.role, noteSize)
	b.w = 2*boxPadding + max(head, b.nameWidth+cellGap+b.addressWidth+noteWidth)
	b.h = headHeight + boxFoot + rowHeight*float64(len(m.rows))
	return b
}

// layoutPart places one part, with its upper left corner at 0, 0.
func layoutPart(s *scene, a *arrangement, p *part) *drawing {
	d := &drawing{}
	band := 0.0 // the height of the labels above the first bars
	columns := make([][]box, len(p.columns))
	body := 0.0
	for i, nodes := range p.columns {
		for _, node := range nodes {
			columns[i] = append(columns[i], newBox(s, node))
		}
		body = max(body, stackHeight(columns[i]))
	}
	for _, rank := range p.ranks {
		stack := 0.0
		for i, n := range rank {
			h := labelHeight(&s.segments[n])
			if i == 0 {
				band = max(band, h)
			} else {
				stack += boxGap + h
			}
			stack += barMinimum
		}
		body = max(body, stack)
	}
	d.height = band + body
	xs := d.placeColumns(s, p, columns, rect{y: band, h: body})
	reaches := d.reaches(s)
	for i, rank := range p.ranks {
		d.placeBars(s, rank, reaches, xs[i], rect{y: band, h: body})
	}
	d.attach(s, a)
	return d
}

// placeColumns sets the boxes from left to right, and returns where between them
// each rank's bars go.
func (d *drawing) placeColumns(s *scene, p *part, columns [][]box, body rect) []float64 {
	xs := make([]float64, len(p.ranks))
	x := 0.0
	for i, column := range columns {
		width := 0.0
		for _, b := range column {
			width = max(width, b.w)
		}
		y := body.y + (body.h-stackHeight(column))/2
		for _, b := range column {
			b.x, b.y, b.w = x, y, width
			y += b.h + boxGap
			d.boxes = append(d.boxes, b)
		}
		x += width
		if i == len(p.ranks) {
			break
		}
		left, right := p.gutters(s, i, len(column) > 0, len(columns[i+1]) > 0)
		if i > 0 && len(column) == 0 {
			left = max(left, wireLength) // two bars side by side
		}
		xs[i] = x + left
		x += left + barWidth + right
	}
	d.width = x
	// A label may be wider than what is beside its bar, and must not leave the
	// drawing nor meet the next.
	return d.spread(s, p, xs)
}

// gutters returns the room to the left and right of a rank's bars. One label
// stands above all boxes; several stand between them and need room of their own.
func (p *part) gutters(s *scene, rank int, hasLeft, hasRight bool) (left, right float64) {
	if hasLeft {
		left = wireLength
	}
	if hasRight {
		right = wireLength
	}
	if networks := p.ranks[rank]; len(networks) > 1 {
		for _, n := range networks {
			half := labelWidth(&s.segments[n])/2 + labelGap + wireLength
			left, right = max(left, half), max(right, half)
		}
	}
	return left, right
}

// spread moves bars, and all to the right of them, so far apart that their
// labels do not meet.
func (d *drawing) spread(s *scene, p *part, xs []float64) []float64 {
	free := 0.0
	for i, rank := range p.ranks {
		half := 0.0
		for _, n := range rank {
			half = max(half, labelWidth(&s.segments[n])/2)
		}
		if need := free + half - (xs[i] + barWidth/2); need > 0 {
			for j := range d.boxes {
				if d.boxes[j].x > xs[i] || i == 0 {
					d.boxes[j].x += need
				}
			}
			for j := i; j < len(xs); j++ {
				xs[j] += need
			}
			d.width += need
		}
		free = xs[i] + barWidth/2 + half + 2*labelGap
		d.width = max(d.width, free-2*labelGap)
	}
	return xs
}

func stackHeight(boxes []box) float64 {
	h := 0.0
	for i, b := range boxes {
		if i > 0 {
			h += boxGap
		}
		h += b.h
	}
	return h
}

func labelHeight(n *segment) float64 {
	return labelLine*float64(len(words(n.name, n.cidr, n.note))) + labelGap
}

func labelWidth(n *segment) float64 {
	return max(textWidth(n.name, nameSize), textWidth(n.cidr, textSize), textWidth(n.note, noteSize))
}

// textWidth is the room that a text needs in a monospaced font.
func textWidth(text string, size float64) float64 {
	wide := 0
	for _, r := range text {
		if r >= 0x1100 { // where wide scripts begin
			wide++
		}
	}
	return float64(utf8.RuneCountInString(text)+wide) * advance * size
}

// ports calls yield with every wired row of a box.
func (b *box) ports(s *scene, yield func(y float64, network int)) {
	for i, r := range s.members[b.node].rows {
		if r.kind == wired {
			yield(b.rowY(i), r.network)
		}
	}
}

// attach draws a wire from every interface to its network's bar: straight where
// the bar passes by, else to the bar's nearer end.
func (d *drawing) attach(s *scene, a *arrangement) {
	barOf := map[int]rect{}
	for _, b := range d.bars {
		barOf[b.network] = b.rect
	}
	for i := range d.boxes {
		b := &d.boxes[i]
		b.ports(s, func(y float64, network int) {
			r := barOf[network]
			w := wire{network: network, x1: b.right(), y1: y, x2: r.x, y2: min(max(y, r.y+barWidth), r.bottom()-barWidth)}
			w.turn = w.x1 + wireLength
			if !a.leftOf(b.node, network) {
				w.x1, w.x2 = b.x, r.right()
				w.turn = w.x1 - wireLength
			}
			d.wires = append(d.wires, w)
		})
	}
}
