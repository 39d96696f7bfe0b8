package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
)

func newDown(a *app) *cobra.Command {
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "down [NODE...]",
		Short: "Remove everything that labctl made, and prove that nothing is left",
		Long:  "Removes the lab, or the named nodes alone; labctl up makes them again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			story := a.story()
			defer story.Close()
			l, err := a.current(cmd.Context(), story)
			if errors.Is(err, errNoneUp) {
				story.Note("no lab is up: nothing to remove")
				return nil
			}
			if err != nil {
				return err
			}
			if len(args) > 0 {
				if err := knownNodes(l, args); err != nil {
					return err
				}
			}
			report, err := l.Down(cmd.Context(), args...)
			story.Close()
			if err != nil {
				return resumable(err)
			}
			return ui.Write(a.Out, output.Format, report, func(w io.Writer) error { return writeDown(w, report, args) })
		},
		ValidArgsFunction: a.completeNodes,
	}
	addOutput(cmd, output)
	return cmd
}

func writeDown(w io.Writer, r lab.DownReport, nodes []string) error {
	what, it := "Lab "+r.Lab+" is", "it"
	if len(nodes) > 0 {
		what = strings.Join(nodes, ", ") + " of lab " + r.Lab + " " + isAre(len(nodes))
	}
	if len(nodes) > 1 {
		it = "them"
	}
	_, err := fmt.Fprintf(w, "%s down (%s): nothing of %s is left.\n", what, ui.Duration(r.Took), it)
	return err
}
