package kubectl

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kind is one type of object that can be listed.
type kind struct {
	plural, singular string
	group, version   string
	short            []string
	// global kinds are in no namespace.
	global bool
	// static kinds are complete without the agents' word.
	static  bool
	columns []column
	list    func(Objects) []metav1.Object
	// row has a cell for each column, the wide ones included.
	row func(metav1.Object, age) []string
}

// column is one of a table; a wide one is there only with -o wide.
type column struct {
	name string
	wide bool
}

// columns makes columns of names; a + before a name makes it a wide one.
func columns(names ...string) []column {
	var list []column
	for _, name := range names {
		bare, wide := strings.CutPrefix(name, "+")
		list = append(list, column{bare, wide})
	}
	return list
}

// kinds are all that can be listed, those of the word all first, in the
// order of kubectl's category.
var kinds = []kind{
	{
		plural: "pods", singular: "pod", version: "v1", short: []string{"po"},
		columns: columns("NAME", "READY", "STATUS", "RESTARTS", "AGE", "+IP", "+NODE", "+NOMINATED NODE", "+READINESS GATES"),
		list:    func(o Objects) []metav1.Object { return asList(o.Pods) }, row: podRow,
	},
	{
		plural: "services", singular: "service", version: "v1", short: []string{"svc"}, static: true,
		columns: columns("NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "+SELECTOR"),
		list:    func(o Objects) []metav1.Object { return asList(o.Services) }, row: serviceRow,
	},
	{
		plural: "deployments", singular: "deployment", group: "apps", version: "v1", short: []string{"deploy"},
		columns: columns("NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "+CONTAINERS", "+IMAGES", "+SELECTOR"),
		list:    func(o Objects) []metav1.Object { return asList(o.Deployments) }, row: deploymentRow,
	},
	{
		plural: "replicasets", singular: "replicaset", group: "apps", version: "v1", short: []string{"rs"},
		columns: columns("NAME", "DESIRED", "CURRENT", "READY", "AGE", "+CONTAINERS", "+IMAGES", "+SELECTOR"),
		list:    func(o Objects) []metav1.Object { return asList(o.ReplicaSets) }, row: replicaSetRow,
	},
	{
		plural: "endpoints", singular: "endpoints", version: "v1", short: []string{"ep"},
		columns: columns("NAME", "ENDPOINTS", "AGE"),
		list:    func(o Objects) []metav1.Object { return asList(o.Endpoints) }, row: endpointsRow,
	},
	{
		plural: "endpointslices", singular: "endpointslice", group: "discovery.k8s.io", version: "v1",
		columns: columns("NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"),
		list:    func(o Objects) []metav1.Object { return asList(o.EndpointSlices) }, row: sliceRow,
	},
	{
		plural: "nodes", singular: "node", version: "v1", short: []string{"no"}, global: true,
		columns: columns("NAME", "STATUS", "ROLES", "AGE", "VERSION", "+INTERNAL-IP", "+EXTERNAL-IP", "+OS-IMAGE", "+KERNEL-VERSION", "+CONTAINER-RUNTIME"),
		list:    func(o Objects) []metav1.Object { return asList(o.Nodes) }, row: nodeRow,
	},
	{
		plural: "namespaces", singular: "namespace", version: "v1", short: []string{"ns"}, global: true, static: true,
		columns: columns("NAME", "STATUS", "AGE"),
		list:    func(o Objects) []metav1.Object { return asList(o.Namespaces) }, row: namespaceRow,
	},
	{
		plural: "ciliumendpoints", singular: "ciliumendpoint", group: "cilium.io", version: "v2", short: []string{"cep", "ciliumep"},
		columns: columns("NAME", "SECURITY IDENTITY", "+INGRESS ENFORCEMENT", "+EGRESS ENFORCEMENT", "ENDPOINT STATE", "IPV4", "IPV6"),
		list:    func(o Objects) []metav1.Object { return asList(o.CiliumEndpoints) }, row: ciliumEndpointRow,
	},
}

// inAll is how many of the first kinds the word all stands for.
const inAll = 4

// kindsOf understands a word for kinds: kubectl's names of one, or all.
func kindsOf(word string) []kind {
	word = strings.ToLower(word)
	if word == "all" {
		return kinds[:inAll]
	}
	for _, k := range kinds {
		if slices.Contains(k.names(), word) {
			return []kind{k}
		}
	}
	return nil
}

// names are all the ways to name a kind: deployment, deployments.apps, deploy.
func (k kind) names() []string {
	names := slices.Clone(k.short)
	for _, name := range []string{k.plural, k.singular} {
		names = append(names, name, name+"."+k.version+"."+k.group)
		if k.group != "" {
			names = append(names, name+"."+k.group)
		}
	}
	return names
}

// grouped is a name of the kind with its group: deployment.apps.
func (k kind) grouped(name string) string {
	if k.group == "" {
		return name
	}
	return name + "." + k.group
}

// Types are the words for what can be listed: the plural of each kind, and its
// short names.
func Types() []string {
	var words []string
	for _, k := range kinds {
		words = append(words, k.plural)
		words = append(words, k.short...)
	}
	return append(words, "all")
}

// offer is the list of types for a message.
func offer() string {
	var words []string
	for _, k := range kinds {
		text := k.plural
		if len(k.short) > 0 {
			text += " (" + k.short[0] + ")"
		}
		words = append(words, text)
	}
	return "there are " + strings.Join(words, ", ") + " and all"
}
