package cli

import (
	"path"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/provision"
)

func newDbg(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dbg NODE COMMAND...",
		Short: "A node's datapath as cilium-dbg would show it: services, maps, connections, events",
		Long: `Reads the node's eBPF maps and prints them in the columns of cilium-dbg:

  status [--brief|--verbose]    how the agent and its datapath stand
  service list                  services and their backends
  endpoint list, ip list        pods of the node, addresses of the cluster
  bpf lb list [--revnat|--backends|--frontends]
  bpf ct list global            connections
  bpf nat list                  masqueraded connections
  bpf ipcache list              who is where
  bpf metrics list              packets forwarded and dropped, with reasons
  map list, map get NAME        the maps in Cilium's shape
  node list, metrics list       nodes of the cluster; the agent's metrics
  monitor [--type drop|trace]   what happens, live

All of them take -o json. The agent's own executable does the reading, on the
node, from the kernel's maps: it works while the agent does not run.`,
		Example: "  labctl dbg k8s-ctr service list\n  labctl dbg k8s-ctr bpf lb list\n  labctl dbg k8s-w0 monitor --type drop",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd.Context(), args[0], place{node: func(n provision.Node) provision.Command {
				return agentCommand(n, "dbg", args[1:]...)
			}})
		},
		ValidArgsFunction: a.completeNodes,
	}
	cmd.Flags().SetInterspersed(false) // what comes after the node is the agent's
	return cmd
}

// agentCommand runs a subcommand of the agent's executable on its node.
func agentCommand(n provision.Node, name string, args ...string) provision.Command {
	argv := []string{path.Join(n.Dir(), "agent"), name, "--run", n.RunDir(), "--data", n.Dir(), "--bpf", n.BPFDir()}
	return provision.Command{Argv: append(argv, args...)}
}
