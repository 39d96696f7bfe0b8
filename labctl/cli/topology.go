package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/graph"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

func newTopology(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "topology",
		Short: "The file of a lab, without touching anything",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTopologyList(a), newTopologyValidate(a), newTopologyShow(a), newTopologyGraph(a), newTopologySchema(a))
	return cmd
}

// shipped is one topology that labctl carries.
type shipped struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Nodes       int    `json:"nodes"`
}

func newTopologyList(a *app) *cobra.Command {
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "list",
		Short: "The topologies that labctl ships",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var all []shipped
			for _, name := range topologies.Names() {
				t, err := topologies.Load(name)
				if err != nil {
					return err
				}
				all = append(all, shipped{name, t.Metadata.Description, len(t.Nodes)})
			}
			return ui.Write(a.Out, output.Format, all, func(w io.Writer) error {
				g := ui.NewGrid("NAME", "NODES", "DESCRIPTION")
				for _, t := range all {
					g.Row(t.Name, fmt.Sprint(t.Nodes), t.Description)
				}
				return g.Write(w)
			})
		},
	}
	addOutput(cmd, output)
	return cmd
}

// validation says whether a file is a topology, and what is wrong where it is not.
type validation struct {
	Source   string      `json:"source"`
	Valid    bool        `json:"valid"`
	Lab      string      `json:"lab,omitempty"`
	Mistakes topo.Errors `json:"mistakes,omitempty"`
}

func newTopologyValidate(a *app) *cobra.Command {
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "validate [TOPOLOGY]",
		Short: "Every mistake of a file, with its place and what would be right",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := a.wanted(cmd.Context(), args)
			var mistakes topo.Errors
			if err != nil && (output.Format == ui.Table || !errors.As(err, &mistakes)) {
				return err
			}
			v := validation{Source: wanted.Source, Valid: err == nil, Mistakes: mistakes}
			if err == nil {
				v.Lab = wanted.Topology.Metadata.Name
			} else if len(args) > 0 {
				v.Source = args[0]
			}
			written := ui.Write(a.Out, output.Format, v, func(w io.Writer) error {
				t := wanted.Topology
				_, err := fmt.Fprintf(w, "%s is valid: lab %s, %s, %s, %s\n", v.Source, v.Lab,
					ui.Plural(len(t.Nodes), "node"), ui.Plural(len(t.Networks), "network"), ui.Plural(len(t.Stages), "stage"))
				return err
			})
			return errors.Join(err, written)
		},
		ValidArgsFunction: completeTopologies,
	}
	addOutput(cmd, output)
	return cmd
}

func newTopologyShow(a *app) *cobra.Command {
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "show [TOPOLOGY]",
		Short: "The lab as labctl understands it, with all defaults",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := a.wanted(cmd.Context(), args)
			if err != nil {
				return err
			}
			return ui.Write(a.Out, output.Format, w.Topology, func(out io.Writer) error {
				_, err := out.Write(graph.Text(w.Topology))
				return err
			})
		},
		ValidArgsFunction: completeTopologies,
	}
	addOutput(cmd, output)
	return cmd
}

func newTopologyGraph(a *app) *cobra.Command {
	var format string
	drawings := map[string]func(*topo.Topology) []byte{"dot": graph.DOT, "mermaid": graph.Mermaid, "svg": graph.SVG}
	cmd := &cobra.Command{
		Use:   "graph [TOPOLOGY]",
		Short: "A picture of the lab: dot, mermaid or svg",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			draw, ok := drawings[format]
			if !ok {
				return usageError{fmt.Errorf("--format %s: there are dot, mermaid and svg", format)}
			}
			w, err := a.wanted(cmd.Context(), args)
			if err != nil {
				return err
			}
			_, err = a.Out.Write(draw(w.Topology))
			return err
		},
		ValidArgsFunction: completeTopologies,
	}
	cmd.Flags().StringVarP(&format, "format", "f", "dot", "dot, mermaid or svg")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"dot", "mermaid", "svg"}, cobra.ShellCompDirectiveNoFileComp)) // it fails only for a flag that is not there
	return cmd
}

func newTopologySchema(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "The JSON schema of the file, for editors",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.Out.Write(topologies.Schema())
			return err
		},
	}
}
