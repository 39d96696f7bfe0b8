package workload

import (
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/topologies/topo"
)

// Delete returns the set without the named objects, and what became of each.
// With a Deployment go its ReplicaSets and pods, with a Namespace all that is in
// it. A pod of a Deployment is replaced by a new one.
//
// Objects that there are not are said in an error that matches [ErrNotFound],
// unless ignoreNotFound; the set returned with it lacks all others.
func (s Set) Delete(t *topo.Topology, now time.Time, refs []manifest.Ref, ignoreNotFound bool) (Set, []Change, error) {
	next := s.clone()
	next.forget(now)
	var changes []Change
	var errs []error
	for _, ref := range refs {
		if ref.Namespace == "" && ref.Kind != "Namespace" {
			ref.Namespace = corev1.NamespaceDefault
		}
		found, err := next.remove(ref, now)
		switch {
		case err != nil:
			return s, nil, err
		case found:
			changes = append(changes, Change{Deleted, ref})
		case !ignoreNotFound && !gone(changes, ref):
			r := resourceOf(ref.Kind)
			errs = append(errs, fmt.Errorf("%s %q %w", r.grouped(r.plural), ref.Name, ErrNotFound))
		}
	}
	if err := next.settle(t, now); err != nil {
		return s, nil, err
	}
	return next, changes, errors.Join(errs...)
}

// gone says that an object went with its namespace in the same command.
func gone(changes []Change, ref manifest.Ref) bool {
	return slices.ContainsFunc(changes, func(c Change) bool { return c.Kind == "Namespace" && c.Name == ref.Namespace })
}

// remove takes one object out, and what cannot be without it.
func (s *Set) remove(ref manifest.Ref, now time.Time) (found bool, err error) {
	switch ref.Kind {
	case "Namespace":
		if slices.Contains(systemNamespaces, ref.Name) {
			return false, &Refusal{Ref: ref, Why: "this namespace may not be deleted"}
		}
		if !drop(&s.Namespaces, "", ref.Name) {
			return false, nil
		}
		s.Deployments = slices.DeleteFunc(s.Deployments, func(d appsv1.Deployment) bool { return d.Namespace == ref.Name })
		s.Services = slices.DeleteFunc(s.Services, func(v corev1.Service) bool { return v.Namespace == ref.Name })
		s.removePods(now, func(p *corev1.Pod) bool { return p.Namespace == ref.Name })
		return true, nil
	case "Deployment":
		return drop(&s.Deployments, ref.Namespace, ref.Name), nil
	case "ReplicaSet":
		// Its Deployment makes it anew, and the pods with it.
		found = drop(&s.ReplicaSets, ref.Namespace, ref.Name)
		s.removePods(now, func(p *corev1.Pod) bool {
			return found && p.Namespace == ref.Namespace && ownedBy(p.OwnerReferences, "ReplicaSet", ref.Name)
		})
		return found, nil
	case "Pod":
		found = find(s.Pods, ref.Namespace, ref.Name) >= 0
		s.removePods(now, func(p *corev1.Pod) bool { return p.Namespace == ref.Namespace && p.Name == ref.Name })
		return found, nil
	case "Service":
		if ref.Namespace == dnsNamespace && ref.Name == dnsName {
			return false, &Refusal{Ref: ref, Why: "this is the lab's own name server"}
		}
		return drop(&s.Services, ref.Namespace, ref.Name), nil
	}
	return false, &Refusal{Ref: ref, Why: "the lab has no objects of this kind"}
}

// drop removes one object from a list, and says whether it was there.
func drop[T any, P interface {
	*T
	object
}](list *[]T, namespace, name string) bool {
	i := find[T, P](*list, namespace, name)
	if i >= 0 {
		*list = slices.Delete(*list, i, i+1)
	}
	return i >= 0
}
