package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lang"
)

// The scopes of an [api.Frontend], and the state of a backend that takes new connections.
const (
	scopeExternal = "external"
	scopeInternal = "internal"
	stateActive   = "active"
	// stateTerminating takes new connections where there is no active one.
	stateTerminating = "terminating"
)

// frontend is one that a node's maps should hold.
type frontend struct {
	address  netip.AddrPort
	protocol string
	scope    string
	service  api.Service
	backends []backend
}

func (f frontend) String() string {
	s := fmt.Sprintf("%s/%s", f.address, f.protocol)
	if f.scope == scopeInternal {
		s += "/i"
	}
	return s
}

func (f frontend) is(have api.Frontend) bool {
	return f.address == have.Address && f.protocol == have.Protocol && f.scope == have.Scope
}

// frontends are all that the maps of a node should hold: for each port of each
// service its ClusterIP, its external addresses, and its NodePort on 0.0.0.0 and
// on every address of the node. Where the two traffic policies differ all but
// the ClusterIP are there twice, once for callers outside the cluster.
func (s *services) frontends(node api.Node) []frontend {
	var found []frontend
	if !s.cluster.KubeProxyReplacement {
		return nil
	}
	for _, service := range s.cluster.Services {
		if !service.ClusterIP.IsValid() {
			continue
		}
		for i, port := range service.Ports {
			add := func(a netip.Addr, number uint16, scope string, local bool) {
				here := &node.Name
				if !local {
					here = nil
				}
				found = append(found, frontend{netip.AddrPortFrom(a, number), cmp.Or(port.Protocol, "TCP"), scope, service, s.backends(service, i, here)})
			}
			add(service.ClusterIP, port.Port, scopeExternal, service.InternalLocal)
			outside := func(a netip.Addr, number uint16) {
				add(a, number, scopeExternal, service.ExternalLocal)
				if service.ExternalLocal != service.InternalLocal {
					add(a, number, scopeInternal, service.InternalLocal)
				}
			}
			for _, a := range service.ExternalIPs {
				outside(a, port.Port)
			}
			if service.Type == api.NodePort && port.NodePort != 0 {
				for _, a := range append([]netip.Addr{netip.IPv4Unspecified()}, node.Addresses...) {
					outside(a, port.NodePort)
				}
			}
		}
	}
	return found
}

// compareMaps finds how each node's maps differ from what they should hold, for
// the checks whose requests go by them too.
func (s *services) compareMaps() {
	for _, node := range s.cluster.Nodes {
		table, known := s.tablesOf[node.Name]
		if !known {
			continue
		}
		by := map[string][]Cause{}
		wanted := s.frontends(node)
		for _, want := range wanted {
			key := want.service.Key()
			by[key] = mergeCauses(by[key], s.frontendCauses(node.Name, want, table))
		}
		for _, have := range table.Frontends {
			if !slices.ContainsFunc(wanted, func(f frontend) bool { return f.is(have) }) {
				by[""] = append(by[""], Cause{Node: node.Name, Cure: "labctl up",
					Reason: s.say.Sprintf("its maps have the frontend %s/%s, which is no service's", have.Address, have.Protocol)})
			}
		}
		s.differences[node.Name] = by
	}
}

// mergeCauses adds causes, of which one fault of a service on several frontends is one.
func mergeCauses(all, more []Cause) []Cause {
	for _, c := range more {
		at := slices.IndexFunc(all, func(have Cause) bool { return have.fault() == c.fault() })
		if at < 0 {
			all = append(all, c)
		} else if c.Effect != "" && !strings.Contains(all[at].Effect, strings.TrimPrefix(c.Effect, "for ")) {
			all[at].Effect += ", " + strings.TrimPrefix(c.Effect, "for ")
		}
	}
	return all
}

