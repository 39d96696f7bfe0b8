package graph

// placeBars sets a rank's bars at x, one beneath the other. A bar that is alone
// is as high as the body.
func (d *drawing) placeBars(s *scene, rank []int, reaches map[int]span, x float64, body rect) {
	if len(rank) == 1 {
		d.addBar(s, rank[0], rect{x, body.y, barWidth, body.h})
		return
	}
	starts := divide(s, rank, reaches, body)
	for i, n := range rank {
		top := starts[i]
		if i > 0 {
			top += labelHeight(&s.segments[n])
		}
		bottom := body.bottom()
		if i+1 < len(rank) {
			bottom = starts[i+1] - boxGap
		}
		// No longer than what it joins, so that each stands by its own nodes.
		if r, ok := reaches[n]; ok {
			top = max(top, min(r.high-rowHeight, bottom-barMinimum))
			bottom = min(bottom, max(r.low+rowHeight, top+barMinimum))
		}
		d.addBar(s, n, rect{x, top, barWidth, bottom - top})
	}
}

// divide returns where in the body each of a rank's networks begins: half way
// between its neighbours' middles, with room for a label and a bar at least.
func divide(s *scene, rank []int, reaches map[int]span, body rect) []float64 {
	middles := make([]float64, len(rank))
	needs := make([]float64, len(rank))
	for i, n := range rank {
		middles[i] = body.middle()
		if r, ok := reaches[n]; ok {
			middles[i] = (r.high + r.low) / 2
		}
		needs[i] = barMinimum
		if i > 0 {
			needs[i] += labelHeight(&s.segments[n])
		}
	}
	starts := make([]float64, len(rank))
	starts[0] = body.y
	for i := 1; i < len(rank); i++ {
		half := (middles[i-1] + middles[i]) / 2
		starts[i] = max(half, starts[i-1]+needs[i-1]+boxGap)
	}
	last := body.bottom()
	for i := len(rank) - 1; i > 0; i-- {
		starts[i] = min(starts[i], last-needs[i])
		last = starts[i] - boxGap
	}
	return starts
}

// span is from the highest to the lowest of a network's interfaces.
type span struct{ high, low float64 }

// reaches returns the span of every network that has interfaces.
func (d *drawing) reaches(s *scene) map[int]span {
	all := map[int]span{}
	for i := range d.boxes {
		d.boxes[i].ports(s, func(y float64, network int) {
			r, ok := all[network]
			if !ok {
				r = span{y, y}
			}
			all[network] = span{min(r.high, y), max(r.low, y)}
		})
	}
	return all
}

func (d *drawing) addBar(s *scene, network int, place rect) {
	n := &s.segments[network]
	h, w := labelHeight(n), labelWidth(n)
	d.bars = append(d.bars, bar{rect: place, network: network, label: rect{
		x: place.x + place.w/2 - w/2, y: place.y - h, w: w, h: h - labelGap,
	}})
}
