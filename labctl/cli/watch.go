package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/provision"
)

// minInterval keeps a watch from being a load.
const minInterval = 100 * time.Millisecond

// watch shows how the lab stands, again whenever that changes: redrawn on a
// terminal, as lines of what changed elsewhere, and as one document for each
// change in the other formats. It ends with ctx.
func (a *app) watch(ctx context.Context, every time.Duration, format ui.Format) error {
	if every < minInterval {
		return usageError{fmt.Errorf("--interval %s: %s is the shortest", every, minInterval)}
	}
	l, err := a.current(ctx, a.story())
	if err != nil {
		return err
	}
	if format != ui.Table {
		return l.Watch(ctx, every, func(r lab.StatusReport) error {
			if format == ui.YAML {
				fmt.Fprintln(a.Out, "---")
			}
			return ui.Write(a.Out, format, r, nil)
		})
	}
	if screen, ok := ui.NewScreen(a.Out, a.Getenv); ok {
		return l.Watch(ctx, every, func(r lab.StatusReport) error { return screen.Show(a.view(r)) })
	}
	n := news{app: a}
	return l.Watch(ctx, every, func(r lab.StatusReport) error { return n.write(a.Out, r) })
}

// view is the lab as a terminal shows it.
func (a *app) view(r lab.StatusReport) []string {
	say := a.say.Sprintf
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n", say("Lab %s on %s, stage %s, at %s. Ctrl-C ends.", r.Lab, r.Provider, r.Stage, time.Now().Format(time.TimeOnly)))
	_ = nodeGrid(r).Write(&b) // a buffer takes everything
	fmt.Fprintln(&b)
	found := a.troubles(r)
	for _, t := range found {
		fmt.Fprintln(&b, t.text)
	}
	switch {
	case len(found) == 0:
		fmt.Fprintln(&b, say("All is as the stage has it."))
	default:
		fmt.Fprintf(&b, "\n%s\n", say("labctl reset undoes what was changed by hand."))
	}
	return slices.Collect(strings.Lines(b.String()))
}

// trouble is one thing that is not as the stage has it: what, and how.
type trouble struct{ about, text string }

// troubles are all of them, node by node.
func (a *app) troubles(r lab.StatusReport) []trouble {
	say := a.say.Sprintf
	var found []trouble
	for _, n := range r.Nodes {
		if n.State != provision.NodeRunning {
			found = append(found, trouble{n.Name, say("%s is %s: %s", n.Name, n.State, n.Detail)})
		}
		if n.AgentError != "" {
			found = append(found, trouble{n.Name, n.Name + ": " + n.AgentError})
		}
		for _, d := range n.Drifts() {
			found = append(found, trouble{d.Node + ": " + d.Object, a.drift(d)})
		}
		if n.Agent == nil {
			continue
		}
		for _, o := range n.Agent.Objects {
			if o.Condition == api.Failed {
				about := n.Name + ": " + o.Kind + " " + o.Name
				found = append(found, trouble{about, say("%s has failed: %s", about, o.Reason)})
			}
		}
	}
	return found
}

// news are a watch's lines, and what was told before.
type news struct {
	*app
	told  []trouble
	stage string
	begun bool
}

// write prints what has come, what is otherwise than before, and what is as the
// stage has it again; at first, where the lab stands.
func (n *news) write(w io.Writer, r lab.StatusReport) error {
	say, now := n.say.Sprintf, n.troubles(r)
	var lines []string
	switch {
	case !n.begun:
		lines = append(lines, say("Lab %s on %s is in stage %s; what differs from it: %d.", r.Lab, r.Provider, r.Stage, len(now)))
	case n.stage != r.Stage:
		lines = append(lines, say("Lab %s is in stage %s now.", r.Lab, r.Stage))
	}
	for _, t := range now {
		if !slices.Contains(n.told, t) {
			lines = append(lines, t.text)
		}
	}
	for _, t := range n.told {
		if !slices.ContainsFunc(now, func(other trouble) bool { return other.about == t.about }) {
			lines = append(lines, say("%s: as the stage has it again", t.about))
		}
	}
	n.told, n.stage, n.begun = now, r.Stage, true
	at := time.Now().Format(time.TimeOnly)
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, at, line); err != nil {
			return err
		}
	}
	return nil
}
