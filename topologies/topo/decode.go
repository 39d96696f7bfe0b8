package topo

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxExpanded bounds how many values of a file may come from aliases.
const maxExpanded = 50_000

// decoder fills the model from a YAML tree by reflection; the json tags are the
// file's keys. It goes on after a mistake and leaves the zero value there. Its
// depth is bounded by the model's types, not by the file: an alias within its
// own anchor is of the wrong type soon.
type decoder struct {
	*source
	following int // aliases, one within the other
	expanded  int // values that came from aliases
	exhausted bool
}

// value decodes n, and says whether it has the shape that v asks for.
func (d *decoder) value(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	if d.full || d.exhausted {
		return false
	}
	m := d.marks[p]
	m.value = position{n.Line, n.Column}
	d.marks[p] = m
	if n.Kind == yaml.AliasNode {
		d.following++
		defer func() { d.following-- }()
		n = n.Alias
	}
	if d.following > 0 {
		d.expanded++
		if d.expanded > maxExpanded {
			d.exhausted = true
			d.wrong(p, fmt.Sprintf("aliases make the file grow by more than %d values", maxExpanded), "write less, or write it out")
			return false
		}
	}
	return d.content(n, v, p)
}

func (d *decoder) content(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		d.wrong(p, "has the tag "+show(n.Tag), "write the value without a tag")
		return false
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.content(n, v.Elem(), p)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		d.wrong(p, subject(p)+"is empty", "write "+wanted(v.Type()))
		return false
	}
	if decode := d.decoderOf(v, n); decode != nil {
		return decode(n, v, p)
	}
	d.wrong(p, subject(p)+"is "+found(n), "write "+wanted(v.Type()))
	return false
}

// subject is what a mistake is about where no field says so.
func subject(p fieldPath) string {
	if p == "" {
		return "the file "
	}
	return ""
}

// decoderOf returns what decodes n into v; nil where their shapes differ.
func (d *decoder) decoderOf(v reflect.Value, n *yaml.Node) func(*yaml.Node, reflect.Value, fieldPath) bool {
	_, isText := v.Addr().Interface().(encoding.TextUnmarshaler)
	_, isMap := v.Interface().(ordered)
	kind := v.Kind()
	switch n.Kind {
	case yaml.MappingNode:
		switch {
		case isMap:
			return d.entries
		case kind == reflect.Struct && !isText:
			return d.fields
		}
	case yaml.SequenceNode:
		if kind == reflect.Slice && !isMap {
			return d.list
		}
	case yaml.ScalarNode:
		switch {
		case isText:
			return d.text
		case v.Type() == reflect.TypeFor[NextHops]():
			return d.single
		case kind == reflect.String && n.Tag != "!!merge":
			return d.str
		case kind == reflect.Int && n.Tag == "!!int":
			return d.integer
		case kind == reflect.Uint32 && n.Tag == "!!int":
			return d.unsigned
		case kind == reflect.Bool && n.Tag == "!!bool":
			return d.boolean
		}
	}
	return nil
}

// fields decodes a mapping into a struct: no key twice, none that the model
// does not have, and all that it must have.
func (d *decoder) fields(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	fields := fieldsOf(v.Type())
	for key, value := range d.pairs(n, p) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key })
		if i < 0 {
			d.unknownKey(p, key, fields)
			continue
		}
		d.value(value, v.Field(fields[i].index), p.key(key))
	}
	for _, f := range fields {
		if f.required && d.absent(p.key(f.name)) {
			d.note(d.keyOf(p), p.key(f.name), "is missing", "add it: "+wantedField(p.key(f.name), v.Type().Field(f.index).Type))
		}
	}
	return true
}

func (d *decoder) unknownKey(p fieldPath, key string, fields []field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	if near := nearest(key, names); near != "" {
		d.misspelt[p.key(near)] = true
		d.wrongKey(p.key(key), "there is no such key here", "did you mean "+near+"?")
		return
	}
	d.wrongKey(p.key(key), "there is no such key here", "the keys are "+strings.Join(names, ", "))
}

// entries decodes a mapping whose keys are names into a Map.
func (d *decoder) entries(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	for key, value := range d.pairs(n, p) {
		entry := reflect.New(v.Type().Elem()).Elem()
		entry.Field(0).SetString(key)
		d.value(value, entry.Field(1), p.key(key))
		v.Set(reflect.Append(v, entry))
	}
	return true
}

// pairs yields the keys and values of a mapping, and notes where the keys stand.
// Keys that are no plain scalars, merge keys and repeated keys are mistakes.
func (d *decoder) pairs(n *yaml.Node, p fieldPath) func(yield func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		lines := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			where := position{key.Line, key.Column}
			first, twice := lines[key.Value]
			switch {
			case key.Kind != yaml.ScalarNode:
				d.note(where, p, "a key is "+found(key), "write a plain name")
			case key.Tag == "!!merge":
				d.note(where, p, "the merge key << is not supported", "repeat the keys, or alias the whole value")
			case key.Style&yaml.TaggedStyle != 0:
				d.note(where, p.key(key.Value), "the key has the tag "+show(key.Tag), "write a plain name")
			case twice:
				d.note(where, p.key(key.Value), fmt.Sprintf("the key stands already on line %d", first), "keep one of the two")
			default:
				lines[key.Value] = key.Line
				d.marks[p.key(key.Value)] = mark{key: where}
				if !yield(key.Value, value) {
					return
				}
			}
		}
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	for i, item := range n.Content {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(item, elem, p.index(i))
		v.Set(reflect.Append(v, elem))
	}
	return true
}

// single decodes one item where the file may leave out the list around it.
func (d *decoder) single(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	elem := reflect.New(v.Type().Elem()).Elem()
	ok := d.content(n, elem, p)
	v.Set(reflect.Append(v, elem))
	return ok
}

// field is one field of a struct, as the file sees it.
type field struct {
	name     string
	index    int
	required bool
}

// fieldsOf lists what a mapping of this type may hold. Required is all that
// JSON never leaves out.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields = append(fields, field{name, i, !strings.Contains(options, "omit")})
	}
	return fields
}

// ordered is any Map.
type ordered interface{ Names() []string }
