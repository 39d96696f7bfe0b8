package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
)

func newReset(a *app) *cobra.Command {
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "reset [NODE...]",
		Short: "Undo what was changed by hand: back to the stage",
		Long: `Brings the lab, or the named nodes alone, back to what its stage says, and says
what it undid: routes, addresses, links and sysctls that a hand changed or took
away, and what a hand added: routes, addresses, links, rules, neighbours, queues
and firewall tables. What it cannot undo it names, with the command that does.

It exits with 3 where something is left.`,
		Example: `  labctl reset
  labctl reset router`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.reset(cmd.Context(), args, output.Format)
		},
		ValidArgsFunction: a.completeNodes,
	}
	addOutput(cmd, output)
	return cmd
}

func (a *app) reset(ctx context.Context, nodes []string, format ui.Format) error {
	story := a.story()
	defer story.Close()
	l, err := a.current(ctx, story)
	if err != nil {
		return err
	}
	if err := knownNodes(l, nodes); err != nil {
		return err
	}
	report, err := l.Reset(ctx, nodes...)
	story.Close()
	if err != nil {
		return resumable(err)
	}
	if err := ui.Write(a.Out, format, report, func(w io.Writer) error { return a.writeReset(w, report) }); err != nil {
		return err
	}
	if len(report.Left) > 0 {
		return errFailed
	}
	return nil
}

func (a *app) writeReset(w io.Writer, r lab.ResetReport) error {
	say := a.say.Sprintf
	if err := writeChanges(w, r.Undone); err != nil {
		return err
	}
	for _, d := range r.Left {
		fmt.Fprintln(w, a.drift(d))
	}
	said := say("Lab %s is as its stage %s has it (%s).", r.Lab, r.Stage, ui.Duration(r.Took))
	switch {
	case len(r.Left) > 0:
		said = say("Lab %s still differs from its stage %s (%s).", r.Lab, r.Stage, ui.Duration(r.Took))
	case len(r.Undone) == 0:
		said = say("There was nothing to undo: lab %s is as its stage %s has it (%s).", r.Lab, r.Stage, ui.Duration(r.Took))
	}
	if len(r.Undone)+len(r.Left) > 0 {
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprintln(w, said)
	return err
}

// drift says what is not as the stage has it, and how it is mended by hand.
func (a *app) drift(d lab.Drift) string {
	if d.Cure == "" {
		return a.say.Sprintf("%s: %s is drifted: %s", d.Node, d.Object, d.Reason)
	}
	return a.say.Sprintf("%s: %s is drifted: %s (labctl exec %s -- %s)", d.Node, d.Object, d.Reason, d.Node, d.Cure)
}
