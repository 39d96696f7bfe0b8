package vagrant

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/native-routing/labctl/provision"
)

// seenFor is how long a look at a lab's machines holds: a command of labctl
// looks several times, and each look costs a second.
const seenFor = 3 * time.Second

// lab is what this process knows of one lab. Its files are the truth.
type lab struct {
	name string
	at   paths
	// asking and working let one vagrant at a time look something up, and one
	// change something; preparing is held by who writes the lab's files.
	asking, working, preparing turn

	mu      sync.Mutex
	next    *batch
	running map[string]bool // machines that are known to be up
	seen    []machineState
	when    time.Time
	was     settings // those of a lab that was destroyed, for the proof

	// probing is held, with others, by who tries whether a machine answers.
	probing sync.RWMutex
}

// remember keeps what was chosen for a lab that goes.
func (l *lab) remember(s settings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.was = s
}

// destroyed is what was chosen for a lab that is gone; empty where that is not known.
func (l *lab) destroyed() settings {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.was
}

// turn is a lock that a context can end the wait for.
type turn chan struct{}

func (t turn) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) unlock() { <-t }

func (p *Provider) lab(name string) *lab {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.labs[name]
	if l == nil {
		l = &lab{name: name, at: p.options.paths(name), running: map[string]bool{},
			asking: make(turn, 1), working: make(turn, 1), preparing: make(turn, 1)}
		p.labs[name] = l
	}
	return l
}

// machineState is a machine in the words of its provider in Vagrant.
type machineState struct{ node, state string }

const (
	// absent is the state of a machine that was never made, or is no more.
	absent = "not_created"
	// shuttingDown is what Vagrant calls one of libvirt's that was told to.
	shuttingDown = "shutting_down"
)

// states looks at the machines of the lab. Where Vagrant has made none, it is not
// asked; and libvirt says itself how those stand that Vagrant has made, in a
// hundredth of the time.
func (p *Provider) states(ctx context.Context, l *lab, s settings) ([]machineState, error) {
	if len(l.at.made(s.Provider)) == 0 {
		return nil, ctx.Err()
	}
	if err := l.asking.lock(ctx); err != nil {
		return nil, err
	}
	defer l.asking.unlock()
	l.mu.Lock()
	if l.seen != nil && time.Since(l.when) < seenFor {
		defer l.mu.Unlock()
		return l.seen, nil
	}
	l.mu.Unlock()
	seen, err := p.libvirtStates(ctx, l, s)
	if err != nil && !errors.Is(err, ErrLibvirt) {
		seen, err = p.vagrantStates(ctx, l, s)
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen, l.when = seen, time.Now()
	for _, m := range seen {
		if standing(m.state) == provision.NodeRunning {
			l.running[m.node] = true
		} else {
			delete(l.running, m.node)
		}
	}
	return seen, nil
}

var errNotLibvirt = errors.New("the lab is not on libvirt")

// libvirtStates asks libvirt for the machines that Vagrant has made there.
func (p *Provider) libvirtStates(ctx context.Context, l *lab, s settings) ([]machineState, error) {
	if s.Provider != Libvirt {
		return nil, errNotLibvirt
	}
	present, err := p.virsh.names(ctx, "list", "--all", "--uuid")
	if err != nil {
		return nil, err
	}
	seen := []machineState{}
	for _, node := range l.at.made(s.Provider) {
		id, err := os.ReadFile(l.at.id(node, s.Provider))
		if err != nil {
			return nil, err
		}
		state := absent
		if slices.Contains(present, string(id)) {
			if state, err = p.virsh.state(ctx, string(id)); err != nil {
				return nil, err
			}
		}
		seen = append(seen, machineState{node, state})
	}
	return l.ordered(seen), nil
}

// ordered puts machines in the order of the Vagrantfile, which is the topology's;
// those that it does not have come first.
func (l *lab) ordered(seen []machineState) []machineState {
	text, _ := os.ReadFile(l.at.vagrantfile()) // without it the order is that of the names
	place := func(m machineState) int {
		name, _ := quote(m.node) // Vagrant has taken it
		return bytes.Index(text, []byte("config.vm.define "+name))
	}
	slices.SortStableFunc(seen, func(a, b machineState) int { return place(a) - place(b) })
	return seen
}

// vagrantStates asks Vagrant, which says what is wrong where something is.
func (p *Provider) vagrantStates(ctx context.Context, l *lab, s settings) ([]machineState, error) {
	if err := l.ensureVagrantfile(s); err != nil {
		return nil, err
	}
	events, err := p.look(ctx, l, s.Provider, "status")
	if err != nil {
		return nil, p.only(l, "", err)
	}
	seen := []machineState{}
	for _, e := range events {
		if e.Type == "state" && e.Target != "" {
			seen = append(seen, machineState{e.Target, e.data(0)})
		}
	}
	return seen, nil
}

// unsee has the machines looked at anew.
func (l *lab) unsee() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = nil
}

// ensureVagrantfile writes one that only names the machines, where a hand has
// removed it: without it Vagrant would not find them.
func (l *lab) ensureVagrantfile(s settings) error {
	if exists(l.at.vagrantfile()) {
		return nil
	}
	v := vagrantfile{Lab: l.name, Box: DefaultBox, Provider: s.Provider, Management: s.Management, Stale: l.at.made(s.Provider)}
	text, err := v.render()
	if err == nil {
		_, err = l.at.write(l.at.vagrantfile(), text)
	}
	return err
}

// standing is what a state of VirtualBox's or libvirt's means for a lab; empty
// for a machine that is not there.
func standing(state string) provision.NodeState {
	switch state {
	case absent, "":
		return ""
	case "running":
		return provision.NodeRunning
	case "poweroff", "shutoff", "saved", "paused", "pmsuspended", "aborted":
		return provision.NodeStopped
	default:
		return provision.NodeBroken
	}
}

// described says what a state means to a person.
func described(node, state string) string {
	switch standing(state) {
	case provision.NodeRunning:
		return ""
	case provision.NodeStopped:
		if state == "poweroff" || state == "shutoff" {
			return "its VM is halted (labctl start " + node + ")"
		}
		return "its VM is " + strings.ReplaceAll(state, "_", " ") + " (labctl start " + node + ")"
	default:
		return "its VM is in the state " + strings.ReplaceAll(state, "_", " ") + " (labctl up mends it)"
	}
}

// stateOf is absent where the machine is not among them.
func stateOf(states []machineState, node string) string {
	i := slices.IndexFunc(states, func(m machineState) bool { return m.node == node })
	if i < 0 {
		return absent
	}
	return states[i].state
}
