package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
)

func newHalt(a *app) *cobra.Command {
	return a.powerCommand(&cobra.Command{
		Use:   "halt [NODE...]",
		Short: "Shut VMs down; what is on their disks stays",
		Long:  "Shuts the named nodes down, or all of the lab. labctl start brings them back as they were.",
	}, "halted", (*lab.Lab).Halt)
}

func newStart(a *app) *cobra.Command {
	return a.powerCommand(&cobra.Command{
		Use:   "start [NODE...]",
		Short: "Boot VMs that were halted, and make those that are gone",
		Long:  "Boots the named nodes, or all of the lab, and waits until their agents hold what the lab says.",
	}, "running", (*lab.Lab).Start)
}

// powerCommand is a command that switches nodes.
func (a *app) powerCommand(cmd *cobra.Command, done string, do func(*lab.Lab, context.Context, ...string) (lab.PowerReport, error)) *cobra.Command {
	output := ui.NewFormat()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		story := a.story()
		defer story.Close()
		l, err := a.current(cmd.Context(), story)
		if err != nil {
			return err
		}
		if err := knownNodes(l, args); err != nil {
			return err
		}
		report, err := do(l, cmd.Context(), args...)
		story.Close()
		if err != nil {
			return resumable(err)
		}
		return ui.Write(a.Out, output.Format, report, func(w io.Writer) error {
			if err := writeChanges(w, report.Changes); err != nil {
				return err
			}
			what := "Lab " + report.Lab + " is"
			if len(args) > 0 {
				what = ui.Plural(len(args), "node") + " of lab " + report.Lab + " " + isAre(len(args))
			}
			_, err := fmt.Fprintf(w, "%s %s (%s).\n", what, done, ui.Duration(report.Took))
			return err
		})
	}
	cmd.ValidArgsFunction = a.completeNodes
	addOutput(cmd, output)
	return cmd
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
