package manifest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// document reads one object, or the objects of a list.
func (f *file) document(n *yaml.Node, number int) {
	d := f.decoderFor(number)
	n = d.dealias(n)
	if n.Kind != yaml.MappingNode {
		d.wrongAt(position{n.Line, n.Column}, "", "is "+found(n)+", and an object is wanted", "start it with apiVersion: and kind:")
		return
	}
	kind := d.scalarOf(n, "kind")
	if kind != "List" && !slices.ContainsFunc(kinds, func(k struct{ kind, version string }) bool { return k.kind+"List" == kind }) {
		d.object(n)
		return
	}
	d.named = kind
	items := d.valueOf(n, "items")
	for key := range d.pairs(n, "") {
		switch key {
		case "apiVersion", "kind", "metadata", "items":
		default:
			d.wrongAt(d.marks[key].key, key, "there is no such field in a "+kind, meant(key, "the fields are", []string{"apiVersion", "kind", "metadata", "items"}))
		}
	}
	switch {
	case items == nil, items.Tag == "!!null":
	case items.Kind != yaml.SequenceNode:
		d.wrongAt(position{items.Line, items.Column}, "items", "is "+found(items)+", and a list of objects is wanted", "put - before each object")
	default:
		for _, item := range items.Content {
			one := f.decoderFor(number)
			item = one.dealias(item)
			if item.Kind != yaml.MappingNode {
				one.wrongAt(position{item.Line, item.Column}, "items", "an item is "+found(item)+", and an object is wanted", "start it with apiVersion: and kind:")
				continue
			}
			if v := one.scalarOf(item, "kind"); v == "" && kind != "List" {
				one.kind, one.version = strings.TrimSuffix(kind, "List"), d.scalarOf(n, "apiVersion")
			}
			one.object(item)
		}
	}
}

func (f *file) decoderFor(document int) *decoder {
	return &decoder{
		file: f, document: document,
		marks: map[string]mark{}, noted: map[string]bool{}, holdsNoted: map[string]bool{}, misspelt: map[string]bool{},
	}
}

// object reads one object of a kind that the lab honours.
func (d *decoder) object(n *yaml.Node) {
	d.marks[""] = mark{value: position{n.Line, n.Column}}
	if d.kind == "" {
		d.kind, d.version = d.scalarOf(n, "kind"), d.scalarOf(n, "apiVersion")
	}
	name := ""
	if meta := d.valueOf(n, "metadata"); meta != nil && meta.Kind == yaml.MappingNode {
		name = d.scalarOf(meta, "name")
	}
	if !d.knownKind(n) {
		return
	}
	d.named = d.kind
	if name != "" {
		d.named += " " + show(name)
	}
	switch d.kind {
	case "Deployment":
		var o appsv1.Deployment
		if r, ok := d.read(n, &o, func() { d.deployment(&o) }); ok {
			o.Namespace = r.Namespace
			d.file.objects.Deployments = append(d.file.objects.Deployments, o)
		}
	case "Pod":
		var o corev1.Pod
		if r, ok := d.read(n, &o, func() { d.pod(&o) }); ok {
			o.Namespace = r.Namespace
			d.file.objects.Pods = append(d.file.objects.Pods, o)
		}
	case "Service":
		var o corev1.Service
		if r, ok := d.read(n, &o, func() { d.service(&o) }); ok {
			o.Namespace = r.Namespace
			d.file.objects.Services = append(d.file.objects.Services, o)
		}
	case "Namespace":
		var o corev1.Namespace
		if _, ok := d.read(n, &o, func() { d.namespace(&o) }); ok {
			d.file.objects.Namespaces = append(d.file.objects.Namespaces, o)
		}
	}
}

// named is what all kinds have in common.
type named interface {
	GetNamespace() string
	GetName() string
}

// read decodes and checks one object, and says whether it is a new one with a name.
func (d *decoder) read(n *yaml.Node, object named, check func()) (Ref, bool) {
	d.value(n, reflect.ValueOf(object).Elem(), "")
	if d.exhausted || d.full() {
		return Ref{}, false
	}
	check()
	r := Ref{Kind: d.kind, Namespace: object.GetNamespace(), Name: object.GetName()}
	if r.Namespace == "" && d.kind != "Namespace" {
		r.Namespace = corev1.NamespaceDefault
	}
	if r.Name == "" {
		return r, false
	}
	if first := d.file.objects.Where(r, "metadata.name"); first != "" {
		d.wrong("metadata.name", "the object stands already at "+first, "keep one of the two")
		return r, false
	}
	d.file.objects.places[r] = placed{file: d.file.name, marks: d.marks}
	d.file.objects.Refs = append(d.file.objects.Refs, r)
	return r, true
}

// knownKind notes a mistake where the lab does not honour the object's kind.
func (d *decoder) knownKind(n *yaml.Node) bool {
	kindAt := d.placeOf(n, "kind")
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.kind
		if k.kind != d.kind {
			continue
		}
		switch d.version {
		case k.version:
			return true
		case "":
			d.wrongAt(position{n.Line, n.Column}, "apiVersion", "is missing", "write apiVersion: "+k.version)
		default:
			d.wrongAt(d.placeOf(n, "apiVersion"), "apiVersion", fmt.Sprintf("the lab does not honour %s of %s", d.kind, show(d.version)), "write apiVersion: "+k.version)
		}
		return false
	}
	switch near := nearest(d.kind, names); {
	case d.kind == "":
		d.wrongAt(kindAt, "kind", "is missing", honouredKinds())
	case near != "":
		d.wrongAt(kindAt, "kind", "there is no kind "+show(d.kind), "did you mean "+near+"?")
	default:
		d.wrongAt(kindAt, "kind", "the lab does not honour "+show(d.kind), "take it out: "+honouredKinds())
	}
	return false
}

// valueOf is the value of a key, nil where there is none.
func (d *decoder) valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return d.dealias(n.Content[i+1])
		}
	}
	return nil
}

func (d *decoder) scalarOf(n *yaml.Node, key string) string {
	if v := d.valueOf(n, key); v != nil && v.Kind == yaml.ScalarNode && v.Tag != "!!null" {
		return v.Value
	}
	return ""
}

// placeOf is where the value of a key stands; the mapping itself where there is none.
func (d *decoder) placeOf(n *yaml.Node, key string) position {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return position{n.Content[i+1].Line, n.Content[i+1].Column}
		}
	}
	return position{n.Line, n.Column}
}

// dealias follows an alias to what it stands for.
func (d *decoder) dealias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}
