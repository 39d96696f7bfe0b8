//go:build linux

// Package dbg prints a node's datapath as cilium-dbg 1.18 prints Cilium's: the
// same commands, columns, paddings and trailing spaces, from the kernel's own
// maps. Rows are sorted, where Cilium's come in the order of a hash. What only
// the agent knows (status, metrics, events) is asked of its socket.
package dbg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/inspect"
)

// The exit codes.
const (
	ExitOK    = 0
	ExitError = 1
	ExitUsage = 2
)

// Config says where a node's agent keeps what is shown.
type Config struct {
	// PinDir has the pinned maps below maps/.
	PinDir string
	// RunDir has the agent's socket.
	RunDir string
	// DataDir has the state that the agent holds, for names.
	DataDir string
}

// Main carries out one command line and returns its exit code: 0 done, 1 it
// could not be done, 2 wrong usage. It ends early when ctx does.
func Main(ctx context.Context, config Config, args []string, stdout, stderr io.Writer) int {
	p := &program{config: config, stdout: stdout, stderr: stderr, open: func() (source, error) {
		return inspect.Open(config.PinDir)
	}}
	return p.run(ctx, args)
}

// source is where dumps come from: the kernel, or a test.
type source interface {
	Read(names ...string) (*inspect.Dump, error)
	ReadSizes() ([]inspect.Size, error)
}

// program is one run.
type program struct {
	config         Config
	stdout, stderr io.Writer
	open           func() (source, error)
	output         string
}

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errTold is a failure that was printed already.
var errTold = errors.New("told already")

func (p *program) run(ctx context.Context, args []string) int {
	root := p.root()
	root.SetArgs(args)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	err := root.ExecuteContext(ctx)
	var wrong usageError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &wrong):
		fmt.Fprintln(p.stderr, "Error:", err)
		return ExitUsage
	case errors.Is(err, errTold):
		return ExitError
	default:
		fmt.Fprintln(p.stderr, "Error:", err)
		return ExitError
	}
}

const about = `Shows the datapath of this node in the columns of cilium-dbg.

Everything but status, metrics list and monitor is read from the kernel's maps,
and works while the agent does not run. Rows are sorted, where Cilium's order is
by chance. Numbers that this datapath does not keep are printed as Cilium prints
them when they are off (Packets=0, LINE 0).

Exit codes: 0 done, 1 it could not be done, 2 wrong usage.`

func (p *program) root() *cobra.Command {
	root := p.group("dbg", about,
		p.status(),
		p.group("service", "Services and their backends", p.serviceList()),
		p.group("endpoint", "The pods of this node", p.endpointList()),
		p.group("ip", "The addresses of the cluster", p.ipList()),
		p.group("node", "The nodes of the cluster", p.nodeList()),
		p.group("bpf", "What the eBPF maps hold",
			p.group("lb", "Load balancing", p.lbList()),
			p.group("ct", "Connection tracking", p.ctList()),
			p.group("nat", "Translated sources", p.natList()),
			p.group("ipcache", "Prefixes and their identities", p.ipcacheList()),
			p.group("metrics", "Packets counted by the datapath", p.bpfMetricsList()),
		),
		p.group("map", "The maps, and what is in them", p.mapList(), p.mapGet()),
		p.group("metrics", "The agent's own metrics", p.metricsList()),
		p.group("bgp", "What the node says and hears by BGP", p.bgpPeers(), p.bgpRoutes()),
		p.monitor(),
	)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	root.PersistentFlags().StringVarP(&p.output, "output", "o", "", "json for JSON instead of a table")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if p.output != "" && p.output != "json" {
			return usageError{fmt.Errorf("unknown output %q (there is json)", p.output)}
		}
		return nil
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	return root
}

// group is a command that only has others.
func (p *program) group(name, text string, commands ...*cobra.Command) *cobra.Command {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name())
	}
	short, _, _ := strings.Cut(text, "\n")
	group := &cobra.Command{
		Use: name, Short: short, Long: text,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usageError{fmt.Errorf("unknown command %q for %s (there is %s)",
				args[0], cmd.CommandPath(), strings.Join(names, ", "))}
		},
		Args: cobra.ArbitraryArgs,
	}
	group.AddCommand(commands...)
	return group
}

// list is a command without arguments that prints a table.
func (p *program) list(text string, run func(ctx context.Context) error) *cobra.Command {
	short, _, _ := strings.Cut(text, "\n")
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: short, Long: text,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context()) },
	}
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, and %q is one (see %s --help)", cmd.CommandPath(), args[0], cmd.CommandPath())}
	}
	return nil
}

// read reads maps, by their names in package bpf.
func (p *program) read(names ...string) (*inspect.Dump, error) {
	from, err := p.open()
	if err != nil {
		return nil, err
	}
	return from.Read(names...)
}

// names are only for show: without them there are numbers, and the reason why.
func (p *program) names() *inspect.Names {
	names, err := inspect.ReadNames(p.config.DataDir)
	if err != nil {
		fmt.Fprintf(p.stderr, "Names are not known: %v\n", err)
		return inspect.NewNames(stateless)
	}
	return names
}

// show prints value as JSON if that is wanted, else what text writes.
func (p *program) show(value any, text func(w io.Writer)) error {
	if p.output == "json" {
		encoder := json.NewEncoder(p.stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	}
	var buffer strings.Builder
	text(&buffer)
	_, err := io.WriteString(p.stdout, buffer.String())
	return err
}

// table is aligned as all tables of cilium-dbg are.
func table(w io.Writer, rows func(w io.Writer)) {
	aligned := tabwriter.NewWriter(w, 5, 0, 3, ' ', 0)
	rows(aligned)
	_ = aligned.Flush() // w is memory
}

// pair is a row of a table with two columns.
type pair struct{ key, value string }

// pairs is a table of two columns, whose rows end in spaces as Cilium's do.
func pairs(w io.Writer, first, second string, rows []pair) {
	table(w, func(w io.Writer) {
		fmt.Fprintf(w, "%s\t%s\n", first, second)
		for _, row := range rows {
			fmt.Fprintf(w, "%s\t%s\t\n", row.key, row.value)
		}
	})
}

// empty says that there is nothing, where Cilium does.
func (p *program) empty() error {
	if p.output == "json" {
		fmt.Fprintln(p.stdout, "[]")
		return nil
	}
	fmt.Fprintln(p.stderr, "No entries found.")
	return nil
}
