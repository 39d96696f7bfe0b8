package explain

// Sighting is one device that a packet passes, as a capture there would show it.
type Sighting struct {
	Place
	Device   string `json:"device"`
	Outgoing bool   `json:"outgoing"`
	// Inside says that it is inside of another packet there.
	Inside bool `json:"inside,omitempty"`
}

// sightings are where captures must see the packet. What the eBPF datapath hands
// over is not seen at the device that it passes by.
func (p *Path) sightings() []Sighting {
	seen := []Sighting{}
	for i, h := range p.Hops {
		last := i == len(p.Hops)-1
		if h.In != "" && (!last || p.entered()) {
			seen = append(seen, Sighting{h.Place, h.In, false, h.Outer != nil})
		}
		if h.Out != "" && !h.Direct && (!last || p.left()) {
			seen = append(seen, Sighting{h.Place, h.Out, true, h.Outer != nil})
		}
	}
	return seen
}

// entered says whether the last hop's device still took the packet in.
func (p *Path) entered() bool {
	h, e := p.here(), p.End
	lost := e.Place == h.Place && e.Device == h.In && h.Out == ""
	return !lost || e.Cause != TooBig && e.Cause != LinkDown
}

// left says whether the packet came out of the last hop: it does where the loss
// is on the link or behind it, and not where the node keeps it.
func (p *Path) left() bool {
	h, e := p.here(), p.End
	switch e.Cause {
	case LeftLab, EndsHere, WrongNeighbour:
		return true
	case LinkDown:
		return e.Place != h.Place && e.sent
	}
	return false
}
