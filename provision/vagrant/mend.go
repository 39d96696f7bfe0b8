package vagrant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// mend brings a machine that does not run into a state from which vagrant up
// goes on, whatever a killed or failed run has left. It says whether the
// machine is still there.
func (p *Provider) mend(ctx context.Context, l *lab, t *topo.Topology, s settings, node, state string) (made bool, err error) {
	switch {
	case standing(state) == "":
		return false, p.removeStray(ctx, l, s, node)
	case s.Provider == Libvirt && p.lacksNICs(ctx, l, node, s.NICs[node]):
		// It was cut short before it had all that it needs, and Vagrant does not add it later.
		p.options.tell(node, "half made: it is removed and made anew")
		return false, p.destroyMachines(ctx, l, s, node)
	case s.outgrown(t, node) != nil:
		return true, s.outgrown(t, node)
	case standing(state) == provision.NodeStopped:
		return true, nil
	case state == shuttingDown, state == "stopping":
		if state, err = p.settled(ctx, l, s, node); err != nil || standing(state) == provision.NodeStopped {
			return true, err
		}
	}
	p.options.tell(node, "in the state "+state+": it is switched off and on")
	return true, p.switchOff(ctx, l, s, node)
}

// settled waits until a machine is down, for a while.
func (p *Provider) settled(ctx context.Context, l *lab, s settings, node string) (string, error) {
	for end := time.Now().Add(interruptGrace); ; {
		l.unsee()
		states, err := p.states(ctx, l, s)
		state := stateOf(states, node)
		if err != nil || standing(state) != provision.NodeBroken || time.Now().After(end) {
			return state, err
		}
		select {
		case <-time.After(lockRetry):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// lacksNICs says that a domain has fewer interfaces than it was asked for with.
func (p *Provider) lacksNICs(ctx context.Context, l *lab, node string, asked int) bool {
	have, err := p.virsh.nics(ctx, objectName(l.name, node))
	return err == nil && have < asked
}

// outgrown is an error where the topology has more interfaces for a machine than
// it was made with: libvirt's get none later, and it is not ours to throw its disk away.
func (s settings) outgrown(t *topo.Topology, node string) error {
	has, wanted := s.NICs[node], nicsOf(t, node)
	if has == 0 || wanted <= has {
		return nil
	}
	return &Fault{Node: node, Class: ErrOutgrown, Said: fmt.Sprintf("%d network interfaces, of which it has %d", wanted, has),
		Cure: "labctl down " + node + ", then labctl up"}
}

// nicsOf counts those of a node's machine: eth0 and those on networks.
func nicsOf(t *topo.Topology, node string) int {
	n, _ := t.Nodes.Get(node)
	count := 1
	for _, iface := range n.Interfaces.All() {
		if iface.Type != topo.Dummy {
			count++
		}
	}
	return count
}

// removeStray removes a machine that bears the node's mark and that Vagrant
// does not know, with its disk: the name would stop vagrant up.
func (p *Provider) removeStray(ctx context.Context, l *lab, s settings, node string) error {
	_, err := p.removeMachines(ctx, s.Provider, func(name string) bool { return name == objectName(l.name, node) }, mark(l.name))
	return err
}

// removeMachines removes those whose names the filter takes, without Vagrant,
// and names them.
func (p *Provider) removeMachines(ctx context.Context, provider string, take func(name string) bool, prefix string) ([]string, error) {
	var names []string
	var err error
	if provider == Libvirt {
		names, err = p.virsh.domains(ctx, prefix)
	} else {
		names, err = p.vboxManage.machines(ctx, prefix)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !take(n) })
	if errors.Is(err, errNoVirsh) || errors.Is(err, errNoVBoxManage) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for machines that were left: %w", err)
	}
	for _, name := range names {
		if provider == Libvirt {
			err = p.virsh.removeDomain(ctx, name)
		} else {
			err = p.vboxManage.remove(ctx, name)
		}
		if err != nil {
			return nil, fmt.Errorf("remove the machine %s: %w", name, err)
		}
	}
	if provider != Libvirt {
		return names, nil
	}
	volumes, err := p.virsh.volumes(ctx, prefix)
	for _, v := range volumes {
		if domain := strings.TrimSuffix(v.name, ".img"); err == nil && take(domain) {
			err = p.virsh.removeVolume(ctx, v)
			names = append(names, domain)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("remove the disks that were left: %w", err)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
