package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxExpanded bounds how many values of an object may come from aliases.
const maxExpanded = 20_000

// decoder fills one of Kubernetes' types from a YAML tree by reflection; the
// json tags are the manifest's keys, and the rules say which of them count. It
// goes on after a mistake and leaves the zero value there. Unlike Kubernetes'
// own decoders it knows where everything stands, and finds all mistakes at once.
type decoder struct {
	file     *file
	document int
	kind     string
	version  string
	named    string // the object, as messages call it
	marks    map[string]mark
	// noted are the fields with a mistake, holdsNoted also all that hold one,
	// misspelt those that have an unknown key.
	noted, holdsNoted, misspelt map[string]bool

	unheeded  int // fields of no effect, one within the other
	following int // aliases, one within the other
	expanded  int // values that came from aliases
	exhausted bool
}

func (d *decoder) full() bool { return d.file.full() }

// wrong notes a mistake in the value of a field.
func (d *decoder) wrong(p, what, cure string) {
	d.wrongAt(nearestMark(d.marks, p).value, p, what, cure)
}

// wrongKey notes a mistake in the key of a field.
func (d *decoder) wrongKey(p, what, cure string) {
	at := nearestMark(d.marks, p)
	if at.key == (position{}) {
		at.key = at.value
	}
	d.wrongAt(at.key, p, what, cure)
}

func (d *decoder) wrongAt(where position, p, what, cure string) {
	if d.full() {
		return
	}
	d.file.mistakes = append(d.file.mistakes, &Mistake{
		File: d.file.name, Document: d.document, Line: max(where.line, 1), Column: max(where.column, 1),
		Object: d.named, Field: p, Wrong: what, Cure: cure,
	})
	d.noted[p] = true
	for ; p != ""; p = above(p) {
		d.holdsNoted[p] = true
	}
	d.holdsNoted[""] = true
}

func (d *decoder) notice(p, text string) {
	at := nearestMark(d.marks, p).key
	if len(d.file.notices) >= maxMistakes {
		return
	}
	d.file.notices = append(d.file.notices, Notice{
		File: d.file.name, Document: d.document, Line: max(at.line, 1), Column: max(at.column, 1),
		Object: d.named, Field: p, Text: text,
	})
}

// key is the path of a key below p.
func key(p, name string) string {
	for _, r := range name {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_') {
			return p + "[" + show(name) + "]"
		}
	}
	if p == "" {
		return name
	}
	return p + "." + name
}

func index(p string, i int) string { return p + "[" + strconv.Itoa(i) + "]" }

// value decodes n into v. A null leaves the zero value, as Kubernetes has it.
func (d *decoder) value(n *yaml.Node, v reflect.Value, p string) {
	if d.full() || d.exhausted {
		return
	}
	m := d.marks[p]
	m.value = position{n.Line, n.Column}
	d.marks[p] = m
	if n.Kind == yaml.AliasNode {
		d.following++
		defer func() { d.following-- }()
		n = n.Alias
	}
	if d.following > 0 && !d.affordable(p) {
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	d.content(n, v, p)
}

// affordable counts a value that an alias repeats.
func (d *decoder) affordable(p string) bool {
	d.expanded++
	if d.expanded > maxExpanded && !d.exhausted {
		d.wrong(p, fmt.Sprintf("aliases make the object grow by more than %d values", maxExpanded), "write less, or write it out")
		d.exhausted = true
	}
	return !d.exhausted
}

func (d *decoder) content(n *yaml.Node, v reflect.Value, p string) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		d.content(n, v.Elem(), p)
		return
	}
	if own, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		d.custom(n, own, p)
		return
	}
	switch {
	case v.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		d.fields(n, v, p)
	case v.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		v.Set(reflect.MakeMap(v.Type()))
		for name, value := range d.pairs(n, p) {
			item := reflect.New(v.Type().Elem()).Elem()
			d.value(value, item, key(p, name))
			v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), item)
		}
	case v.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			if d.full() || d.exhausted {
				return
			}
			one := reflect.New(v.Type().Elem()).Elem()
			d.value(item, one, index(p, i))
			v.Set(reflect.Append(v, one))
		}
	case n.Kind == yaml.ScalarNode && d.scalar(n, v):
	default:
		d.wrong(p, "is "+found(n)+", and "+wanted(v.Type())+" is wanted", scalarCure(n, v.Type()))
	}
}

// truths are what YAML 1.1, and so Kubernetes, takes for a truth value.
var truths = map[string]bool{
	"yes": true, "Yes": true, "YES": true, "on": true, "On": true, "ON": true,
	"no": false, "No": false, "NO": false, "off": false, "Off": false, "OFF": false,
}

