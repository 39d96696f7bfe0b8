package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/check"
	"github.com/native-routing/labctl/labctl/difference"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
)

// stageFlags are the flags of labctl stage.
type stageFlags struct {
	undo, noVerify bool
	topology       string
}

func newStage(a *app) *cobra.Command {
	var flags stageFlags
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "stage [NAME]",
		Short: "The stages of a lab: list them, enter one, go back",
		Long: `Without a name it lists the stages of the lab, what each teaches, and where the
lab is now; of a lab that is not up with --topology.

With a name it enters the stage: it changes what the stage changes and nothing
else, shows what became different in each node's own tables, and verifies. It
takes what a hand changed back too. Cut short, labctl up finishes it.

It exits with 3 where a check failed, as labctl verify does.`,
		Example: `  labctl stage
  labctl stage static-routes
  labctl stage --undo`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case flags.topology != "" && (flags.undo || len(args) > 0):
				return usageError{errors.New("--topology lists the stages of a lab that is not up; labctl up TOPOLOGY --stage NAME enters one")}
			case flags.undo && len(args) > 0:
				return usageError{fmt.Errorf("--undo goes back to the stage before; without it labctl stage %s enters that one", args[0])}
			case flags.undo:
				return a.enter(cmd.Context(), flags, output.Format, (*lab.Lab).Undo)
			case len(args) > 0:
				return a.enter(cmd.Context(), flags, output.Format, func(l *lab.Lab, ctx context.Context) (lab.StageReport, error) {
					return l.Enter(ctx, args[0])
				})
			}
			return a.stages(cmd.Context(), flags.topology, output.Format)
		},
		ValidArgsFunction: a.completeStages,
	}
	cmd.Flags().BoolVar(&flags.undo, "undo", false, "go back to the stage that the lab was in before")
	cmd.Flags().BoolVar(&flags.noVerify, "no-verify", false, "do not verify after entering")
	cmd.Flags().StringVar(&flags.topology, "topology", "", "list the stages of this topology: a file, or the name of a shipped one")
	_ = cmd.RegisterFlagCompletionFunc("topology", completeTopologies) // it fails only for a flag that is not there
	addOutput(cmd, output)
	return cmd
}

// stages lists the stages of the lab that is up, or of a topology.
func (a *app) stages(ctx context.Context, topology string, format ui.Format) error {
	list, err := a.stageList(ctx, topology)
	if err != nil {
		return err
	}
	return ui.Write(a.Out, format, list, func(w io.Writer) error { return a.writeStages(w, list) })
}

func (a *app) stageList(ctx context.Context, topology string) (lab.StageList, error) {
	if topology == "" {
		l, err := a.current(ctx, a.story())
		switch {
		case err == nil:
			saved, err := l.Store.Load(l.Name)
			return saved.Stages(), err
		case !errors.Is(err, errNoneUp) && !errors.Is(err, errNotRoots):
			return lab.StageList{}, err
		}
	}
	var args []string
	if topology != "" {
		args = []string{topology}
	}
	wanted, err := a.wanted(ctx, args)
	if err != nil {
		return lab.StageList{}, err
	}
	return lab.Stages(wanted.Topology, wanted.Source), nil
}

func (a *app) writeStages(w io.Writer, list lab.StageList) error {
	say := a.say.Sprintf
	if len(list.Stages) == 0 {
		_, err := fmt.Fprintln(w, say("Lab %s has no stages.", list.Lab))
		return err
	}
	if list.Stage == "" {
		fmt.Fprintln(w, say("Lab %s (%s) is not up. Its stages:", list.Lab, list.Source))
	} else {
		fmt.Fprintln(w, say("Lab %s is in stage %s. Its stages:", list.Lab, list.Stage))
	}
	style := ui.NewStyle(a.Out, a.Getenv)
	for _, s := range list.Stages {
		mark := " "
		if s.Current {
			mark = "*"
		}
		fmt.Fprintf(w, "\n%s %s\n", mark, style.Bold(s.Name))
		for _, text := range []string{s.Description, s.Teaches} {
			for _, line := range ui.Wrap(a.say.Text(text), textWidth) {
				fmt.Fprintln(w, "    "+line)
			}
		}
	}
	next := say("labctl stage NAME enters one.")
	switch {
	case list.Stage == "":
		next = say("labctl up %s brings the lab up in the first one.", list.Source)
	case len(list.History) > 0:
		next = say("labctl stage NAME enters one, and labctl stage --undo goes back to %s.", list.History[len(list.History)-1])
	}
	_, err := fmt.Fprintln(w, "\n"+next)
	return err
}

// textWidth is how long lines of prose are, in columns.
const textWidth = 74

// enter moves the lab to another stage, and says what that did.
func (a *app) enter(ctx context.Context, flags stageFlags, format ui.Format, move func(*lab.Lab, context.Context) (lab.StageReport, error)) error {
	story := a.story()
	defer story.Close()
	l, err := a.current(ctx, story)
	if err != nil {
		return err
	}
	report, err := move(l, ctx)
	story.Close()
	if err != nil {
		return resumable(err)
	}
	if !flags.noVerify {
		verification, err := l.Verify(ctx, check.Selection{Groups: allGroups()})
		if err != nil {
			return err
		}
		report.Verification = &verification
	}
	if err := ui.Write(a.Out, format, report, func(w io.Writer) error { return a.writeEntered(w, report) }); err != nil {
		return err
	}
	if report.Verification == nil {
		return nil
	}
	return verdict(*report.Verification)
}

func (a *app) writeEntered(w io.Writer, r lab.StageReport) error {
	say, style := a.say.Sprintf, ui.NewStyle(a.Out, a.Getenv)
	for _, d := range r.Differences {
		colour := style.Good
		if d.Sign == difference.Removed {
			colour = style.Bad
		}
		table := ""
		if d.Table != difference.Routes {
			table = string(d.Table) + " "
		}
		fmt.Fprintln(w, "  "+d.Node+": "+colour(string(d.Sign)+" "+table+d.Text))
	}
	if len(r.Differences) == 0 {
		fmt.Fprintln(w, "  "+say("No table of any node is different."))
	}
	entered := say("Lab %s is in stage %s now, and was in %s (%s).", r.Lab, r.Stage, r.From, ui.Duration(r.Took))
	if r.From == r.Stage {
		entered = say("Lab %s is in stage %s, as before (%s).", r.Lab, r.Stage, ui.Duration(r.Took))
	}
	fmt.Fprintln(w, "\n"+entered)
	for _, text := range []string{r.Description, r.Teaches} {
		for _, line := range ui.Wrap(a.say.Text(text), textWidth) {
			fmt.Fprintln(w, "  "+line)
		}
	}
	if r.Verification == nil {
		return nil
	}
	return a.writeVerdict(w, style, *r.Verification)
}

// completeStages offers the stages of the lab that is up.
func (a *app) completeStages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	saved, ok := a.saved(cmd.Context())
	if !ok || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return saved.Topology.Stages.Names(), cobra.ShellCompDirectiveNoFileComp
}
