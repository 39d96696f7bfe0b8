package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/topologies/topo"
)

// addVirtualizer adds the flags that say how Vagrant's VMs are made.
func (a *app) addVirtualizer(cmd *cobra.Command) {
	names := strings.Join(topo.VagrantProviders(), " or ")
	cmd.Flags().StringVar(&a.virtualizer, "vagrant-provider", "", "what runs the VMs of a new lab: "+names+" (default: what the topology says)")
	cmd.Flags().BoolVar(&a.hostOnly, "host-only", false, "with VirtualBox, for a new lab: networks in which this machine has an address too, as in the study")
	_ = cmd.RegisterFlagCompletionFunc("vagrant-provider", cobra.FixedCompletions(topo.VagrantProviders(), cobra.ShellCompDirectiveNoFileComp)) // it fails only for a flag that is not there
}

// chooseVirtualizer writes into the topology what runs its VMs: what the flag
// says, or else what runs them already.
func (a *app) chooseVirtualizer(t *topo.Topology) error {
	v := t.Providers.Vagrant
	switch {
	case a.virtualizer == "":
		saved, err := lab.Store{Dir: a.dataDir}.Load(t.Metadata.Name)
		if err == nil && v != nil && saved.Topology.Providers.Vagrant != nil {
			v.Provider = saved.Topology.Providers.Vagrant.Provider
		}
		return nil
	case !slices.Contains(topo.VagrantProviders(), a.virtualizer):
		return usageError{fmt.Errorf("--vagrant-provider %s: there is no such one; there are %s", a.virtualizer, strings.Join(topo.VagrantProviders(), " and "))}
	case v == nil:
		return usageError{fmt.Errorf("--vagrant-provider %s: the topology names no box (write providers.vagrant.box into its file)", a.virtualizer)}
	}
	v.Provider = a.virtualizer
	return nil
}