// scalar sets v from a plain value, and says whether it was of that type.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value) bool {
	truth, isTruth := truths[n.Value]
	isTruth = isTruth && n.Style == 0
	switch v.Kind() {
	case reflect.String:
		if isTruth || n.Tag != "!!str" && n.Tag != "!!timestamp" {
			return false
		}
		v.SetString(n.Value)
		return true
	case reflect.Bool:
		var b bool
		switch {
		case isTruth:
			b = truth
		case n.Tag != "!!bool" || n.Decode(&b) != nil:
			return false
		}
		v.SetBool(b)
		return true
	case reflect.Int, reflect.Int32, reflect.Int64:
		var i int64
		if n.Tag != "!!int" || n.Decode(&i) != nil || v.OverflowInt(i) {
			return false
		}
		v.SetInt(i)
		return true
	}
	return false
}

// custom decodes into a type that reads JSON by itself: a quantity, a time, a
// port that is a number or a name.
func (d *decoder) custom(n *yaml.Node, v json.Unmarshaler, p string) {
	if _, raw := v.(*metav1.FieldsV1); raw {
		return // whatever it holds: managedFields mean nothing in a manifest
	}
	if n.Kind != yaml.ScalarNode {
		d.wrong(p, "is "+found(n)+", and a plain value is wanted", "write "+wanted(reflect.TypeOf(v).Elem()))
		return
	}
	text := n.Value
	var number int64
	switch {
	case n.Tag == "!!int" && n.Decode(&number) == nil:
		text = strconv.FormatInt(number, 10)
	case n.Tag == "!!bool", n.Tag == "!!float" && json.Valid([]byte(text)):
	default:
		quoted, _ := json.Marshal(text)
		text = string(quoted)
	}
	if err := v.UnmarshalJSON([]byte(text)); err != nil {
		d.wrong(p, show(n.Value)+" is not understood here", "write "+wanted(reflect.TypeOf(v).Elem()))
	}
}

// fields decodes a mapping into a struct: no key twice, and none that
// Kubernetes does not have.
func (d *decoder) fields(n *yaml.Node, v reflect.Value, p string) {
	fields := fieldsOf(v.Type(), nil)
	for name, value := range d.pairs(n, p) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i < 0 {
			names := make([]string, len(fields))
			for i, f := range fields {
				names[i] = f.name
			}
			d.misspelt[p] = true
			d.wrongKey(key(p, name), "there is no such field", meant(name, "the fields here are", names))
			continue
		}
		d.field(value, v, key(p, name), fields[i])
	}
}

// field decodes one field and applies its rule.
func (d *decoder) field(n *yaml.Node, v reflect.Value, p string, f field) {
	rule := ruleOf(v.Type(), f.name)
	if d.unheeded == 0 && !empty(d.dealias(n)) {
		switch rule.verdict {
		case unheeded:
			d.notice(p, rule.text)
		case refused:
			d.wrongKey(p, rule.text, rule.cure)
		}
	}
	if rule.verdict != honoured {
		d.unheeded++
		defer func() { d.unheeded-- }()
	}
	d.value(n, v.FieldByIndex(f.index), p)
}

// empty says that a value asks for nothing.
func empty(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Tag == "!!null" || n.Value == "" || n.Value == "0" || n.Value == "false"
	default:
		return len(n.Content) == 0
	}
}

// pairs yields the keys and values of a mapping, and marks where the keys stand.
// Keys that are no plain scalars, merge keys and repeated keys are mistakes.
func (d *decoder) pairs(n *yaml.Node, p string) func(yield func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		lines := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, value := n.Content[i], n.Content[i+1]
			where := position{name.Line, name.Column}
			first, twice := lines[name.Value]
			switch {
			case d.full() || d.exhausted:
				return
			case name.Kind != yaml.ScalarNode:
				d.wrongAt(where, p, "a key is "+found(name), "write a plain name")
			case name.Tag == "!!merge":
				d.wrongAt(where, p, "the merge key << is not supported", "repeat the keys, or alias the whole value")
			case twice:
				d.wrongAt(where, key(p, name.Value), fmt.Sprintf("the key stands already on line %d", first), "keep one of the two")
			default:
				lines[name.Value] = name.Line
				d.marks[key(p, name.Value)] = mark{key: where, value: position{value.Line, value.Column}}
				if !yield(name.Value, value) {
					return
				}
			}
		}
	}
}

// field is one field of a struct, as a manifest sees it.
type field struct {
	name  string
	index []int
}

// fieldsOf lists what a mapping of this type may hold.
func fieldsOf(t reflect.Type, above []int) []field {
	var fields []field
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		at := append(slices.Clone(above), i)
		switch {
		case name == "" && t.Field(i).Anonymous && t.Field(i).Type.Kind() == reflect.Struct:
			fields = append(fields, fieldsOf(t.Field(i).Type, at)...)
		case name != "" && name != "-":
			fields = append(fields, field{name, at})
		}
	}
	return fields
}
