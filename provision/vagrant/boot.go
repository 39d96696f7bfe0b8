package vagrant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

const (
	// gatherTime is how long a batch waits for more nodes that are wanted at the
	// same time: one vagrant boots them all, several would stand in each other's way.
	gatherTime = 50 * time.Millisecond
	// gatherWaiting is the same for machines that wait for SSH. Booting takes longer.
	gatherWaiting = time.Second
	// lockRetry is how often a machine that another vagrant holds is tried again.
	lockRetry = 2 * time.Second
)

// batch is one vagrant up, and who waits for it. Its nodes are fixed when it
// begins; what is wanted later goes into the next one.
type batch struct {
	t      *topo.Topology
	cancel context.CancelFunc
	full   chan struct{} // closed when all nodes of the lab are in it
	ended  chan struct{}

	// Under the lab's lock:
	waiting int
	nodes   map[string]*berth
}

// berth is a machine of a batch.
type berth struct {
	up      chan struct{} // closed when SSH answers, or when settled
	settled chan struct{} // closed when vagrant is done with it
	answers bool          // whether it came up
	change  *provision.Change
	err     error
}

// bringUp boots the machine of a node and calls do as soon as SSH answers there:
// vagrant may still be busy with it then, and others may still be booting. It
// says what was done to the machine.
func (p *Provider) bringUp(ctx context.Context, t *topo.Topology, node string, do func(context.Context) error) (*provision.Change, error) {
	l := p.lab(t.Metadata.Name)
	b, place := p.join(ctx, l, t, node)
	defer p.leave(ctx, l, b)
	var err error
	select {
	case <-place.up:
		if place.came(l) {
			err = do(ctx)
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-place.settled:
		return place.change, errors.Join(place.err, err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// came says whether the machine came up at all.
func (place *berth) came(l *lab) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return place.answers
}

// join gets a place in the next batch, and begins one where there is none.
func (p *Provider) join(ctx context.Context, l *lab, t *topo.Topology, node string) (*batch, *berth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		b := &batch{t: t, full: make(chan struct{}), ended: make(chan struct{}), nodes: map[string]*berth{}}
		ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
		l.next = b
		go p.carryOut(ctx, l, b)
	}
	b := l.next
	b.waiting++
	if b.nodes[node] == nil {
		b.nodes[node] = &berth{up: make(chan struct{}), settled: make(chan struct{})}
		if len(b.nodes) == len(b.t.Nodes) {
			close(b.full)
		}
	}
	return b, b.nodes[node]
}

// leave gives up a place. The last one waits until the batch has ended, for
// nothing of it may outlive the call, and has it interrupted where its own call was.
func (p *Provider) leave(ctx context.Context, l *lab, b *batch) {
	l.mu.Lock()
	b.waiting--
	last := b.waiting == 0
	if last && ctx.Err() != nil && l.next == b {
		l.next = nil // who comes now begins another one
	}
	l.mu.Unlock()
	if !last {
		return
	}
	if ctx.Err() != nil {
		b.cancel()
	}
	select {
	case <-b.ended:
	case <-ctx.Done():
		b.cancel()
		<-b.ended
	}
}

// carryOut runs a batch. Whatever happens, every machine of it is settled at the end.
func (p *Provider) carryOut(ctx context.Context, l *lab, b *batch) {
	defer close(b.ended)
	defer b.cancel()
	b.gather(ctx, p.options.gatherTime())
	if !l.probing.TryLock() { // whose machine does not answer joins after that
		l.probing.Lock()
		b.gather(ctx, p.options.gatherTime())
	}
	l.probing.Unlock()
	err := l.working.lock(ctx)
	if err == nil {
		defer l.working.unlock()
	}
	l.mu.Lock()
	if l.next == b {
		l.next = nil
	}
	names := slices.DeleteFunc(b.t.Nodes.Names(), func(n string) bool { return b.nodes[n] == nil })
	l.mu.Unlock()
	if err == nil {
		err = p.up(ctx, l, b, names)
	}
	var faults nodeFaults
	errors.As(err, &faults)
	for _, name := range names {
		fault := err
		if own := faults[name]; own != nil {
			fault = own
		}
		if fault == nil {
			fault = fmt.Errorf("%s: vagrant ended well and does not say that it is up (%s)", name, logged(l.at.log()))
		}
		b.settle(l, name, nil, fault)
	}
}

// gather waits for more nodes to join.
func (b *batch) gather(ctx context.Context, most time.Duration) {
	select {
	case <-time.After(most):
	case <-b.full:
	case <-ctx.Done():
	}
}

// settle says once what became of a machine.
func (b *batch) settle(l *lab, node string, change *provision.Change, err error) {
	if err == nil {
		b.came(l, node)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	place := b.nodes[node]
	if place == nil || closed(place.settled) {
		return
	}
	place.change, place.err = change, err
	close(place.settled)
	if !closed(place.up) {
		close(place.up)
	}
}

// came says once that a machine answers.
func (b *batch) came(l *lab, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	place := b.nodes[node]
	if place == nil || closed(place.up) {
		return
	}
	l.running[node] = true
	place.answers = true
	close(place.up)
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// up looks which of the machines do not run, mends what was left half made, and boots them.
func (p *Provider) up(ctx context.Context, l *lab, b *batch, names []string) error {
	s, err := p.prepare(ctx, b.t)
	if err != nil {
		return err
	}
	states, err := p.states(ctx, l, s)
	if err != nil {
		return err
	}
	var down, anew []string
	changes := map[string]*provision.Change{}
	for _, name := range names {
		state := stateOf(states, name)
		if standing(state) == provision.NodeRunning {
			b.settle(l, name, nil, s.outgrown(b.t, name))
			continue
		}
		changes[name] = &provision.Change{Verb: provision.Started, Node: name, Object: "VM"}
		made, err := p.mend(ctx, l, b.t, s, name, state)
		if errors.Is(err, ErrOutgrown) {
			b.settle(l, name, nil, err)
			continue
		}
		if err != nil {
			return err
		}
		down = append(down, name)
		if !made {
			anew = append(anew, name)
			changes[name].Verb = provision.Created
		}
	}
	if len(down) == 0 {
		return nil
	}
	if err := p.begin(ctx, l, b.t, s, down, anew); err != nil {
		return err
	}
	err = p.vagrantUp(ctx, l, b, s, down, changes)
	l.unsee()
	return err
}

// begin drops what is known of machines that boot now, and writes down what
// those are asked for with that are made anew.
func (p *Provider) begin(ctx context.Context, l *lab, t *topo.Topology, s settings, booted, anew []string) error {
	err := l.forget(booted...)
	if err == nil && len(anew) > 0 {
		err = p.options.Machines.Forget(ctx, l.name, anew...)
	}
	if err == nil && len(anew) > 0 && s.Provider == Libvirt {
		err = p.note(ctx, l, t, anew)
	}
	return err
}

// vagrantUp boots machines, and settles each as soon as it is up.
func (p *Provider) vagrantUp(ctx context.Context, l *lab, b *batch, s settings, names []string, changes map[string]*provision.Change) error {
	// No provisioning: that is ours. No installing of providers: Vagrant would
	// download VirtualBox unasked.
	args := []string{"up", "--no-provision", "--no-install-provider"}
	if s.Provider == VirtualBox {
		args = append(args, "--no-parallel") // what it does anyway
	}
	tell := p.teller()
	var asking sync.WaitGroup
	defer asking.Wait()
	on := func(e event) {
		tell(e)
		switch {
		case e.done("up"):
			b.settle(l, e.Target, changes[e.Target], nil)
		case e.says(saysReady):
			b.came(l, e.Target)
		case e.says(saysWaiting):
			asking.Go(func() { p.lookAhead(ctx, l, b, s, e.Target) })
		}
	}
	for _, name := range names {
		p.options.tell(name, "waiting for vagrant")
	}
	return p.whileLocked(ctx, l, func() error {
		return p.explain(l, b.t, s, names, p.runner(l, s.Provider).run(ctx, on, append(args, names...)...))
	})
}

// lookAhead asks how a machine is reached that waits to be: it is known by then,
// and to ask takes as long as the last of the way. Machines that boot together
// wait for a moment for each other, to be asked for together. Who needs to know
// and does not find it asks again.
func (p *Provider) lookAhead(ctx context.Context, l *lab, b *batch, s settings, node string) {
	l.mu.Lock()
	l.running[node] = true
	place := b.nodes[node]
	l.mu.Unlock()
	if place == nil {
		return
	}
	select {
	case <-time.After(gatherWaiting):
	case <-place.up:
	case <-ctx.Done():
	}
	_, _ = p.lookUp(ctx, l, s.Provider, node)
}

// whileLocked tries again as long as another vagrant holds a machine: it may be
// one that a killed labctl left at work, and then its work is ours.
func (p *Provider) whileLocked(ctx context.Context, l *lab, try func() error) error {
	for end := time.Now().Add(p.options.lockPatience()); ; {
		err := try()
		if !errors.Is(err, ErrLocked) || time.Now().After(end) {
			return err
		}
		p.options.tell("", "another vagrant works on lab "+l.name+", waiting for it")
		select {
		case <-time.After(lockRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nodeFaults are errors by machine.
type nodeFaults map[string]error

func (f nodeFaults) Error() string {
	var texts []string
	for _, err := range f.Unwrap() {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "\n")
}

// Unwrap returns them in the order of the machines' names.
func (f nodeFaults) Unwrap() []error {
	var errs []error
	for _, name := range f.names() {
		errs = append(errs, f[name])
	}
	return errs
}

func (f nodeFaults) names() []string { return slices.Sorted(maps.Keys(f)) }

// explain turns what Vagrant said into faults of the machines.
func (p *Provider) explain(l *lab, t *topo.Topology, s settings, names []string, err error) error {
	var failed *failure
	if !errors.As(err, &failed) {
		return err
	}
	box, version := boxOf(t)
	c := cures{lab: l.name, provider: s.Provider, box: box, boxVersion: version, ranges: networksOf(t)}
	faults := nodeFaults{}
	for name, text := range failed.perMachine() {
		faults[name] = c.told(name, text, failed.log)
	}
	if len(faults) == 0 {
		return c.told("", failed.text, failed.log)
	}
	stopped := strings.Join(faults.names(), ", ")
	for _, name := range names {
		if faults[name] == nil && !slices.Contains(failed.ended, name) {
			faults[name] = fmt.Errorf("%s was not begun, because of what stopped %s: %w", name, stopped, ErrVagrant)
		}
	}
	return faults
}

// only is explain where no topology is at hand and one machine, or no certain one, is meant.
func (p *Provider) only(l *lab, node string, err error) error {
	var failed *failure
	if !errors.As(err, &failed) {
		return err
	}
	s, _ := l.at.load() // for a cure only
	c := cures{lab: l.name, provider: s.Provider}
	if sections := failed.sections(); node == "" && len(sections) > 0 {
		faults := nodeFaults{}
		for name, text := range sections {
			faults[name] = c.told(name, text, failed.log)
		}
		return faults
	}
	return c.told(node, failed.text, failed.log)
}
