//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// EnsureLinks gives every node of t its interfaces, addresses and static
// routes, and removes those that t does not have. ErrNotFound names a node
// whose namespace is not there.
func (p *Provider) EnsureLinks(ctx context.Context, t *topo.Topology) ([]provision.Change, error) {
	return p.ensureLinks(ctx, t, func(string) bool { return true }, true)
}

// EnsureNodeLinks does the same for the named nodes alone.
func (p *Provider) EnsureNodeLinks(ctx context.Context, t *topo.Topology, nodes ...string) ([]provision.Change, error) {
	return p.ensureLinks(ctx, t, func(node string) bool { return slices.Contains(nodes, node) }, false)
}

// ensureLinks works on the nodes that are meant, and tidies what is nobody's.
func (p *Provider) ensureLinks(ctx context.Context, t *topo.Topology, meant func(node string) bool, tidy bool) ([]provision.Change, error) {
	want, err := newPlan(t)
	if err != nil {
		return nil, err
	}
	defer p.lock(want.Lab, "")()
	at := p.options.paths(want.Lab)
	changes, err := p.ensureFabric(ctx, at)
	if err != nil {
		return changes, err
	}
	fabric, err := openFabric(at)
	if err != nil {
		return changes, err
	}
	defer fabric.Close()
	bridged, err := fabric.ensureBridges(want)
	changes = append(changes, bridged...)
	if err != nil {
		return changes, err
	}
	perNode := make([][]provision.Change, len(want.Nodes))
	effects := make([]effect, len(want.Nodes))
	errs := make([]error, len(want.Nodes))
	var group errgroup.Group
	group.SetLimit(p.parallel())
	for i, n := range want.Nodes {
		if !meant(n.Name) {
			continue
		}
		group.Go(func() error {
			if errs[i] = ctx.Err(); errs[i] == nil {
				perNode[i], effects[i], errs[i] = p.ensureNodeLinks(at, want.Lab, n, fabric)
			}
			return nil
		})
	}
	_ = group.Wait()
	changes = slices.Concat(append([][]provision.Change{changes}, perNode...)...)
	if err := errors.Join(errs...); err != nil {
		return changes, err
	}
	if tidy {
		stale, err := fabric.removeStale(want, len(changes) > 0)
		changes = append(changes, stale...)
		if err != nil {
			return changes, err
		}
	}
	return changes, settleLinks(ctx, at, fabric, want, effects)
}

// fabric is the lab's open fabric, with its links as they were when it was
// opened and its bridges made.
type fabric struct {
	*space
	list []link
	// mended are the networks whose bridge was changed.
	mended []string
}

func openFabric(at paths) (*fabric, error) {
	s, err := openSpace(at.net(""))
	if err != nil {
		return nil, fmt.Errorf("open the fabric of %s: %w", at.lab, err)
	}
	list, err := s.links()
	if err != nil {
		s.Close()
		return nil, err
	}
	return &fabric{space: s, list: list}, nil
}

func (f *fabric) index(name string) int {
	l, _ := linkNamed(f.list, name)
	return l.Index
}

func (f *fabric) ensureBridges(want plan) ([]provision.Change, error) {
	ops := diffBridges(want, f.list)
	if len(ops.Make)+len(ops.Set) == 0 {
		return nil, nil
	}
	w, err := f.write()
	if err != nil {
		return nil, err
	}
	err = nil
	for _, b := range ops.Make {
		err = errors.Join(err, w.makeBridge(b.Name))
	}
	for _, b := range slices.Concat(ops.Make, ops.Set) {
		err = errors.Join(err, w.setLink(b.Name, attributes{Alias: b.Alias, Up: true}))
	}
	if err := errors.Join(err, w.flush()); err != nil {
		return nil, fmt.Errorf("make the networks: %w", err)
	}
	for _, b := range ops.Set {
		f.mended = append(f.mended, b.Network)
	}
	f.list, err = f.links()
	return ops.Changes, err
}

// removeStale takes away ports and bridges that the file no longer has.
func (f *fabric) removeStale(want plan, changed bool) ([]provision.Change, error) {
	if changed {
		list, err := f.links()
		if err != nil {
			return nil, err
		}
		f.list = list
	}
	stale, changes := staleInFabric(want, f.list)
	if len(stale) == 0 {
		return nil, nil
	}
	w, err := f.write()
	if err != nil {
		return nil, err
	}
	for _, name := range stale {
		if err := w.deleteNow(name); err != nil {
			return nil, fmt.Errorf("tidy the fabric: %w", err)
		}
	}
	return changes, nil
}

