package ladder

import (
	"fmt"
	"io"
	"slices"

	"github.com/native-routing/labctl/labctl/capture"
)

// Write writes the packets of the ladder as pcapng, each leg in its order, with
// a comment that says which rung it is. Version is labctl's own.
func (l Ladder) Write(w io.Writer, version string) error {
	file := capture.File{Out: w, Version: version, Comment: l.String()}
	legs := []struct {
		name  string
		rungs []Rung
	}{{"request", l.There}, {"reply", l.Back}, {"ICMP error", l.Errors}}
	if len(slices.Concat(l.There, l.Back, l.Errors)) == 0 { // a file has one interface at least
		if err := file.Begin(capture.Device{Place: Place{l.Probe.Node, l.Probe.Pod}.String(), Name: "lo", Link: 1}); err != nil {
			return err
		}
	}
	for _, leg := range legs {
		for i, r := range leg.rungs {
			p := r.Packet
			p.Comment = fmt.Sprintf("%s, %d of %d", leg.name, i+1, len(leg.rungs))
			if err := file.Take(&p); err != nil {
				return err
			}
		}
	}
	return file.End()
}

// String is the probe in one line.
func (l Ladder) String() string {
	from, to := Place{l.Probe.Node, l.Probe.Pod}.String(), l.Probe.To.String()
	if l.Probe.Protocol != ICMP {
		to = fmt.Sprintf("%s:%d", to, l.Probe.Port)
	}
	return fmt.Sprintf("%s from %s to %s", l.Probe.Protocol, from, to)
}
