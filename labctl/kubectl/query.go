package kubectl

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/native-routing/labctl/labctl/workload"
)

// Query is what a user asks for, in kubectl's words.
type Query struct {
	// Args are TYPE[,TYPE…] [NAME…], each name of each type, or TYPE/NAME….
	Args          []string
	Namespace     string
	AllNamespaces bool
	// Labels and Fields are selectors; empty ones select all.
	Labels, Fields string
}

// Request is a query that makes sense.
type Request struct {
	namespace string
	all       bool
	asked     []asked
	labels    labels.Selector
	fields    fields.Selector
	// one object was asked for by its name.
	single bool
}

// asked is a kind, and the name of one object; empty for all.
type asked struct {
	kind kind
	name string
}

// Compile understands a query. Its errors are of whoever wrote it.
func (q Query) Compile() (Request, error) {
	r := Request{namespace: q.Namespace, all: q.AllNamespaces, labels: labels.Everything(), fields: fields.Everything()}
	var err error
	if r.asked, err = parseArgs(q.Args); err != nil {
		return r, err
	}
	r.single = len(r.asked) == 1 && r.asked[0].name != ""
	if q.Labels != "" {
		if r.labels, err = labels.Parse(q.Labels); err != nil {
			return r, fmt.Errorf("-l %s: %w", q.Labels, err)
		}
	}
	if q.Fields != "" {
		if r.fields, err = fields.ParseSelector(q.Fields); err != nil {
			return r, fmt.Errorf("--field-selector %s: %w", q.Fields, err)
		}
	}
	return r, r.check(q.Labels != "" || q.Fields != "")
}

// check refuses what does not go together.
func (r Request) check(selects bool) error {
	for _, a := range r.asked {
		for _, f := range r.fields.Requirements() {
			if f.Field != fieldName && (f.Field != fieldNode || a.kind.plural != "pods") {
				return fmt.Errorf("--field-selector: %s of %s cannot be selected by; there are %s, and %s of pods", f.Field, a.kind.plural, fieldName, fieldNode)
			}
		}
		switch {
		case a.name == "":
		case selects:
			return errors.New("a name cannot be given beside a selector; take out one of the two")
		case r.all && !a.kind.global:
			return errors.New("an object cannot be asked for by its name across all namespaces; name its namespace with -n")
		}
	}
	return nil
}

// parseArgs understands TYPE[,TYPE…] [NAME…] and TYPE/NAME….
func parseArgs(args []string) ([]asked, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("say which objects: %s", offer())
	}
	if strings.Contains(args[0], "/") {
		return parsePairs(args)
	}
	var list []asked
	for word := range strings.SplitSeq(args[0], ",") {
		found := kindsOf(word)
		if len(found) == 0 {
			return nil, unknownType(word)
		}
		for _, k := range found {
			if !slices.ContainsFunc(list, func(a asked) bool { return a.kind.plural == k.plural }) {
				list = append(list, asked{kind: k})
			}
		}
	}
	if len(args) == 1 {
		return list, nil
	}
	var named []asked
	for _, a := range list {
		for _, name := range args[1:] {
			if strings.Contains(name, "/") {
				return nil, fmt.Errorf("%s: write TYPE NAME, or TYPE/NAME for each", name)
			}
			named = append(named, asked{a.kind, name})
		}
	}
	return named, nil
}

func parsePairs(args []string) ([]asked, error) {
	var list []asked
	for _, arg := range args {
		word, name, ok := strings.Cut(arg, "/")
		if !ok || name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("%s: write TYPE/NAME for each", arg)
		}
		found := kindsOf(word)
		if len(found) != 1 {
			return nil, unknownType(word)
		}
		list = append(list, asked{found[0], name})
	}
	return list, nil
}

func unknownType(word string) error {
	return fmt.Errorf("the lab has no type %q; %s", word, offer())
}

// AsksAgents says whether the answer depends on what agents say.
func (r Request) AsksAgents() bool {
	return slices.ContainsFunc(r.asked, func(a asked) bool { return !a.kind.static })
}

// The fields by which objects can be selected.
const (
	fieldName = "metadata.name"
	fieldNode = "spec.nodeName"
)

// Answer is what was found, in the order of the question.
type Answer struct {
	request Request
	groups  []group
}

// group is what was found of one kind.
type group struct {
	kind    kind
	objects []metav1.Object
}

// Find answers a request. The error joins one for each name that there is not;
// each matches [workload.ErrNotFound], and what was found is in the answer all
// the same.
func (r Request) Find(o Objects) (Answer, error) {
	answer := Answer{request: r}
	var errs []error
	for _, a := range r.asked {
		found := slices.DeleteFunc(a.kind.list(o), func(m metav1.Object) bool { return !r.selects(a, m) })
		if a.name != "" && len(found) == 0 {
			errs = append(errs, fmt.Errorf("%s %q %w", a.kind.grouped(a.kind.plural), a.name, workload.ErrNotFound))
			continue
		}
		if last := len(answer.groups) - 1; last >= 0 && answer.groups[last].kind.plural == a.kind.plural {
			answer.groups[last].objects = append(answer.groups[last].objects, found...)
			continue
		}
		answer.groups = append(answer.groups, group{a.kind, found})
	}
	return answer, errors.Join(errs...)
}

func (r Request) selects(a asked, m metav1.Object) bool {
	if !a.kind.global && !r.all && m.GetNamespace() != r.namespace {
		return false
	}
	if a.name != "" && m.GetName() != a.name {
		return false
	}
	set := fields.Set{fieldName: m.GetName()}
	if p, ok := m.(*corev1.Pod); ok {
		set[fieldNode] = p.Spec.NodeName
	}
	return r.labels.Matches(labels.Set(m.GetLabels())) && r.fields.Matches(set)
}

// Empty says that nothing was found.
func (a Answer) Empty() bool {
	return !slices.ContainsFunc(a.groups, func(g group) bool { return len(g.objects) > 0 })
}

// Nothing is what kubectl says where nothing was found.
func (a Answer) Nothing() string {
	global := slices.ContainsFunc(a.request.asked, func(k asked) bool { return k.kind.global })
	if a.request.all || global {
		return "No resources found"
	}
	return "No resources found in " + a.request.namespace + " namespace."
}

// Names are the names of all that was found.
func (a Answer) Names() []string {
	var names []string
	for _, g := range a.groups {
		for _, o := range g.objects {
			names = append(names, o.GetName())
		}
	}
	return names
}
