package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/provision"
)

func newUp(a *app) *cobra.Command {
	var stage string
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "up [TOPOLOGY]",
		Short: "Make a lab real, or bring a running one in line with its file",
		Long: `Makes the topology real: a file, or the name of a shipped one (labctl topology list).
Without one it is the topology of the lab that is up, and native-routing where none is.

It is safe to repeat and to interrupt: what is as it should be is left alone.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := a.wanted(cmd.Context(), args)
			if err != nil {
				return err
			}
			wanted.Stage = stage
			return a.up(cmd.Context(), wanted, output.Format)
		},
		ValidArgsFunction: completeTopologies,
	}
	cmd.Flags().StringVar(&stage, "stage", "", "the stage to enter; by default the one that the lab is in, or the topology's first")
	a.addVirtualizer(cmd)
	addOutput(cmd, output)
	return cmd
}

func (a *app) up(ctx context.Context, wanted lab.Wanted, format ui.Format) error {
	if name := wanted.Topology.Metadata.Name; a.lab != "" && a.lab != name {
		return usageError{fmt.Errorf("--lab %s: %s says that its lab is %s", a.lab, wanted.Source, name)}
	}
	story := a.story()
	defer story.Close()
	l, err := a.open(ctx, wanted.Topology.Metadata.Name, story)
	if err != nil {
		return err
	}
	report, err := l.Up(ctx, wanted)
	story.Close()
	if err != nil {
		return resumable(err)
	}
	return ui.Write(a.Out, format, report, func(w io.Writer) error { return a.writeUp(w, report) })
}

func (a *app) writeUp(w io.Writer, r lab.UpReport) error {
	if err := writeChanges(w, r.Changes); err != nil {
		return err
	}
	changed := len(r.Changes) > 0
	for _, c := range r.Workloads {
		if c.Verb != workload.Unchanged {
			changed = true
			fmt.Fprintln(w, "  "+c.String())
		}
	}
	for _, x := range r.Refused {
		fmt.Fprintf(w, "refused on %s: %s: %s\n", x.Node, x.Object, x.Reason)
	}
	for _, remark := range r.Remarks {
		fmt.Fprintln(w, "note:", remark)
	}
	state := "is up"
	if !changed {
		state = "is unchanged"
	}
	fmt.Fprintf(w, "\nLab %s %s (%s).\n", r.Lab, state, ui.Duration(r.Took))
	return a.writeNext(w)
}

func writeChanges(w io.Writer, changes []provision.Change) error {
	g := ui.NewGrid()
	g.Indent = "  "
	for _, c := range changes {
		g.Row(c.Node, string(c.Verb), c.Object, c.Detail)
	}
	return g.Write(w)
}

// writeNext names the few commands worth trying next.
func (a *app) writeNext(w io.Writer) error {
	next := ui.NewGrid()
	next.Indent = "  "
	next.Row("labctl verify", "prove what works, and see which failures are the lesson")
	next.Row("labctl lesson", "lessons that walk through a lab, step by step")
	next.Row("labctl status", "nodes, addresses, agents and what they refuse")
	next.Row("labctl get pods -o wide", "what runs where")
	next.Row("labctl ssh NODE", "a shell on a node, or in a pod")
	next.Row("labctl down", "remove everything")
	fmt.Fprintln(w, "Try next:")
	return next.Write(w)
}
