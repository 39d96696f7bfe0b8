package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/provision"
)

func newExec(a *app) *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:   "exec NODE|POD -- COMMAND [ARG...]",
		Short: "Run a command on a node or in a pod",
		Long: `Runs the command there, with its own network, hostname and names. A pod is named
as kubectl does: curl-pod, kube-system/a-pod, deploy/webpod.
It exits with the command's own code: 128 plus the number of the signal that
ended it, 127 where there is no such command.`,
		Example: "  labctl exec k8s-ctr -- ip route\n  labctl exec router -- tcpdump -nni any icmp\n  labctl exec curl-pod -- curl -s webpod",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			argv := args[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			if len(argv) == 0 {
				return usageError{errors.New("exec: no command was given (labctl exec NODE -- COMMAND)")}
			}
			return a.run(cmd.Context(), inNamespace(namespace, args[0]), place{
				node: func(provision.Node) provision.Command { return provision.Command{Argv: argv} },
				pod: func(n provision.Node, key string) provision.Command {
					return inPod(n, key, append([]string{"--"}, argv...)...)
				},
			})
		},
		ValidArgsFunction: a.completePlaces,
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVarP(&namespace, "namespace", "n", "", "of the pod")
	// As with kubectl; here a terminal is handed over whenever there is one.
	f.BoolP("stdin", "i", false, "taken for granted")
	f.BoolP("tty", "t", false, "taken for granted where there is a terminal")
	return cmd
}

// inNamespace is how exec and ssh name a pod outside the namespace default.
func inNamespace(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

func newSSH(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh NODE|POD",
		Short: "A shell on a node or in a pod",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd.Context(), args[0], place{
				node: provision.Node.Shell,
				pod:  func(n provision.Node, key string) provision.Command { return inPod(n, key) },
			})
		},
		ValidArgsFunction: a.completePlaces,
	}
}

// place says what to run on a node, and what to run for a pod on its node; pod
// is nil where only a node makes sense.
type place struct {
	node func(provision.Node) provision.Command
	pod  func(n provision.Node, key string) provision.Command
}

// inPod lets the agent's executable enter a pod of its node.
func inPod(n provision.Node, key string, args ...string) provision.Command {
	argv := []string{path.Join(n.Dir(), "agent"), "exec", "--data", n.Dir(), key}
	return provision.Command{Argv: append(argv, args...)}
}

// run hands the terminal over to a command on a node or in a pod.
func (a *app) run(ctx context.Context, name string, in place) error {
	l, err := a.current(ctx, a.story())
	if err != nil {
		return err
	}
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return err
	}
	command := in.node
	if _, ok := saved.Topology.Nodes.Get(name); !ok {
		node, key, ok := saved.PodNode(name)
		if !ok || in.pod == nil {
			return usageError{noPlace(l.Name, name, saved, in.pod != nil)}
		}
		name, command = node, func(n provision.Node) provision.Command { return in.pod(n, key) }
	}
	node, err := l.Provider.OpenNode(ctx, l.Name, name)
	if err != nil {
		return err
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

func noPlace(labName, name string, saved lab.Saved, pods bool) error {
	nodes := strings.Join(saved.Topology.Nodes.Names(), ", ")
	if names := saved.PodNames(); pods && len(names) > 0 {
		return fmt.Errorf("lab %s has no node or pod %s; its nodes are %s, its pods %s", labName, name, nodes, strings.Join(names, ", "))
	}
	return fmt.Errorf("lab %s has no node %s; it has %s", labName, name, nodes)
}

// terminal says whether a stream is the user's terminal.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
