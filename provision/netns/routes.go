//go:build linux

package netns

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
)

// ensureRoutes begins from the routes as they were, unless what is below them changed.
func (s *nodeSession) ensureRoutes(before []foundRoute, changed bool) ([]provision.Change, error) {
	have := before
	var err error
	if changed {
		if have, err = s.routes(s.list); err != nil {
			return nil, err
		}
	}
	known, err := s.neighbours(s.list)
	if err != nil {
		return nil, err
	}
	neighbours := diffNeighbours(s.want, known)
	remove, add := diffRoutes(s.want, have)
	if len(neighbours)+len(remove)+len(add) == 0 {
		return routeChanges(s.want.Name, before, lost(s.want, before, have), nil, s.fresh), nil
	}
	for _, r := range remove {
		if err := s.handle.RouteDel(&r.raw); err != nil && !errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("remove %s: %w", r.object(), err)
		}
	}
	w, err := s.write()
	if err != nil {
		return nil, err
	}
	for _, n := range neighbours {
		err = errors.Join(err, w.setNeighbour(n, s.indexOf(n.Device)))
	}
	for _, r := range add {
		err = errors.Join(err, w.addRoute(r, s.indexOf))
	}
	if err := errors.Join(err, w.flush()); err != nil {
		return nil, err
	}
	changes := neighbourChanges(s.want.Name, neighbours, s.fresh)
	return append(changes, routeChanges(s.want.Name, before, append(remove, lost(s.want, before, have)...), add, s.fresh)...), nil
}

// lost are routes out of the file that the kernel dropped by itself on the way.
func lost(want nodePlan, before, now []foundRoute) []foundRoute {
	there := map[string]bool{}
	for _, r := range now {
		there[r.key()] = true
	}
	gone := slices.DeleteFunc(slices.Clone(before), func(r foundRoute) bool { return there[r.key()] })
	remove, _ := diffRoutes(want, gone)
	return remove
}

func neighbourChanges(node string, added []neighbour, fresh map[string]bool) []provision.Change {
	var changes []provision.Change
	for _, n := range added {
		if !fresh[n.Device] {
			changes = append(changes, provision.Change{Verb: provision.Changed, Node: node,
				Object: "neighbour " + n.IP.String(), Detail: n.MAC + " on " + n.Device})
		}
	}
	return changes
}
