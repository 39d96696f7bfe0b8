package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/native-routing/labctl/provision"
)

// DownReport is what down did, and its proof that nothing is left.
type DownReport struct {
	Lab     string             `json:"lab"`
	Changes []provision.Change `json:"changes"`
	// Left is what bears the lab's mark after all; empty is the proof.
	Left provision.Observation `json:"left"`
	Took time.Duration         `json:"tookNanoseconds"`
}

// Down removes everything that bears the lab's mark, or the named nodes alone,
// then looks again. It may be repeated and cut short at any moment.
func (l *Lab) Down(ctx context.Context, nodes ...string) (DownReport, error) {
	start := time.Now()
	report := DownReport{Lab: l.Name}
	unlock, err := l.lock(ctx)
	if err != nil {
		return report, err
	}
	defer unlock()
	step := l.Story.Start("remove")
	report.Changes, err = l.Provider.Destroy(ctx, l.Name, nodes...)
	if err != nil {
		step.Fail(err)
		return report, fmt.Errorf("remove: %w", err)
	}
	step.Done(summary(report.Changes))
	proof := l.Story.Start("proof")
	report.Left, err = l.Provider.Observe(ctx, l.Name)
	if len(nodes) > 0 {
		report.Left = provision.Observation{Nodes: slices.DeleteFunc(report.Left.Nodes, func(n provision.ObservedNode) bool {
			return !slices.Contains(nodes, n.Name)
		})}
	}
	if err == nil && !report.Left.Empty() {
		err = fmt.Errorf("still there: %s (run labctl down again)", strings.Join(leftovers(report.Left), ", "))
	}
	if err == nil && len(nodes) == 0 {
		// The state goes last, so that a down cut short before knows its lab.
		err = l.Store.Remove(l.Name)
	}
	if err != nil {
		proof.Fail(err)
		return report, fmt.Errorf("proof: %w", err)
	}
	proof.Done("nothing is left")
	report.Took = time.Since(start)
	return report, nil
}

func leftovers(o provision.Observation) []string {
	var all []string
	for _, n := range o.Nodes {
		all = append(all, "node "+n.Name)
	}
	return append(all, o.Objects...)
}