// frontendCauses say how one frontend of a node differs from what it should be.
func (s *services) frontendCauses(node string, want frontend, table api.ServiceTable) []Cause {
	name := shortKey(want.service.Key())
	at := slices.IndexFunc(table.Frontends, want.is)
	if at < 0 {
		return []Cause{{Node: node, Reason: s.say.Sprintf("its maps lack the frontend %s of service %s", want, name), Cure: "labctl up"}}
	}
	have := table.Frontends[at]
	var causes []Cause
	add := func(reason string) {
		causes = append(causes, Cause{Node: node, Reason: reason, Cure: "labctl up", Effect: s.say.Sprintf("for %s", want)})
	}
	for _, b := range want.backends {
		if !b.doubtful && !slices.ContainsFunc(usable(have), func(u api.FrontendBackend) bool { return u.Address == b.address }) {
			add(s.say.Sprintf("its maps lack the backend %s of service %s", b, name))
		}
	}
	for _, u := range usable(have) {
		switch {
		case u.Missing:
			add(s.say.Sprintf("its maps lead service %s to backend %d, which is not in them", name, u.ID))
		case !slices.ContainsFunc(want.backends, func(b backend) bool { return b.address == u.Address }) && (u.State == stateActive || len(want.backends) > 0):
			add(s.say.Sprintf("its maps have %s as a backend of service %s, and %s", u.Address, name, s.whyNot(u.Address, want)))
		}
	}
	return causes
}

// usable are the backends of a frontend that take new connections.
func usable(f api.Frontend) []api.FrontendBackend { return f.Backends[:min(f.Usable, len(f.Backends))] }

// whyNot says why an address should not be a backend of a frontend.
func (s *services) whyNot(a netip.AddrPort, want frontend) string {
	for _, p := range s.cluster.Pods {
		if p.Address != a.Addr() {
			continue
		}
		if causes := s.podCauses(p); len(causes) > 0 {
			return causes[0].Reason
		}
		if slices.ContainsFunc(want.service.Backends, func(b api.Backend) bool { return b.Pod == p.Key() }) {
			return s.say.Sprintf("pod %s should not serve there", shortKey(p.Key()))
		}
		return s.say.Sprintf("pod %s does not belong to it", shortKey(p.Key()))
	}
	return s.say.Sprintf("no pod has that address")
}

// judgeMaps compares each node's maps with what they should hold: a result for
// each service, and one for all that is nobody's.
func (s *services) judgeMaps() []Result {
	var results []Result
	for _, node := range s.cluster.Nodes {
		wanted := s.frontends(node)
		table := s.tablesOf[node.Name]
		for _, service := range s.cluster.Services {
			mine := slices.DeleteFunc(slices.Clone(wanted), func(f frontend) bool { return f.service.Key() != service.Key() })
			if len(mine) == 0 {
				continue
			}
			r := Result{Group: Maps, Node: node.Name, Name: fmt.Sprintf("%s: %s", node.Name, shortKey(service.Key())), Expected: frontendsText(s.say, mine)}
			results = append(results, s.judgeMap(r, service.Key(), seenFrontends(s.say, mine, table)))
		}
		r := Result{Group: Maps, Node: node.Name, Name: node.Name, Expected: plural(s.say, len(wanted), "1 frontend", "%d frontends")}
		results = append(results, s.judgeMap(r, "", plural(s.say, len(table.Frontends), "1 frontend", "%d frontends")))
	}
	return results
}

func (s *services) judgeMap(r Result, service, seen string) Result {
	by, known := s.differences[r.Node]
	if !known {
		return s.unseen(r, r.Node)
	}
	r.Outcome, r.Seen, r.Causes = OK, seen, by[service]
	if len(r.Causes) > 0 {
		r.Outcome = Failed
	}
	return r
}

// frontendsText tells frontends with the same backends together.
func frontendsText(say lang.Printer, frontends []frontend) string {
	var groups []string
	for i := 0; i < len(frontends); {
		to := backendsText(say, frontends[i])
		var names []string
		for ; i < len(frontends) && backendsText(say, frontends[i]) == to; i++ {
			names = append(names, frontends[i].String())
		}
		groups = append(groups, strings.Join(names, " ")+" → "+to)
	}
	return strings.Join(groups, "; ")
}

func backendsText(say lang.Printer, f frontend) string {
	var to []string
	for _, b := range f.backends {
		to = append(to, b.address.String())
	}
	return orNone(say, to)
}

func orNone(say lang.Printer, texts []string) string {
	if len(texts) == 0 {
		return say.Sprintf("no backend")
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// seenFrontends are the frontends as the maps have them, in the same words.
func seenFrontends(say lang.Printer, wanted []frontend, table api.ServiceTable) string {
	var seen []frontend
	for _, want := range wanted {
		at := slices.IndexFunc(table.Frontends, want.is)
		if at < 0 {
			continue
		}
		want.backends = nil
		for _, u := range usable(table.Frontends[at]) {
			want.backends = append(want.backends, backend{address: u.Address})
		}
		seen = append(seen, want)
	}
	if len(seen) == 0 {
		return say.Sprintf("no frontend")
	}
	return frontendsText(say, seen)
}
