package vagrant

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/native-routing/labctl/provision"
)

// Destroy removes machines, and with none named also what Vagrant leaves
// behind: machines that it lost sight of, libvirt's networks and volumes, the
// lab's directory. The copy of the box in libvirt's storage goes where it was
// not there before the lab and no other machine stands on it; the box itself,
// which Vagrant keeps for the next lab, stays.
func (p *Provider) Destroy(ctx context.Context, name string, nodes ...string) ([]provision.Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, ctx.Err()
	}
	l := p.lab(name)
	if err := l.working.lock(ctx); err != nil {
		return nil, err
	}
	defer l.working.unlock()
	s, err := l.at.load()
	lost := errors.Is(err, errNoSettings)
	if err != nil && !lost {
		return nil, err
	}
	if len(nodes) > 0 {
		if lost {
			return nil, nil
		}
		return p.destroyNodes(ctx, l, s, nodes)
	}
	var changes []provision.Change
	if !lost {
		if changes, err = p.destroyNodes(ctx, l, s, l.at.made(s.Provider)); err != nil {
			return changes, err
		}
	}
	more, err := p.removeLeft(ctx, l, s)
	changes = append(changes, more...)
	if err != nil || !exists(l.at.dir) {
		return changes, err
	}
	l.remember(s)
	if err := errors.Join(p.options.Machines.Forget(ctx, name), os.RemoveAll(l.at.dir)); err != nil {
		return changes, fmt.Errorf("remove the files of lab %s: %w", name, err)
	}
	return append(changes, provision.Change{Verb: provision.Removed, Object: "files in " + l.at.dir}), nil
}

// destroyNodes removes machines with all that bears their names.
func (p *Provider) destroyNodes(ctx context.Context, l *lab, s settings, nodes []string) ([]provision.Change, error) {
	made := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return !exists(l.at.id(n, s.Provider)) })
	if err := p.destroyMachines(ctx, l, s, made...); err != nil {
		return nil, err
	}
	strays, err := p.removeMachines(ctx, s.Provider, func(object string) bool {
		return slices.Contains(nodes, strings.TrimPrefix(object, mark(l.name)))
	}, mark(l.name))
	removed := slices.Clone(made)
	for _, object := range strays {
		removed = append(removed, strings.TrimPrefix(object, mark(l.name)))
	}
	slices.Sort(removed)
	removed = slices.Compact(removed)
	var changes []provision.Change
	for _, node := range removed {
		changes = append(changes, provision.Change{Verb: provision.Removed, Node: node, Object: "VM"})
	}
	if len(removed) > 0 {
		err = errors.Join(err, p.options.Machines.Forget(ctx, l.name, removed...))
	}
	return changes, err
}

// destroyMachines has Vagrant remove machines that it made.
func (p *Provider) destroyMachines(ctx context.Context, l *lab, s settings, nodes ...string) error {
	if len(nodes) == 0 {
		return nil
	}
	if err := l.ensureVagrantfile(s); err != nil {
		return err
	}
	destroy := func(args ...string) error {
		args = append([]string{"destroy", "--force"}, args...)
		return p.whileLocked(ctx, l, func() error {
			return p.only(l, "", p.runner(l, s.Provider).run(ctx, p.teller(), args...))
		})
	}
	var err error
	if s.Provider == Libvirt {
		err = destroy(append([]string{"--parallel"}, nodes...)...)
	}
	// Machines of libvirt's that are removed side by side may find the network that
	// they share gone. What is left goes one after another, as all does elsewhere.
	left := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return !exists(l.at.id(n, s.Provider)) })
	switch {
	case ctx.Err() != nil, errors.Is(err, ErrLocked), s.Provider == Libvirt && err == nil:
	case len(left) == 0:
		err = nil
	default:
		err = destroy(left...)
	}
	return errors.Join(err, l.forget(nodes...))
}

// removeLeft removes what bears the lab's mark and is no machine that Vagrant knows.
func (p *Provider) removeLeft(ctx context.Context, l *lab, s settings) ([]provision.Change, error) {
	var changes []provision.Change
	removed := func(object string) {
		changes = append(changes, provision.Change{Verb: provision.Removed, Object: object})
	}
	for _, provider := range []string{Libvirt, VirtualBox} {
		if s.Provider != "" && s.Provider != provider {
			continue
		}
		machines, err := p.removeMachines(ctx, provider, func(string) bool { return true }, mark(l.name))
		for _, m := range machines {
			removed("machine " + m)
		}
		if err = unlessUnused(s, err); err != nil {
			return changes, err
		}
	}
	if s.Provider == VirtualBox {
		return changes, nil // its internal networks end with the last machine
	}
	networks, err := p.virsh.networks(ctx, l.name)
	for _, n := range networks {
		if err == nil {
			err = p.virsh.removeNetwork(ctx, n)
		}
		if err == nil {
			removed("network " + n)
		}
	}
	if err = unlessUnused(s, err); err != nil {
		return changes, fmt.Errorf("remove the networks of lab %s: %w", l.name, err)
	}
	images, err := p.removeImages(ctx, l, s)
	for _, i := range images {
		removed("volume " + i)
	}
	return changes, err
}

// removeImages removes the box's volumes that came with the lab. Where another
// lab uses the box, that one inherits them.
func (p *Provider) removeImages(ctx context.Context, l *lab, s settings) ([]string, error) {
	if err := p.bequeath(l, s); err != nil {
		return nil, err
	}
	volumes, err := p.ownImages(ctx, l, s)
	var removed []string
	for _, v := range volumes {
		if err == nil {
			err = p.virsh.removeVolume(ctx, v)
		}
		if err == nil {
			removed = append(removed, v.name)
		}
	}
	if err != nil {
		return removed, fmt.Errorf("remove the box's copy in libvirt's storage: %w", err)
	}
	return removed, nil
}

// bequeath makes the box's volumes those of another lab that uses them.
func (p *Provider) bequeath(l *lab, s settings) error {
	for _, i := range s.Images {
		heir, ok := p.heir(l, i)
		if !i.Own || !ok {
			continue
		}
		at := p.options.paths(heir)
		other, err := at.load()
		if err == nil {
			other.Images[other.image(i.Prefix)].Own = true
			err = at.writeJSON(at.settings(), other)
		}
		if err != nil {
			return fmt.Errorf("leave the box's copy in libvirt's storage to lab %s: %w", heir, err)
		}
	}
	return nil
}

// heir is another lab that uses the same copies of a box.
func (p *Provider) heir(l *lab, i image) (name string, ok bool) {
	for _, name := range p.options.stored() {
		if other, err := p.options.paths(name).load(); name != l.name && err == nil && other.image(i.Prefix) >= 0 {
			return name, true
		}
	}
	return "", false
}

// ownImages are the box's volumes that came with the lab, and that no other lab
// and no machine needs.
func (p *Provider) ownImages(ctx context.Context, l *lab, s settings) ([]volume, error) {
	var own []volume
	for _, i := range s.Images {
		if _, inherited := p.heir(l, i); !i.Own || inherited {
			continue
		}
		volumes, err := p.virsh.volumes(ctx, i.Prefix)
		if err != nil {
			return nil, err
		}
		for _, v := range volumes {
			used, err := p.virsh.used(ctx, v)
			if err != nil {
				return nil, err
			}
			if !used {
				own = append(own, v)
			}
		}
	}
	return own, nil
}
