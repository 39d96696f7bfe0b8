package vagrant

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/native-routing/labctl/provision"
)

// Labs are those that this provider has files of, and those whose mark machines,
// networks or volumes bear.
func (p *Provider) Labs(ctx context.Context) ([]string, error) {
	labs := p.options.stored()
	objects, _ := p.virsh.marked(ctx) // no libvirt, no labs there
	machines, _ := p.vboxManage.machines(ctx, markPrefix)
	for _, name := range slices.Concat(objects, machines) {
		if lab, ok := labOf(name); ok {
			labs = append(labs, lab)
		}
	}
	slices.Sort(labs)
	return slices.Compact(labs), ctx.Err()
}

// Observe finds the lab's machines, as Vagrant sees them and as their own names
// say, and in Objects its networks, volumes and files. Of a lab that was just
// destroyed it looks where that one stood.
func (p *Provider) Observe(ctx context.Context, name string) (provision.Observation, error) {
	var o provision.Observation
	if err := ctx.Err(); err != nil {
		return o, ctx.Err()
	}
	l := p.lab(name)
	s, err := l.at.load()
	if errors.Is(err, errNoSettings) {
		s, err = l.destroyed(), nil
	}
	if err != nil {
		return o, err
	}
	states, err := p.states(ctx, l, s)
	if err != nil {
		return o, err
	}
	for _, m := range states {
		if state := standing(m.state); state != "" {
			o.Nodes = append(o.Nodes, provision.ObservedNode{Name: m.node, State: state, Detail: described(m.node, m.state)})
		}
	}
	more, err := p.lost(ctx, l, s, o.Nodes)
	o.Nodes = append(o.Nodes, more...)
	if err == nil && s.Provider != VirtualBox {
		o.Objects, err = p.libvirtObjects(ctx, l, s)
	}
	if exists(l.at.dir) {
		o.Objects = append(o.Objects, "file "+l.at.dir)
	}
	return o, err
}

// lost are machines with the lab's mark that Vagrant does not know.
func (p *Provider) lost(ctx context.Context, l *lab, s settings, known []provision.ObservedNode) ([]provision.ObservedNode, error) {
	var names []string
	var err error
	if s.Provider != VirtualBox {
		names, err = p.virsh.domains(ctx, mark(l.name))
		err = unlessUnused(s, err)
	}
	if s.Provider != Libvirt && err == nil {
		var more []string
		more, err = p.vboxManage.machines(ctx, mark(l.name))
		if errors.Is(err, errNoVBoxManage) {
			err = nil
		}
		err = unlessUnused(s, err)
		names = append(names, more...)
	}
	var nodes []provision.ObservedNode
	for _, name := range names {
		node := strings.TrimPrefix(name, mark(l.name))
		if !slices.ContainsFunc(known, func(n provision.ObservedNode) bool { return n.Name == node }) {
			nodes = append(nodes, provision.ObservedNode{Name: node, State: provision.NodeBroken,
				Detail: "there is a VM " + name + " that Vagrant does not know (labctl up makes it anew)"})
		}
	}
	return nodes, err
}

// unlessUnused passes over a tool that is not here or does not answer, where no
// lab says that there is anything to ask it for.
func unlessUnused(s settings, err error) error {
	if s.Provider == "" {
		return nil
	}
	return err
}

// libvirtObjects are the lab's networks and volumes; once no machine is made any
// more, also the copies of the box that nothing needs.
func (p *Provider) libvirtObjects(ctx context.Context, l *lab, s settings) ([]string, error) {
	var objects []string
	networks, err := p.virsh.networks(ctx, l.name)
	for _, n := range networks {
		objects = append(objects, "libvirt network "+n)
	}
	var volumes []volume
	if err == nil {
		volumes, err = p.virsh.volumes(ctx, mark(l.name))
	}
	for _, v := range volumes {
		objects = append(objects, "libvirt volume "+v.name)
	}
	if err == nil && len(l.at.made(s.Provider)) == 0 {
		volumes, err = p.ownImages(ctx, l, s)
		for _, v := range volumes {
			objects = append(objects, "libvirt volume "+v.name)
		}
	}
	return objects, unlessUnused(s, err)
}
