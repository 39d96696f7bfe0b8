package ladder

import "time"

// agree corrects the clocks of nodes by the packet itself, which arrives nowhere
// before it was sent. A clock that the packet does not refute stays as it is. One
// that it does is moved so that request and answer took equally long on the wire,
// or, where no answer came back, so that the request took no time.
func agree(there, back, errors []Rung) {
	clocks := map[string]time.Duration{}
	if len(there) > 0 {
		clocks[there[0].Node] = 0
	}
	follow(clocks, there, back)
	follow(clocks, back, nil)
	for _, leg := range [][]Rung{there, back, errors} {
		for i := range leg {
			leg[i].Time = leg[i].Time.Add(clocks[leg[i].Node])
			leg[i].Packet.Time = leg[i].Time
		}
	}
}

// follow finds what is to be added to the clocks of nodes that a leg comes to for
// the first time.
func follow(clocks map[string]time.Duration, leg, answer []Rung) {
	for i := 1; i < len(leg); i++ {
		x, y := leg[i-1], leg[i]
		if _, known := clocks[y.Node]; known {
			continue
		}
		// y's clock plus what is added shows at least what x's showed before.
		least := x.Time.Add(clocks[x.Node]).Sub(y.Time)
		most, bounded := returned(clocks, answer, y.Node, x.Node)
		switch {
		case least <= 0 && (!bounded || most >= 0):
			clocks[y.Node] = 0
		case bounded:
			clocks[y.Node] = (least + most) / 2
		default:
			clocks[y.Node] = least
		}
	}
}

// returned is the most that may be added to the clock of node y, from which the
// answer came straight to x.
func returned(clocks map[string]time.Duration, answer []Rung, y, x string) (time.Duration, bool) {
	for i := 1; i < len(answer); i++ {
		if answer[i-1].Node == y && answer[i].Node == x {
			return answer[i].Time.Add(clocks[x]).Sub(answer[i-1].Time), true
		}
	}
	return 0, false
}
