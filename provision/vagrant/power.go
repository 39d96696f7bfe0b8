package vagrant

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// haltsAtOnce bounds how many machines are shut down side by side: each has a
// vagrant of its own, which costs a processor for a second.
const haltsAtOnce = 8

// Halt shuts machines down. Vagrant does it one after another and waits for
// each; here each gets a vagrant of its own.
func (p *Provider) Halt(ctx context.Context, name string, nodes ...string) ([]provision.Change, error) {
	l := p.lab(name)
	s, err := l.at.load()
	if errors.Is(err, errNoSettings) {
		return nil, fmt.Errorf("lab %s: %w (labctl up makes it)", name, provision.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if err := l.working.lock(ctx); err != nil {
		return nil, err
	}
	defer l.working.unlock()
	states, err := p.states(ctx, l, s)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		for _, m := range states {
			nodes = append(nodes, m.node)
		}
	}
	changes := make([]provision.Change, len(nodes))
	errs := make([]error, len(nodes))
	var all errgroup.Group
	all.SetLimit(haltsAtOnce)
	for i, node := range nodes {
		switch standing(stateOf(states, node)) {
		case "", provision.NodeStopped:
			continue
		}
		all.Go(func() error {
			if errs[i] = p.shutDown(ctx, l, s, node); errs[i] == nil {
				changes[i] = provision.Change{Verb: provision.Stopped, Node: node, Object: "VM"}
			}
			return nil
		})
	}
	_ = all.Wait() // the errors are in errs
	return done(changes), errors.Join(append(errs, l.forget(nodes...))...)
}

// done are the changes that were made.
func done(changes []provision.Change) []provision.Change {
	var made []provision.Change
	for _, c := range changes {
		if c.Verb != "" {
			made = append(made, c)
		}
	}
	return made
}

// shutDown switches a machine off whose system does not react to being shut down,
// as it may after a crash. Vagrant does so itself, but with libvirt it gives up: in
// the same words as where a machine does not boot.
func (p *Provider) shutDown(ctx context.Context, l *lab, s settings, node string) error {
	p.options.tell(node, "shutting down")
	err := p.vagrantHalt(ctx, l, s, node)
	if s.Provider == Libvirt && errors.Is(err, ErrBootTimeout) {
		p.options.tell(node, "does not shut down: it is switched off")
		err = p.switchOff(ctx, l, s, node)
	}
	return err
}

// switchOff does not ask the machine's system. With libvirt vagrant halt --force
// does, and gives up as it does without (action_halt of vagrant-libvirt 0.11).
func (p *Provider) switchOff(ctx context.Context, l *lab, s settings, node string) error {
	if s.Provider != Libvirt {
		return p.vagrantHalt(ctx, l, s, node, "--force")
	}
	if err := p.virsh.switchOff(ctx, objectName(l.name, node)); err != nil {
		return fmt.Errorf("%s: switch its VM off: %w", node, err)
	}
	return nil
}

func (p *Provider) vagrantHalt(ctx context.Context, l *lab, s settings, node string, flags ...string) error {
	return p.whileLocked(ctx, l, func() error {
		return p.only(l, node, p.runner(l, s.Provider).run(ctx, p.teller(), append(append([]string{"halt"}, flags...), node)...))
	})
}

// teller tells what vagrant does.
func (p *Provider) teller() func(event) {
	return func(e event) {
		if what := progress(e); what != "" {
			p.options.tell(e.Target, what)
		}
	}
}

// Start boots machines, all of them with one vagrant.
func (p *Provider) Start(ctx context.Context, t *topo.Topology, nodes ...string) ([]provision.Change, error) {
	if len(nodes) == 0 {
		nodes = t.Nodes.Names()
	}
	changes := make([]provision.Change, len(nodes))
	errs := make([]error, len(nodes))
	var all errgroup.Group
	for i, node := range nodes {
		if _, ok := t.Nodes.Get(node); !ok {
			return nil, fmt.Errorf("%s: %w in the topology of lab %s", node, provision.ErrNotFound, t.Metadata.Name)
		}
		all.Go(func() error {
			change, err := p.bringUp(ctx, t, node, func(context.Context) error { return nil })
			if change != nil {
				changes[i] = *change
			}
			errs[i] = err
			return nil
		})
	}
	_ = all.Wait() // the errors are in errs
	return done(changes), errors.Join(errs...)
}