// ensureNodeLinks works from the links up to the routes; each layer is read
// again where the one below it was changed, since the kernel drops addresses
// and routes on its own then.
func (p *Provider) ensureNodeLinks(at paths, lab string, want nodePlan, shared *fabric) ([]provision.Change, effect, error) {
	session := &nodeSession{provider: p, want: want, lab: lab, effect: newEffect()}
	s, err := openSpace(at.net(want.Name))
	if absent(err) {
		return nil, session.effect, fmt.Errorf("%s: %w (labctl up makes it)", want.Name, provision.ErrNotFound)
	}
	if err != nil {
		return nil, session.effect, err
	}
	defer s.Close()
	session.space = s
	// The fabric's writer is not shared: each node has its own, opened where it is needed.
	session.fabric = &fabric{space: &space{file: shared.file, handle: shared.handle}, list: shared.list}
	defer session.closeFabricWriter()
	changes, err := session.ensure()
	if err != nil {
		return changes, session.effect, fmt.Errorf("%s: %w", want.Name, err)
	}
	return changes, session.effect, nil
}

// nodeSession brings one node in line.
type nodeSession struct {
	*space
	provider *Provider
	fabric   *fabric
	want     nodePlan
	lab      string
	list     []link
	effect
}

func (s *nodeSession) closeFabricWriter() {
	if w := s.fabric.writer; w != nil {
		w.Close()
	}
}

func (s *nodeSession) ensure() ([]provision.Change, error) {
	var err error
	if s.list, err = s.links(); err != nil {
		return nil, err
	}
	before, err := s.routes(s.list)
	if err != nil {
		return nil, err
	}
	changes, linked, err := s.ensureLinks()
	if err != nil {
		return changes, err
	}
	more, addressed, err := s.ensureAddresses()
	changes = append(changes, more...)
	if err != nil {
		return changes, err
	}
	more, err = s.ensureRoutes(before, linked || addressed)
	return append(changes, more...), err
}

func (s *nodeSession) ensureLinks() (changes []provision.Change, done bool, err error) {
	joined, err := s.joined()
	if err != nil {
		return nil, false, err
	}
	ops := diffLinks(s.lab, s.want, s.list, s.fabric.list, s.fabric.index, joined)
	if len(ops) == 0 {
		return nil, false, nil
	}
	if err := s.applyLinks(ops); err != nil {
		return nil, true, err
	}
	for _, op := range ops {
		s.noteLink(op)
		if op.Change.Verb != "" {
			changes = append(changes, op.Change)
		}
	}
	s.list, err = s.links()
	return changes, true, err
}

// joined says of a link here and a port in the fabric whether they are one pair:
// each names the other's index, and the link's other end is in the fabric.
func (s *nodeSession) joined() (func(l, port link) bool, error) {
	id := -1
	if slices.ContainsFunc(s.list, func(l link) bool { return l.Kind == kindVeth }) {
		var err error
		if id, err = s.idOf(s.fabric.file); err != nil {
			return nil, err
		}
	}
	return func(l, port link) bool {
		return id >= 0 && l.PeerNS == id && l.Peer == port.Index && port.Peer == l.Index
	}, nil
}

// applyLinks sends the fabric's part first, since a port's deletion takes the
// node's end with it.
func (s *nodeSession) applyLinks(ops []linkOp) error {
	here, err := s.write()
	if err != nil {
		return err
	}
	if err := s.deleteLinks(ops, here); err != nil {
		return err
	}
	if err := s.makeLinks(ops, here); err != nil {
		return err
	}
	for _, op := range ops {
		err = errors.Join(err, setWhereAny(here, op.Plan.Name, op.Set))
		if op.SetPort.any() {
			there, werr := s.fabric.write()
			if werr != nil {
				return werr
			}
			err = errors.Join(err, setWhereAny(there, op.Plan.Port, op.SetPort))
		}
	}
	err = errors.Join(err, here.flush())
	if s.fabric.writer != nil {
		err = errors.Join(err, s.fabric.writer.flush())
	}
	return err
}

func (a attributes) any() bool {
	return a.MTU != 0 || a.MAC != nil || a.Alias != "" || a.Up || a.Master != 0 || a.NoMaster
}

func setWhereAny(w *writer, link string, a attributes) error {
	if !a.any() {
		return nil
	}
	return w.setLink(link, a)
}

