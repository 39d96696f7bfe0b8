//go:build linux

package lb

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// adoptFor is how long a backend that was found in the maps, and belongs to no
// pod, is taken for one that is ending: Kubernetes' default.
const adoptFor = 30 * time.Second

// A planner says for each service what its frontends shall be, and what each
// address and backend is whose.
type planner struct {
	*engine
	view      view
	contested map[Key][]*service // who wants a frontend that another has
	dirty     []*service
	starved   []*service // backends of which have no id
	mark      uint64
	// adopting is whether backends that no pod has are taken for departed ones;
	// pods are the addresses of the state's, made when first asked for.
	adopting bool
	allPods  []api.Pod
	pods     map[netip.Addr]struct{}
	until    time.Time // of those, and of view.before
}

// soil has a service planned anew.
func (p *planner) soil(s *service) {
	if !s.dirty {
		s.dirty = true
		p.dirty = append(p.dirty, s)
	}
}

// plan works off what is dirty.
func (p *planner) plan() {
	if p.used < int(p.ids.limit) {
		for _, s := range p.starved {
			p.soil(s)
		}
		p.starved = nil
	}
	for i := 0; i < len(p.dirty); i++ { // it may grow
		p.dirty[i].dirty = false
		p.planService(p.dirty[i])
	}
	p.dirty = nil
}

func (p *planner) planService(s *service) {
	var c compiled
	if s.spec != nil {
		c = p.view.compile(s.spec, s.departed)
		if p.adopting && p.adopt(s, c) {
			c = p.view.compile(s.spec, s.departed)
		}
	}
	s.starved, s.conflict, s.err = false, nil, nil
	was := s.held
	choices := p.choices(s, c.sets)
	p.unkeep(was) // not before: what stays is never idle
	if s.starved {
		p.starved = append(p.starved, s)
	}
	p.mark++
	mark, before := p.mark, s.frontends
	s.frontends = make([]*frontend, 0, len(c.frontends))
	for _, spec := range c.frontends {
		f := p.claim(s, spec.key)
		if f == nil || f.mark == mark {
			continue
		}
		f.mark = mark
		s.frontends = append(s.frontends, f)
		want := &goal{flags: spec.flags, maglev: spec.maglev, choice: choices[spec.set]}
		if spec.affinity > 0 {
			want.affinity = p.maps.Clock.Ticks(spec.affinity)
		}
		p.aim(f, want)
	}
	for _, f := range before {
		if f.owner == s && f.mark != mark {
			p.disown(f)
		}
	}
}

// aim gives a frontend its goal.
func (p *planner) aim(f *frontend, want *goal) {
	if f.satisfied(want) {
		f.want, f.err = nil, nil
		return
	}
	f.want = want
	p.queue(f)
}

// choices numbers the backends of each set, and holds them for the service.
func (p *planner) choices(s *service, sets [][]Backend) []*choice {
	total := 0
	for _, set := range sets {
		total += len(set)
	}
	s.held = make([]held, 0, total)
	made := make([]*choice, len(sets))
	for i, set := range sets {
		first := len(s.held)
		for _, b := range set {
			id, ok := p.acquire(b.Address)
			if !ok {
				s.starved = true
				s.err = full(bpf.Backends, p.maps.Backends.Capacity())
				continue
			}
			s.held = append(s.held, held{id, b.State})
		}
		slots, count, active := arrange(s.held[first:], func(h held) State { return h.state })
		if len(slots) > maxBackends {
			slots, count, active = slots[:maxBackends], min(count, maxBackends), min(active, maxBackends)
			s.err = fmt.Errorf("%w: more than %d backends", errTooMany, maxBackends)
		}
		made[i] = &choice{backends: make([]uint32, len(slots)), count: count, active: active}
		for j, h := range slots {
			made[i].backends[j] = h.id
		}
	}
	p.keep(s.held)
	return made
}

// maxBackends are as many as a frontend's counts can say.
const maxBackends = 1<<16 - 1

var errTooMany = errors.New("the map takes no more")

// claim makes a frontend a service's, unless one has it whose name is before.
// Who has the external half has the internal one too.
func (p *planner) claim(s *service, key Key) *frontend {
	if key.Internal() && p.frontends[key.Address().scoped(scopeExternal)].owner != s {
		return nil
	}
	f := p.frontends[key]
	if f == nil {
		f = &frontend{key: key}
		p.frontends[key] = f
	}
	if f.owner != nil && f.owner != s {
		if s.name.compare(f.owner.name) > 0 {
			s.conflict = fmt.Errorf("%v belongs to service %v", key, f.owner.name)
			if !slices.Contains(p.contested[key], s) {
				p.contested[key] = append(p.contested[key], s)
			}
			return nil
		}
		p.soil(f.owner)
	}
	f.owner = s
	return f
}

// disown leaves a frontend to whoever wants it.
func (p *planner) disown(f *frontend) {
	f.owner, f.want = nil, nil
	p.queue(f)
	for _, s := range p.contested[f.key] {
		p.soil(s)
	}
	delete(p.contested, f.key)
}

// adopt takes backends for departed that a service's slots lead to and that no
// pod has: those that left while no agent looked. It says whether there are any.
func (p *planner) adopt(s *service, c compiled) (any bool) {
	for _, spec := range c.frontends {
		f := p.frontends[spec.key]
		if f == nil || f.current == nil {
			continue
		}
		for _, id := range f.current.backends {
			address := p.backends[id].address
			known := func(b Backend) bool { return b.Address == address }
			if address == 0 || slices.ContainsFunc(c.sets[spec.set], known) || p.isPod(address) {
				continue
			}
			any = s.depart(departed{port: spec.port, address: address, local: spec.local, until: p.until}) || any
		}
	}
	return any
}

// isPod is whether a pod of the state has an address.
func (p *planner) isPod(address Address) bool {
	if p.pods == nil {
		p.pods = podAddresses(p.allPods)
	}
	_, is := p.pods[address.AddrPort().Addr()]
	return is
}

// depart remembers a backend that left, and says whether that is news.
func (s *service) depart(d departed) bool {
	for i := range s.departed {
		if have := &s.departed[i]; have.port == d.port && have.address == d.address {
			news := d.local && !have.local
			have.local = have.local || d.local
			return news
		}
	}
	s.departed = append(s.departed, d)
	return true
}
