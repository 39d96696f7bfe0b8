//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/native-routing/labctl/labctl/ui"
)

// Report is one run of the bench.
type Report struct {
	Machine Machine `json:"machine"`
	Rows    []Row   `json:"rows"`
}

// Unit is what a row's numbers count.
type Unit string

// The units.
const (
	Seconds Unit = "s"
	MiB     Unit = "MiB"
)

// Row is one line of the table.
type Row struct {
	What string `json:"what"`
	Unit Unit   `json:"unit"`
	Ours Spread `json:"ours"`
	// Floor is measured in the same rounds; nil where there is none.
	Floor *Spread `json:"floor,omitempty"`
	// FloorIs says what the floor is.
	FloorIs string `json:"floorIs,omitempty"`
	// Ratio is of the medians; 0 without a floor.
	Ratio float64 `json:"ratio,omitempty"`
	Goal  *Goal   `json:"goal,omitempty"`
	// Nodes is the size of the lab, where the row is about size.
	Nodes int `json:"nodes,omitempty"`
	// Absent is why nothing was measured; the numbers are 0 then.
	Absent string `json:"absent,omitempty"`
}

// Goal is what a median, or a ratio, should be at most.
type Goal struct {
	AtMost  float64 `json:"atMost,omitempty"`
	OfRatio bool    `json:"ofRatio,omitempty"`
	// Faster is how many times the floor's median ours should be in at least; 0
	// where AtMost counts.
	Faster float64 `json:"faster,omitempty"`
	Met    bool    `json:"met"`
}

// Spread is what several runs measured.
type Spread struct {
	Runs   int     `json:"runs"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// samples are the measurements of one thing.
type samples []float64

// took adds the time since start, in seconds.
func (s *samples) took(start time.Time) { *s = append(*s, time.Since(start).Seconds()) }

// spread needs one sample or more.
func (s samples) spread() Spread {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	return Spread{Runs: n, Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1]}
}

// timed is a row of durations.
func timed(what string, ours samples) Row { return Row{What: what, Unit: Seconds, Ours: ours.spread()} }

// against adds a floor.
func (r Row) against(floor samples, is string) Row {
	spread := floor.spread()
	r.Floor, r.FloorIs = &spread, is
	if spread.Median > 0 {
		r.Ratio = r.Ours.Median / spread.Median
	}
	return r
}

// atMost sets a goal for the median.
func (r Row) atMost(limit float64) Row {
	r.Goal = &Goal{AtMost: limit, Met: r.Ours.Median <= limit}
	return r
}

// ratioAtMost sets a goal for the ratio; the floor comes first.
func (r Row) ratioAtMost(limit float64) Row {
	r.Goal = &Goal{AtMost: limit, OfRatio: true, Met: r.Ratio <= limit}
	return r
}

// faster sets a goal for what takes less than another way; that one comes first.
func (r Row) faster(times float64) Row {
	r.Goal = &Goal{Faster: times, Met: r.Ratio > 0 && 1/r.Ratio >= times}
	return r
}

// absent is a row that could not be measured on this machine.
func absent(what, why string) Row { return Row{What: what, Absent: why} }

// of says how many nodes the row is about.
func (r Row) of(nodes int) Row {
	r.Nodes = nodes
	return r
}

func (r Report) write(w io.Writer) error {
	grid := ui.NewGrid("what", "runs", "median", "min … max", "per node", "floor", "min … max", "ratio", "goal", "floor is")
	for _, row := range r.Rows {
		if row.Absent != "" {
			grid.Row(row.What, "", "", "", "", "", "", "", "", "not measured: "+row.Absent)
			continue
		}
		cells := []string{row.What, strconv.Itoa(row.Ours.Runs), row.Unit.text(row.Ours.Median), row.Unit.limits(row.Ours), "", "", "", "", "", row.FloorIs}
		if row.Nodes > 0 {
			cells[4] = row.Unit.text(row.Ours.Median / float64(row.Nodes))
		}
		if row.Floor != nil {
			cells[5], cells[6] = row.Unit.text(row.Floor.Median), row.Unit.limits(*row.Floor)
			cells[7] = strconv.FormatFloat(row.Ratio, 'f', 2, 64)
		}
		if row.Goal != nil {
			cells[8] = row.Goal.text(row)
		}
		grid.Row(cells...)
	}
	if err := grid.Write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.Machine)
	return err
}

func (g Goal) text(r Row) string {
	limit := r.Unit.text(g.AtMost)
	switch {
	case g.OfRatio:
		limit = times(g.AtMost)
	case g.Faster > 0:
		limit = fmt.Sprintf("%s faster: %.2fx", times(g.Faster), 1/max(r.Ratio, 1e-9))
	}
	if g.Met {
		return limit + " met"
	}
	return limit + " MISSED"
}

func times(limit float64) string { return strconv.FormatFloat(limit, 'f', -1, 64) + "x" }

func (u Unit) limits(s Spread) string { return u.text(s.Min) + " … " + u.text(s.Max) }

// text has three digits that count, or fewer.
func (u Unit) text(v float64) string {
	switch {
	case u == MiB:
		return fmt.Sprintf("%.1f MiB", v)
	case v >= 1:
		return fmt.Sprintf("%.2f s", v)
	case v >= 0.1:
		return fmt.Sprintf("%.0f ms", v*1e3)
	case v >= 0.01:
		return fmt.Sprintf("%.1f ms", v*1e3)
	case v >= 0.0001 || v == 0:
		return fmt.Sprintf("%.2f ms", v*1e3)
	case v >= 0.000001:
		return fmt.Sprintf("%.1f µs", v*1e6)
	default:
		return fmt.Sprintf("%.0f ns", v*1e9)
	}
}
