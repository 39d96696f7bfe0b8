package explain

import (
	"fmt"
	"strings"

	"github.com/native-routing/labctl/labctl/lang"
)

// Markdown is the report as a write-up to hand in: the question, the way with
// its routes, what was seen, the cause, and the cure. Capture is the name of
// the file with the packets beside it; empty for none.
func (r *Report) Markdown(p lang.Printer, capture string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", r.title(p))
	fmt.Fprintf(&b, "%s\n\n", p.Sprintf("Lab %s, stage %s.", r.Lab, orDash(r.Stage)))
	fmt.Fprintf(&b, "**%s**\n", r.Verdict.Sentence)
	for i := range r.Ways {
		r.Ways[i].markdown(&b, p)
	}
	r.observedMarkdown(&b, p, capture)
	fmt.Fprintf(&b, "\n## %s\n\n", p.Sprintf("Cause"))
	for _, f := range append(r.Verdict.Findings, r.Verdict.Remarks...) {
		fmt.Fprintf(&b, "- %s (`%s`)\n", f.Reason, f.Cause)
	}
	if len(r.Verdict.Findings)+len(r.Verdict.Remarks) == 0 {
		fmt.Fprintf(&b, "%s\n", p.Sprintf("Nothing is amiss."))
	}
	r.cureMarkdown(&b, p)
	return b.String()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func (w *Way) markdown(b *strings.Builder, p lang.Printer) {
	for _, leg := range []*Path{&w.Request, w.Reply} {
		if leg == nil {
			continue
		}
		title := p.Sprintf("The request")
		if leg.Leg == Reply {
			title = p.Sprintf("The reply")
		}
		if w.Backend.IsValid() {
			title += " (" + w.Backend.String() + ")"
		}
		fmt.Fprintf(b, "\n## %s\n\n| %s | %s | %s | %s | TTL |\n|---|---|---|---|---|\n", title,
			p.Sprintf("Where"), p.Sprintf("In"), p.Sprintf("What is done"), p.Sprintf("Addresses"))
		for i := range leg.Hops {
			h := &leg.Hops[i]
			fmt.Fprintf(b, "| %s | %s | %s | %s > %s | %d |\n", h.Place.Name(), h.In, strings.Join(h.lines(p), "<br>"), h.From, h.To, h.TTL)
		}
		fmt.Fprintf(b, "\n%s\n", leg.outcome(p))
	}
}

func (r *Report) observedMarkdown(b *strings.Builder, p lang.Printer, capture string) {
	fmt.Fprintf(b, "\n## %s\n\n", p.Sprintf("What was seen"))
	switch {
	case len(r.Observed) == 0:
		fmt.Fprintf(b, "%s\n", p.Sprintf("No packet was sent: all of this is predicted from the nodes' tables."))
		return
	case r.Headline != "":
		fmt.Fprintf(b, "%s\n", p.Sprintf("Seen is not what was predicted: %s", r.Headline))
	default:
		fmt.Fprintf(b, "%s\n", p.Sprintf("What was predicted."))
	}
	var text strings.Builder
	for i, seen := range r.Observed {
		r.observedText(&text, p, i, seen)
	}
	fmt.Fprintf(b, "\n```%s```\n", text.String())
	if capture != "" {
		fmt.Fprintf(b, "\n%s\n", p.Sprintf("The packets are in [%s](%s).", capture, capture))
	}
}

func (r *Report) cureMarkdown(b *strings.Builder, p lang.Printer) {
	var cures []string
	for _, s := range r.Verdict.Stages {
		cures = append(cures, "labctl stage "+s)
	}
	for _, f := range r.Verdict.Findings {
		cures = append(cures, f.Cures...)
	}
	if len(cures) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n", p.Sprintf("Cure"))
	fmt.Fprintf(b, "```\n%s\n```\n", strings.Join(cures, "\n"))
	for _, also := range r.Verdict.Also {
		fmt.Fprintf(b, "\n%s\n", also)
	}
}
