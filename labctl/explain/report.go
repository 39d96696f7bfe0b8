package explain

import (
	"github.com/native-routing/labctl/labctl/ladder"
)

// Report is all that is explained of one question.
type Report struct {
	Lab   string `json:"lab"`
	Stage string `json:"stage,omitempty"`
	// From and To are as they were asked.
	From     string   `json:"from"`
	To       string   `json:"to"`
	Question Question `json:"question"`
	// Headline is what was seen where it is not what was predicted; empty where
	// they agree, or nothing was sent.
	Headline string  `json:"headline,omitempty"`
	Verdict  Verdict `json:"verdict"`
	Ways     []Way   `json:"ways"`
	// Observed has one ladder for each way; none where no probe was sent.
	Observed []ladder.Ladder `json:"observed,omitempty"`
	Warnings []string        `json:"warnings,omitempty"`
}

// Arrives says whether the packet does, by what was seen of it, and by the
// prediction where none was sent.
func (r *Report) Arrives() bool {
	if len(r.Observed) == 0 {
		return r.Verdict.Arrives
	}
	for _, l := range r.Observed {
		if !l.Answered {
			return false
		}
	}
	return true
}

// AtSender says whether the sender's own socket chooses the way, so that a probe
// can be sent on it; otherwise a node on the way does.
func (w *Way) AtSender() bool {
	for _, t := range w.Request.Hops[0].Translations {
		if t.By == "service" {
			return true
		}
	}
	return false
}

// Seen is what was seen of all ways, as one ladder to write down; false where
// nothing was sent.
func (r *Report) Seen() (ladder.Ladder, bool) {
	var all ladder.Ladder
	for i, l := range r.Observed {
		if i == 0 {
			all.Probe = l.Probe
		}
		all.There, all.Back, all.Errors = append(all.There, l.There...), append(all.Back, l.Back...), append(all.Errors, l.Errors...)
	}
	return all, len(r.Observed) > 0
}
