package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
)

func newStatus(a *app) *cobra.Command {
	var watch bool
	var interval time.Duration
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "status [NODE]",
		Short: "Nodes, addresses, agents, and what differs from the topology",
		Long: `Shows every node, and each object that is not in place: refused by its agent,
changed by hand, or failed. With a node it shows all of that node's objects.

It exits with 3 where something is not as the lab made it: a node that does not
run, an agent that does not answer, an object that drifted or failed.

With --watch it goes on until Ctrl-C, and shows each change when it happens.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case watch && len(args) > 0:
				return usageError{errors.New("--watch is of all nodes: name none")}
			case watch:
				return a.watch(cmd.Context(), interval, output.Format)
			}
			l, err := a.current(cmd.Context(), a.story())
			if err != nil {
				return err
			}
			report, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) > 0 {
				return a.nodeStatus(report, args[0], output.Format)
			}
			err = ui.Write(a.Out, output.Format, report, func(w io.Writer) error { return a.writeStatus(w, report) })
			return cmp.Or(err, healthy(report))
		},
		ValidArgsFunction: a.completeNodes,
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on, and show what changes")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "how often --watch looks")
	addOutput(cmd, output)
	return cmd
}

// healthy is nil where all that the report is of is as the lab made it.
func healthy(r lab.StatusReport) error {
	if !r.Healthy() {
		return errFailed
	}
	return nil
}

func (a *app) writeStatus(w io.Writer, r lab.StatusReport) error {
	stage := ""
	if r.Stage != "" {
		stage = ", stage " + r.Stage
	}
	fmt.Fprintf(w, "Lab %s on %s%s, up for %s, from %s\n\n", r.Lab, r.Provider, stage, ui.Duration(time.Since(r.Since).Round(time.Second)), r.Source)
	if err := nodeGrid(r).Write(w); err != nil {
		return err
	}
	writeDatapath(w, r.Nodes)
	if err := writeBGP(w, r.Nodes); err != nil {
		return err
	}
	for _, n := range r.Nodes {
		a.writeTrouble(w, n)
	}
	for _, remark := range r.Remarks {
		fmt.Fprintln(w, "\nnote:", remark)
	}
	if slices.ContainsFunc(r.Nodes, func(n lab.NodeStatus) bool { return n.Count(api.Drifted) > 0 }) {
		fmt.Fprintln(w, "\n"+a.say.Sprintf("labctl reset undoes what was changed by hand."))
	}
	if r.Healthy() {
		fmt.Fprintln(w, "\nAll that the agents hold and watch is in place.")
	}
	return nil
}

// nodeGrid has one node on a line.
func nodeGrid(r lab.StatusReport) *ui.Grid {
	nodes := ui.NewGrid("NODE", "ROLE", "STATE", "ADDRESSES", "PODS", "AGENT", "IN PLACE", "REFUSED", "DRIFTED")
	for _, n := range r.Nodes {
		nodes.Row(n.Name, string(n.Role), string(n.State), strings.Join(n.Addresses, " "), n.PodCIDR, agentText(n),
			fmt.Sprint(n.Count(api.InPlace)), fmt.Sprint(n.Count(api.Refused)), fmt.Sprint(n.Count(api.Drifted)))
	}
	return nodes
}

func agentText(n lab.NodeStatus) string {
	switch {
	case n.Agent == nil:
		return "no answer"
	case !n.Agent.Settled:
		return "settling"
	}
	return "settled"
}

// writeTrouble prints what is not in place on a node.
func (a *app) writeTrouble(w io.Writer, n lab.NodeStatus) {
	if n.Detail != "" {
		fmt.Fprintf(w, "\n%s is %s: %s\n", n.Name, n.State, n.Detail)
	}
	if n.AgentError != "" {
		fmt.Fprintf(w, "\n%s: %s\n", n.Name, n.AgentError)
	}
	if n.Agent == nil {
		return
	}
	for _, o := range n.Agent.Objects {
		if o.Condition != api.InPlace && o.Condition != api.Skipped && o.Condition != api.Drifted {
			fmt.Fprintf(w, "\n%s: %s %s is %s: %s\n", n.Name, o.Kind, o.Name, o.Condition, o.Reason)
		}
	}
	for _, d := range n.Drifts() {
		fmt.Fprintf(w, "\n%s\n", a.drift(d))
	}
}

// nodeStatus prints all objects of one node; its end is about that node alone.
func (a *app) nodeStatus(r lab.StatusReport, name string, format ui.Format) error {
	for _, n := range r.Nodes {
		if n.Name != name {
			continue
		}
		err := ui.Write(a.Out, format, n, func(w io.Writer) error {
			if n.Agent == nil {
				a.writeTrouble(w, n)
				return nil
			}
			objects := ui.NewGrid("KIND", "NAME", "OWNER", "CONDITION", "MENDED", "REASON")
			for _, o := range n.Agent.Objects {
				objects.Row(o.Kind, o.Name, o.Owner, string(o.Condition), fmt.Sprint(o.Mended), o.Reason)
			}
			return objects.Write(w)
		})
		return cmp.Or(err, healthy(lab.StatusReport{Nodes: []lab.NodeStatus{n}}))
	}
	names := make([]string, len(r.Nodes))
	for i, n := range r.Nodes {
		names[i] = n.Name
	}
	return usageError{fmt.Errorf("lab %s has no node %s; it has %s", r.Lab, name, strings.Join(names, ", "))}
}

func (a *app) completeNodes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	saved, ok := a.saved(cmd.Context())
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return saved.Topology.Nodes.Names(), cobra.ShellCompDirectiveNoFileComp
}

// completePlaces offers nodes and pods.
func (a *app) completePlaces(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	saved, ok := a.saved(cmd.Context())
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return append(saved.Topology.Nodes.Names(), saved.PodNames()...), cobra.ShellCompDirectiveNoFileComp
}

// saved is the lab that a completion is about.
func (a *app) saved(ctx context.Context) (lab.Saved, bool) {
	l, err := a.current(ctx, silent())
	if err != nil {
		return lab.Saved{}, false
	}
	saved, err := l.Store.Load(l.Name)
	return saved, err == nil
}
