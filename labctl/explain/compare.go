package explain

import (
	"slices"

	"github.com/native-routing/labctl/labctl/ladder"
	"github.com/native-routing/labctl/labctl/lang"
)

// CompareAny is [Compare] with whichever of the ways agrees: a node on the way
// chose one of them.
func CompareAny(p lang.Printer, ways []Way, seen ladder.Ladder) string {
	said := ""
	for i, way := range ways {
		differs := Compare(p, way, seen)
		if differs == "" {
			return ""
		}
		if i == 0 {
			said = differs
		}
	}
	return said
}

// Compare says where what was seen of a way is not what was predicted, in one
// sentence; empty where they agree.
func Compare(p lang.Printer, way Way, seen ladder.Ladder) string {
	for _, leg := range []struct {
		leg  Leg
		path *Path
		seen []ladder.Rung
	}{{Request, &way.Request, seen.There}, {Reply, way.Reply, seen.Back}} {
		if said := compareLeg(p, leg.leg, leg.path, sighted(leg.seen)); said != "" {
			return said
		}
	}
	if seen.Answered != way.Arrives() {
		if seen.Answered {
			return p.Sprintf("an answer came, though none was predicted")
		}
		return p.Sprintf("no answer came, though the packet was seen all the way there and back")
	}
	return ""
}

// sighted are the places and devices of a leg as it was seen.
func sighted(rungs []ladder.Rung) []Sighting {
	var list []Sighting
	for _, r := range rungs {
		if r.Device != "lo" {
			list = append(list, Sighting{Place{r.Node, r.Pod}, r.Device, r.Outgoing, r.Tunnel != nil})
		}
	}
	return list
}

func compareLeg(p lang.Printer, name Leg, path *Path, got []Sighting) string {
	var want []Sighting
	if path != nil {
		want = path.Passes
		if path.Loops && len(got) > len(want) {
			got = got[:len(want)]
		}
	}
	if slices.Equal(want, got) {
		return ""
	}
	leg := p.Sprintf("the request")
	if name == Reply {
		leg = p.Sprintf("the reply")
	}
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			return p.Sprintf("%s was predicted to pass %s, and was not seen there: last seen at %s", leg, want[i].text(p), lastText(p, got))
		case i >= len(want):
			return p.Sprintf("%s was seen at %s, where it was not predicted to come", leg, got[i].text(p))
		case want[i] != got[i]:
			return p.Sprintf("%s was seen at %s, and predicted at %s", leg, got[i].text(p), want[i].text(p))
		}
	}
	return ""
}

// text is a sighting in words: router eth0 Out.
func (s Sighting) text(p lang.Printer) string {
	if s.Outgoing {
		return p.Sprintf("%s %s Out", s.Name(), s.Device)
	}
	return p.Sprintf("%s %s In", s.Name(), s.Device)
}

func lastText(p lang.Printer, seen []Sighting) string {
	if len(seen) == 0 {
		return p.Sprintf("nowhere")
	}
	return seen[len(seen)-1].text(p)
}
