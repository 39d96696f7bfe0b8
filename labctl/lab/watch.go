package lab

import (
	"context"
	"reflect"
	"time"

	"github.com/native-routing/labctl/provision"
)

// observeEvery is after how many looks at the agents a watch looks at the
// machine too, though all of them answer.
const observeEvery = 10

// Watch looks at the lab again and again, and tells of each look that differs
// from the one before, the first included. It costs an answer of each agent for
// each look. It ends with nil when ctx does, and with the error of tell.
func (l *Lab) Watch(ctx context.Context, every time.Duration, tell func(StatusReport) error) error {
	agents := l.agents()
	defer agents.Close()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var last StatusReport
	var seen provision.Observation
	for looks := 0; ; looks++ {
		if looks%observeEvery == 0 || !answering(last) {
			agents.Close() // a node may have been made anew
			var err error
			if seen, err = l.observe(ctx); err != nil {
				return ended(ctx, err)
			}
		}
		report, err := l.look(ctx, agents, seen)
		if err != nil {
			return ended(ctx, err)
		}
		if !reflect.DeepEqual(report, last) {
			if err := tell(report); err != nil {
				return err
			}
		}
		last = report
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// ended is nil for what the end of ctx cut short.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// answering says whether every node runs, and its agent answers.
func answering(r StatusReport) bool {
	for _, n := range r.Nodes {
		if n.State != provision.NodeRunning || n.Agent == nil {
			return false
		}
	}
	return len(r.Nodes) > 0
}