func (s *nodeSession) deleteLinks(ops []linkOp, here *writer) error {
	for _, op := range ops {
		if op.Delete != "" {
			if err := here.deleteNow(op.Delete); err != nil {
				return err
			}
		}
		if op.DeletePort != "" {
			there, err := s.fabric.write()
			if err != nil {
				return err
			}
			if err := there.deleteNow(op.DeletePort); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteNow removes a link, which may have gone with its other end already.
func (w *writer) deleteNow(link string) error {
	if err := errors.Join(w.deleteLink(link), w.flush()); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// makeLinks leaves the rest of the veths' ends here to the caller's flush.
func (s *nodeSession) makeLinks(ops []linkOp, here *writer) error {
	var err error
	for _, op := range ops {
		if !op.Make || op.Plan.Kind == kindDummy {
			continue
		}
		there, werr := s.fabric.write()
		if werr != nil {
			return werr
		}
		bridge := 0
		if op.Plan.Bridge != "" {
			bridge = s.fabric.index(op.Plan.Bridge)
		}
		err = errors.Join(err, there.makeVeth(op.Plan, bridge, s.file),
			there.setLink(op.Plan.Port, attributes{Alias: op.Plan.Alias}))
	}
	if s.fabric.writer != nil {
		err = errors.Join(err, s.fabric.writer.flush())
	}
	for _, op := range ops {
		switch {
		case !op.Make:
		case op.Plan.Kind == kindDummy:
			err = errors.Join(err, s.makeAlone(op.Plan, here))
		default:
			err = errors.Join(err, here.setLink(op.Plan.Name, attributes{Alias: op.Plan.Alias, Up: true}))
		}
	}
	return err
}

// makeAlone makes a dummy and, where the kernel has no such driver, an ifb.
func (s *nodeSession) makeAlone(l linkPlan, w *writer) error {
	for {
		k := s.provider.alone()
		err := errors.Join(w.makeAlone(l, k), w.setLink(l.Name, attributes{Alias: l.Alias}), w.flush())
		if k == kindIFB || !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		s.provider.noDummy.Store(true)
	}
}

func (s *nodeSession) ensureAddresses() (changes []provision.Change, done bool, err error) {
	have, err := s.addresses(s.list)
	if err != nil {
		return nil, false, err
	}
	remove, add := diffAddresses(s.want, have)
	if len(remove)+len(add) == 0 {
		return nil, false, nil
	}
	s.noteAddresses(s.want, remove, add)
	changes = s.addressChanges(remove, add)
	for _, a := range remove {
		if err := s.handle.AddrDel(nil, &a.raw); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, true, fmt.Errorf("remove %s from %s: %w", a.Prefix, a.Device, err)
		}
	}
	if len(remove) > 0 {
		// A primary address may have taken its secondaries along.
		if have, err = s.addresses(s.list); err != nil {
			return nil, true, err
		}
		_, add = diffAddresses(s.want, have)
	}
	w, err := s.write()
	if err != nil {
		return nil, true, err
	}
	for _, l := range add {
		err = errors.Join(err, w.addAddress(l, s.indexOf(l.Name)))
	}
	if err := errors.Join(err, w.flush()); err != nil {
		return nil, true, err
	}
	return changes, true, nil
}

func (s *nodeSession) indexOf(device string) int {
	l, _ := linkNamed(s.list, device)
	return l.Index
}

// addressChanges pairs an address that goes with the one that takes its place.
func (s *nodeSession) addressChanges(remove []address, add []linkPlan) []provision.Change {
	var changes []provision.Change
	for _, l := range s.want.Links {
		var was []string
		for _, a := range remove {
			if a.Device == l.Name {
				was = append(was, a.Prefix.String())
			}
		}
		missing := slices.ContainsFunc(add, func(m linkPlan) bool { return m.Name == l.Name })
		change := provision.Change{Verb: provision.Changed, Node: s.want.Name, Object: l.Name}
		switch {
		case s.fresh[l.Name]:
			continue
		case missing && len(was) > 0:
			change.Detail = fmt.Sprintf("address %s, was %s", l.Address, strings.Join(was, ", "))
		case missing:
			change.Detail = fmt.Sprintf("address %s, had none", l.Address)
		case len(was) > 0:
			change.Detail = fmt.Sprintf("address %s removed", strings.Join(was, ", "))
		default:
			continue
		}
		changes = append(changes, change)
	}
	return changes
}

// alone is the kind that a dummy of the file gets here.
func (p *Provider) alone() kind {
	if p.noDummy.Load() {
		return kindIFB
	}
	return kindDummy
}
