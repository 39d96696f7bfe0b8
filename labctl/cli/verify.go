package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/check"
	"github.com/native-routing/labctl/labctl/ui"
)

func newVerify(a *app) *cobra.Command {
	var nodes, groups []string
	output := ui.NewFormat(ui.Table, ui.JSON, ui.YAML, ui.JUnit)
	verify := func(of []check.Group) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			selection, err := selection(nodes, groups, of)
			if err != nil {
				return err
			}
			return a.verify(cmd.Context(), selection, output.Format)
		}
	}
	all := allGroups()
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove from the kernel's tables and real packets what works, and say why the rest does not",
		Args:  cobra.NoArgs,
		RunE:  verify(all),
	}
	part := func(name, short string, of []check.Group) {
		cmd.AddCommand(&cobra.Command{Use: name, Short: short, Args: cobra.NoArgs, RunE: verify(of)})
	}
	part("all", "Routes and services, as without a name", all)
	part("routes", "Interfaces, forwarding, routes, FIB decisions, ping and tracepath", check.RouteGroups())
	part("services", "Pods, maps, every backend and every service from every node and pod", check.ServiceGroups())
	f := cmd.PersistentFlags()
	f.StringSliceVar(&nodes, "node", nil, "only what is checked on these nodes")
	f.StringSliceVar(&groups, "check", nil, "only these checks: "+strings.Join(groupNames(all), ", "))
	cmd.PersistentFlags().VarP(output, "output", "o", output.Usage())
	_ = cmd.RegisterFlagCompletionFunc("node", a.completeNodes) // these fail only for a flag that is not there
	_ = cmd.RegisterFlagCompletionFunc("check", cobra.FixedCompletions(groupNames(all), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func groupNames(groups []check.Group) []string {
	var names []string
	for _, g := range groups {
		names = append(names, string(g))
	}
	return names
}

// selection is what is asked for, of the groups that the command is about.
func selection(nodes, groups []string, of []check.Group) (check.Selection, error) {
	s := check.Selection{Nodes: nodes, Groups: of}
	if len(groups) > 0 {
		s.Groups = nil
	}
	for _, g := range groups {
		if !slices.Contains(of, check.Group(g)) {
			return s, usageError{fmt.Errorf("--check %s: there are %s", g, strings.Join(groupNames(of), ", "))}
		}
		s.Groups = append(s.Groups, check.Group(g))
	}
	return s, nil
}

func (a *app) verify(ctx context.Context, s check.Selection, format ui.Format) error {
	l, err := a.current(ctx, a.story())
	if err != nil {
		return err
	}
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return err
	}
	if err := knownNodes(l, s.Nodes); err != nil {
		return err
	}
	report, err := l.Verify(ctx, s)
	if err != nil {
		return err
	}
	if w := a.edited(saved); w != "" {
		report.Warnings = append(report.Warnings, w)
	}
	style := ui.NewStyle(a.Out, a.Getenv)
	if err := ui.Write(a.Out, format, report, func(w io.Writer) error { return a.writeReport(w, style, report) }); err != nil {
		return err
	}
	return verdict(report)
}

// verdict is nil where all is as the stage expects it.
func verdict(report check.Report) error {
	switch {
	case report.Undecided():
		return fmt.Errorf("%d checks could not be told", report.Summary[check.Unknown])
	case !report.Passed():
		return errFailed
	}
	return nil
}

func allGroups() []check.Group { return append(check.RouteGroups(), check.ServiceGroups()...) }

// outcomeWord is the first column of a result, readable without colour.
func (a *app) outcomeWord(s ui.Style, o check.Outcome) string {
	switch o {
	case check.OK:
		return s.Good(a.say.Sprintf("ok"))
	case check.ExpectedFailure:
		return s.Warn(a.say.Sprintf("expected failure"))
	case check.UnexpectedSuccess:
		return s.Bad(a.say.Sprintf("UNEXPECTED SUCCESS"))
	case check.Unknown:
		return s.Bad(a.say.Sprintf("UNKNOWN"))
	}
	return s.Bad(a.say.Sprintf("FAILED"))
}

func (a *app) writeReport(w io.Writer, s ui.Style, r check.Report) error {
	for i, result := range r.Results {
		if i == 0 || r.Results[i-1].Group != result.Group {
			fmt.Fprintf(w, "%s%s\n", strings.Repeat("\n", min(i, 1)), s.Bold(string(result.Group)))
		}
		a.writeResult(w, s, result)
	}
	return a.writeCauses(w, s, r)
}

// writeVerdict is a report without what is as the stage expects it.
func (a *app) writeVerdict(w io.Writer, s ui.Style, r check.Report) error {
	for _, result := range r.Results {
		if result.Outcome != check.OK && result.Outcome != check.ExpectedFailure {
			a.writeResult(w, s, result)
		}
	}
	return a.writeCauses(w, s, r)
}

func (a *app) writeCauses(w io.Writer, s ui.Style, r check.Report) error {
	say := a.say.Sprintf
	if len(r.Causes) > 0 {
		fmt.Fprintf(w, "\n%s\n", s.Bold(say("causes")))
	}
	for _, c := range r.Causes {
		explains := say("explains 1 failure")
		if c.Results != 1 {
			explains = say("explains %d failures", c.Results)
		}
		fmt.Fprintf(w, "  %s (%s)\n", c, explains)
		if c.Cure != "" {
			fmt.Fprintf(w, "    %s\n", say("mend it: %s", c.Cure))
		}
	}
	for _, text := range r.Warnings {
		fmt.Fprintln(w, s.Warn(say("warning:"))+" "+text)
	}
	checks := say("1 check in %s: %s", ui.Duration(r.Took), a.summaryText(s, r))
	if n := len(r.Results); n != 1 {
		checks = say("%d checks in %s: %s", n, ui.Duration(r.Took), a.summaryText(s, r))
	}
	_, err := fmt.Fprintf(w, "\n%s\n", checks)
	return err
}

func (a *app) writeResult(w io.Writer, s ui.Style, r check.Result) {
	fmt.Fprintf(w, "  %-2s  %s", a.outcomeWord(s, r.Outcome), r.Name)
	switch r.Outcome {
	case check.OK:
		fmt.Fprintf(w, "  %s\n", s.Dim(r.Seen))
		return
	case check.ExpectedFailure, check.Unknown: // why something is unknown is among the causes, once
		fmt.Fprintf(w, ": %s\n", r.Seen)
		return
	}
	say := a.say.Sprintf
	fmt.Fprintf(w, "\n        %s\n        %s\n", say("expected: %s", r.Expected), say("seen:     %s", r.Seen))
	for _, c := range r.Causes {
		fmt.Fprintf(w, "        %s\n", say("reason:   %s", c))
		if c.Cure != "" {
			fmt.Fprintf(w, "        %s\n", say("mend it:  %s", c.Cure))
		}
	}
}

func (a *app) summaryText(s ui.Style, r check.Report) string {
	var parts []string
	for _, o := range []check.Outcome{check.OK, check.ExpectedFailure, check.Failed, check.UnexpectedSuccess, check.Unknown} {
		if n := r.Summary[o]; n > 0 {
			parts = append(parts, a.say.Sprintf("%d %s", n, a.outcomeWord(s, o)))
		}
	}
	return strings.Join(parts, ", ")
}
