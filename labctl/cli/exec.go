package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/native-routing/labctl/provision"
)

func newExec(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec NODE -- COMMAND [ARG...]",
		Short: "Run a command on a node",
		Long: `Runs the command on the node, with the node's own network, hostname and names.
It exits with the command's own code: 128 plus the number of the signal that
ended it, 127 where there is no such command.`,
		Example: "  labctl exec k8s-ctr -- ip route\n  labctl exec router -- tcpdump -nni any icmp",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			argv := args[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			if len(argv) == 0 {
				return usageError{errors.New("exec: no command was given (labctl exec NODE -- COMMAND)")}
			}
			return a.run(cmd.Context(), args[0], func(provision.Node) provision.Command {
				return provision.Command{Argv: argv}
			})
		},
		ValidArgsFunction: a.completeNodes,
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func newSSH(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh NODE",
		Short: "A shell on a node",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd.Context(), args[0], provision.Node.Shell)
		},
		ValidArgsFunction: a.completeNodes,
	}
}

// run hands the terminal over to a command on a node.
func (a *app) run(ctx context.Context, name string, command func(provision.Node) provision.Command) error {
	l, err := a.current(a.story())
	if err != nil {
		return err
	}
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return err
	}
	if _, ok := saved.Topology.Nodes.Get(name); !ok {
		return usageError{fmt.Errorf("lab %s has no node %s; it has %s", l.Name, name, strings.Join(saved.Topology.Nodes.Names(), ", "))}
	}
	node, err := l.Provider.OpenNode(ctx, l.Name, name)
	if err != nil {
		return fmt.Errorf("%w (labctl up makes it)", err)
	}
	defer node.Close()
	c := command(node)
	c.Stdin, c.Stdout, c.Stderr = a.In, a.Out, a.Err
	c.Interactive = terminal(a.In)
	if c.Interactive {
		a.HandOver()
	}
	if err := node.Run(ctx, c); !errors.Is(err, context.Canceled) {
		return err
	}
	return &provision.ExitError{Argv: c.Argv, Code: 128 + int(syscall.SIGINT), Signal: "interrupt"}
}

// terminal says whether a stream is the user's terminal.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
