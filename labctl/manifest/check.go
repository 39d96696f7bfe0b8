package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
)

// maxReplicas of a Deployment: more than the addresses of any lab, and few
// enough to count them out.
const maxReplicas = 1000

// The annotations that a lab honours.
const (
	// AnnotationAlgorithm is Cilium's, on a Service: random or maglev.
	AnnotationAlgorithm = "service.cilium.io/lb-algorithm"
	// AnnotationBackendState is labctl's, on a Pod: active, quarantined or maintenance.
	AnnotationBackendState = "labctl.native-routing.dev/backend-state"
)

// missing notes that a field is not there, unless a mistake says already why.
func (d *decoder) missing(parent, name, cure string) {
	if !d.misspelt[parent] && !d.noted[parent] && !d.holdsNoted[key(parent, name)] {
		d.wrongAt(nearestMark(d.marks, parent).value, key(parent, name), "is missing", cure)
	}
}

// flawed notes what Kubernetes' own validation says of a value.
func (d *decoder) flawed(p, value string, says []string) {
	if len(says) > 0 && !d.holdsNoted[p] {
		// The examples are worth keeping; who wants the expression finds it upstream.
		cure, _, _ := strings.Cut(says[0], ", regex used")
		if strings.Count(cure, "(") > strings.Count(cure, ")") {
			cure = strings.TrimRight(cure, ", ") + ")"
		}
		d.wrong(p, show(value)+" is not allowed", cure)
	}
}

// oneOf notes a value that is none of those; empty is for the default.
func (d *decoder) oneOf(p, value string, values ...string) {
	if value != "" && !slices.Contains(values, value) {
		d.wrong(p, show(value)+" is not known here", meant(value, "write one of", values))
	}
}

// atLeast notes a number that is too small, if the file has the field.
func (d *decoder) atLeast(p string, value, least int64) {
	m, written := d.marks[p]
	if written && m.value != (position{}) && value < least && !d.holdsNoted[p] {
		d.wrong(p, fmt.Sprintf("%d is not allowed", value), fmt.Sprintf("write %d or more", least))
	}
}

func (d *decoder) metadata(p string, m metav1.ObjectMeta, validName func(string) []string) {
	if m.Name == "" {
		d.missing(p, "name", "add it")
	} else {
		d.flawed(key(p, "name"), m.Name, validName(m.Name))
	}
	if m.Namespace != "" {
		d.flawed(key(p, "namespace"), m.Namespace, validation.IsDNS1123Label(m.Namespace))
	}
	d.labels(key(p, "labels"), m.Labels)
	for _, name := range slices.Sorted(maps.Keys(m.Annotations)) {
		at := key(key(p, "annotations"), name)
		d.flawed(at, name, validation.IsQualifiedName(strings.ToLower(name)))
	}
}

func (d *decoder) labels(p string, set map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(set)) {
		d.flawed(key(p, name), name, validation.IsQualifiedName(name))
		d.flawed(key(p, name), set[name], validation.IsValidLabelValue(set[name]))
	}
}

// selector notes what makes a selector useless, and returns nil for one that is.
func (d *decoder) selector(p string, s *metav1.LabelSelector) labels.Selector {
	if s == nil || d.holdsNoted[p] {
		return nil
	}
	d.labels(key(p, "matchLabels"), s.MatchLabels)
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		d.wrong(key(p, "matchExpressions"), printable(err.Error()), "the operators are In and NotIn with values, Exists and DoesNotExist without")
		return nil
	}
	return selector
}

func (d *decoder) deployment(o *appsv1.Deployment) {
	d.metadata("metadata", o.ObjectMeta, validation.IsDNS1123Subdomain)
	if _, ok := d.marks["spec"]; !ok {
		d.missing("", "spec", "add it, with selector and template")
		return
	}
	if r := o.Spec.Replicas; r != nil {
		d.atLeast("spec.replicas", int64(*r), 0)
		if *r > maxReplicas {
			d.wrong("spec.replicas", fmt.Sprintf("%d are more than a lab can hold", *r), fmt.Sprintf("write %d or less", maxReplicas))
		}
	}
	template := o.Spec.Template
	d.labels("spec.template.metadata.labels", template.Labels)
	d.backendState("spec.template.metadata.annotations", template.Annotations)
	selector := d.selector("spec.selector", o.Spec.Selector)
	switch {
	case o.Spec.Selector == nil:
		d.missing("spec", "selector", "add it, with matchLabels as in the template's labels")
	case selector == nil:
	case selector.Empty():
		if !d.holdsNoted["spec.selector"] {
			d.wrong("spec.selector", "it selects nothing in particular", "add matchLabels as in the template's labels")
		}
	case !selector.Matches(labels.Set(template.Labels)) && !d.holdsNoted["spec.template.metadata"] && !d.misspelt["spec.template"]:
		d.wrong("spec.selector", fmt.Sprintf("%s does not match the template's labels %s", show(selector.String()), show(labels.FormatLabels(template.Labels))),
			"write the same labels in selector.matchLabels and template.metadata.labels")
	}
	if _, ok := d.marks["spec.template"]; !ok {
		d.missing("spec", "template", "add it, with metadata.labels and spec.containers")
		return
	}
	d.podSpec("spec.template.spec", template.Spec)
	if p := template.Spec.RestartPolicy; p != "" && p != corev1.RestartPolicyAlways && !d.holdsNoted["spec.template.spec.restartPolicy"] {
		d.wrong("spec.template.spec.restartPolicy", show(string(p))+" is not allowed in a Deployment", "write Always, or use a Pod")
	}
}

func (d *decoder) pod(o *corev1.Pod) {
	d.metadata("metadata", o.ObjectMeta, validation.IsDNS1123Subdomain)
	d.backendState("metadata.annotations", o.Annotations)
	d.podSpec("spec", o.Spec)
}

func (d *decoder) backendState(p string, annotations map[string]string) {
	if state, ok := annotations[AnnotationBackendState]; ok {
		d.oneOf(key(p, AnnotationBackendState), state, "active", "quarantined", "maintenance")
	}
}

func (d *decoder) namespace(o *corev1.Namespace) {
	d.metadata("metadata", o.ObjectMeta, validation.IsDNS1123Label)
	if o.Namespace != "" {
		d.wrong("metadata.namespace", "a Namespace is in none", takeOut)
	}
}
