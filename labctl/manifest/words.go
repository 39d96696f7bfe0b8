package manifest

import (
	"reflect"
	"strconv"

	"gopkg.in/yaml.v3"
)

// found describes what stands in the file.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	_, isTruth := truths[n.Value]
	switch {
	case n.Tag == "!!null":
		return "empty"
	case n.Tag == "!!bool", isTruth && n.Style == 0:
		return "the truth value " + n.Value
	case n.Tag == "!!int", n.Tag == "!!float":
		return "the number " + show(n.Value)
	}
	return "the text " + show(n.Value)
}

// wanted describes what a field takes.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	}
	switch t.Name() {
	case "Quantity":
		return "a quantity like 100m or 64Mi"
	case "IntOrString":
		return "a whole number or a name"
	case "Time", "MicroTime":
		return "a time like 2026-01-31T12:00:00Z"
	}
	return "a mapping"
}

// scalarCure is how a value of the wrong type becomes right.
func scalarCure(n *yaml.Node, t reflect.Type) string {
	switch {
	case n.Kind == yaml.ScalarNode && t.Kind() == reflect.String:
		return "put it in quotes: " + strconv.Quote(printable(n.Value))
	case t.Kind() == reflect.Slice && n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		return "write [" + show(n.Value) + "]"
	case t.Kind() == reflect.Slice:
		return "put - before each item"
	}
	return "write " + wanted(t)
}
