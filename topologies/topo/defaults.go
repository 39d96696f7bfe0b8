package topo

// DefaultMTU in bytes, of Ethernet and of dummy interfaces.
const DefaultMTU = 1500

// DefaultVagrantProvider is what makes VMs where the file is silent.
const DefaultVagrantProvider = "virtualbox"

// DefaultSSHPort is that of an inventory's machine where the file is silent.
const DefaultSSHPort = 22

// applyDefaults fills in what the file leaves out.
func (t *Topology) applyDefaults() {
	mtus := make(map[string]int, len(t.Networks))
	for i := range t.Networks {
		n := &t.Networks[i]
		setDefault(&n.Value.MTU, DefaultMTU)
		mtus[n.Name] = n.Value.MTU
	}
	for _, node := range t.Nodes {
		for i := range node.Value.Interfaces {
			iface := &node.Value.Interfaces[i].Value
			setDefault(&iface.Type, Ethernet)
			setDefault(&iface.MTU, mtus[iface.Network])
			setDefault(&iface.MTU, DefaultMTU)
		}
	}
	if t.Cluster != (Cluster{}) {
		setDefault(&t.Cluster.RoutingMode, RoutingNative)
		setDefault(&t.Cluster.LoadBalancer.Algorithm, Random)
	}
	if v := t.Providers.Vagrant; v != nil {
		setDefault(&v.Provider, DefaultVagrantProvider)
	}
	if inventory := t.Providers.SSH; inventory != nil {
		for i := range inventory.Nodes {
			m := &inventory.Nodes[i].Value
			setDefault(&m.Port, DefaultSSHPort)
			setDefault(&m.User, inventory.User)
			setDefault(&m.Key, inventory.Key)
		}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
