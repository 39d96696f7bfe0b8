package cli

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/provision"
)

func newDoctor(a *app) *cobra.Command {
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "doctor [TOPOLOGY]",
		Short: "What this machine lacks for a lab, and the exact line that mends it",
		Long:  "Looks and changes nothing. It exits with 0 only where the lab would work.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := a.wanted(cmd.Context(), args)
			if err != nil {
				return err
			}
			l, err := a.open(cmd.Context(), wanted.Topology.Metadata.Name, a.story())
			if err != nil {
				return err
			}
			findings := l.Doctor(cmd.Context(), wanted.Topology)
			if err := ui.Write(a.Out, output.Format, findings, func(w io.Writer) error { return a.writeFindings(w, findings) }); err != nil {
				return err
			}
			if slices.ContainsFunc(findings, func(f provision.Finding) bool { return f.Severity == provision.Missing }) {
				return fmt.Errorf("%s would not work here: see what is missing above", l.Provider.Name())
			}
			return nil
		},
		ValidArgsFunction: completeTopologies,
	}
	a.addVirtualizer(cmd)
	addOutput(cmd, output)
	return cmd
}

func (a *app) writeFindings(w io.Writer, findings []provision.Finding) error {
	s := ui.NewStyle(w, a.Getenv)
	words := map[provision.Severity]string{
		provision.Fine: s.Good("ok"), provision.Warning: s.Warn("warning"), provision.Missing: s.Bad("MISSING"),
	}
	g := ui.NewGrid()
	for _, f := range findings {
		g.Row(words[f.Severity], f.Subject, f.Detail)
		if f.Cure != "" {
			g.Row("", "", "mend it: "+f.Cure)
		}
	}
	return g.Write(w)
}
