// Package manifest reads Kubernetes manifests for a lab: strictly, every mistake
// at once and with its line, and nothing that the lab does not honour is passed
// over in silence.
package manifest

import (
	"fmt"
	"io"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Objects are what manifests ask for, each kind in the order of the files. They
// are as written: nothing is filled in but the namespace "default".
type Objects struct {
	Namespaces  []corev1.Namespace
	Deployments []appsv1.Deployment
	Pods        []corev1.Pod
	Services    []corev1.Service
	// Refs names all of them in the order of the files.
	Refs []Ref

	places map[Ref]placed
}

// placed is where an object stands, field by field.
type placed struct {
	file  string
	marks map[string]mark
}

// Ref names one object.
type Ref struct {
	// Kind is as in a manifest: Deployment.
	Kind string `json:"kind"`
	// Namespace is empty for a kind that has none.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String is the kind and the name, with the namespace unless it is default.
func (r Ref) String() string {
	if r.Namespace == "" || r.Namespace == corev1.NamespaceDefault {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Where is the place of an object's field as file:line, for messages; of what is
// nearest above it where the field is not written; empty for an object that did
// not come from [Decode].
func (o Objects) Where(r Ref, field string) string {
	at, ok := o.places[r]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s:%d", at.file, nearestMark(at.marks, field).value.line)
}

// Join puts the objects of several files together. An object that stands in two
// of them is a mistake: which one would count?
func Join(files ...Objects) (Objects, error) {
	all := Objects{places: map[Ref]placed{}}
	var mistakes Errors
	for _, f := range files {
		for _, r := range f.Refs {
			if first := all.Where(r, ""); first != "" {
				at := f.places[r]
				where := nearestMark(at.marks, "").value
				mistakes = append(mistakes, &Mistake{
					File: at.file, Line: where.line, Column: where.column, Object: r.String(),
					Wrong: "stands already at " + first, Cure: "keep one of the two",
				})
			}
			all.places[r] = f.places[r]
		}
		all.Namespaces = append(all.Namespaces, f.Namespaces...)
		all.Deployments = append(all.Deployments, f.Deployments...)
		all.Pods = append(all.Pods, f.Pods...)
		all.Services = append(all.Services, f.Services...)
		all.Refs = append(all.Refs, f.Refs...)
	}
	if len(mistakes) > 0 {
		return Objects{}, mistakes
	}
	return all, nil
}

// Decode reads a manifest: YAML or JSON, of any number of documents; lists are
// unpacked, empty documents passed over. The name is what messages call the file.
//
// An [Errors] holds every mistake of the file; any other error is one of reading.
// The notices, by line, say which fields change nothing in a lab.
func Decode(name string, r io.Reader) (Objects, []Notice, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return Objects{}, nil, fmt.Errorf("read %s: %w", name, err)
	}
	f := &file{name: name, objects: Objects{places: map[Ref]placed{}}}
	for i, n := range f.parse(data) {
		if n != nil {
			f.document(n, i+1)
		}
	}
	slices.SortStableFunc(f.notices, func(a, b Notice) int {
		return comparePositions(a.Line, a.Column, b.Line, b.Column)
	})
	if len(f.mistakes) > 0 {
		return Objects{}, f.notices, f.mistakes.sorted()
	}
	return f.objects, f.notices, nil
}

// file is a manifest under examination.
type file struct {
	name     string
	lines    int
	objects  Objects
	mistakes Errors
	notices  []Notice
}

// full says that there are so many mistakes that more would help nobody.
func (f *file) full() bool { return len(f.mistakes) >= maxMistakes }

// kinds are the kinds that a lab honours, with their versions.
var kinds = []struct{ kind, version string }{
	{"Deployment", "apps/v1"}, {"Pod", "v1"}, {"Service", "v1"}, {"Namespace", "v1"},
}

func honouredKinds() string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.kind + " (" + k.version + ")"
	}
	return "the lab honours " + strings.Join(names, ", ")
}
