package topo

import (
	"encoding"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// text decodes an address or a prefix.
func (d *decoder) text(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value))
	if err == nil && isIPv4(v.Interface()) {
		return true
	}
	v.SetZero()
	d.wrong(p, show(n.Value)+" is not "+nounOf(v.Type()), addressCure(n.Value, v.Type()))
	return false
}

func isIPv4(value any) bool {
	switch value := value.(type) {
	case netip.Addr:
		return value.Is4()
	case netip.Prefix:
		return value.IsValid() && value.Addr().Is4()
	}
	return false
}

func addressCure(raw string, t reflect.Type) string {
	addr, addrErr := netip.ParseAddr(raw)
	prefix, prefixErr := netip.ParsePrefix(raw)
	wantsPrefix := t == reflect.TypeFor[netip.Prefix]()
	switch {
	case addrErr == nil && !addr.Is4(), prefixErr == nil && !prefix.Addr().Is4():
		return "labs are IPv4 only: write it like " + exampleOf(t)
	case addrErr == nil && wantsPrefix:
		return "write it with its length, like " + raw + "/24"
	case prefixErr == nil && !wantsPrefix:
		return "write it without a length: " + prefix.Addr().String()
	}
	return "write it like " + exampleOf(t)
}

// str decodes a text; what YAML takes for a number or a truth value has to be quoted.
func (d *decoder) str(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	options, limited := v.Interface().(choices)
	switch {
	case limited && !slices.Contains(options.Values(), n.Value):
		d.wrong(p, show(n.Value)+" is not known here", choiceCure(n.Value, options.Values()))
		return false
	case n.Tag != "!!str" && n.Tag != "!!timestamp":
		d.wrong(p, "is "+found(n)+", and a text is wanted", "put it in quotes: "+strconv.Quote(n.Value))
		return false
	case n.Value == "":
		d.wrong(p, "is empty", "write "+wantedField(p, v.Type()))
		return false
	case strings.ContainsFunc(n.Value, func(r rune) bool { return !legible(r) }):
		d.wrong(p, show(n.Value)+" holds characters that cannot be shown", "take them out")
		return false
	}
	v.SetString(n.Value)
	return true
}

func choiceCure(value string, options []string) string {
	if near := nearest(value, options); near != "" {
		return "did you mean " + near + "?"
	}
	if len(options) == 1 {
		return "write " + options[0]
	}
	return "write one of " + strings.Join(options, ", ")
}

// integer takes decimal digits only: 010 is eight to some readers of YAML and ten to others.
func (d *decoder) integer(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	i, err := strconv.Atoi(n.Value)
	if err != nil || strconv.Itoa(i) != n.Value {
		d.wrong(p, show(n.Value)+" is not a whole number in decimal digits", "write it like 1500")
		return false
	}
	v.SetInt(int64(i))
	return true
}

// unsigned takes a number of 32 bits as integer does.
func (d *decoder) unsigned(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	u, err := strconv.ParseUint(n.Value, 10, 32)
	if err != nil || strconv.FormatUint(u, 10) != n.Value {
		d.wrong(p, show(n.Value)+" is not a whole number of 32 bits in decimal digits", "write it like 65001")
		return false
	}
	v.SetUint(u)
	return true
}

func (d *decoder) boolean(n *yaml.Node, v reflect.Value, p fieldPath) bool {
	v.SetBool(strings.EqualFold(n.Value, "true"))
	return true
}

// found says what a node is, in the words of someone who writes such files.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!int", "!!float":
		return "the number " + show(n.Value)
	case "!!bool":
		return "the truth value " + show(n.Value)
	case "!!null":
		return "empty"
	}
	return "the text " + show(n.Value)
}

// wantedField is wanted, with the value itself where there is only one.
func wantedField(p fieldPath, t reflect.Type) string {
	switch p {
	case "apiVersion":
		return APIVersion
	case "kind":
		return Kind
	case "metadata.name":
		return "the name of the lab"
	}
	return wanted(t)
}

// wanted says what a field of this type takes.
func wanted(t reflect.Type) string {
	if t.Implements(reflect.TypeFor[choices]()) {
		return "one of " + strings.Join(reflect.Zero(t).Interface().(choices).Values(), ", ")
	}
	switch t {
	case reflect.TypeFor[netip.Prefix](), reflect.TypeFor[netip.Addr]():
		return nounOf(t) + " such as " + exampleOf(t)
	case reflect.TypeFor[NextHops]():
		return "an IPv4 address or a list of them, such as " + exampleOf(reflect.TypeFor[netip.Addr]())
	}
	switch {
	case t.Implements(reflect.TypeFor[ordered]()):
		return "a mapping whose keys are names"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Struct:
		return "a mapping with keys such as " + fieldsOf(t)[0].name
	case t.Kind() == reflect.Int, t.Kind() == reflect.Uint32:
		return "a whole number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "a text"
}

func nounOf(t reflect.Type) string {
	if t == reflect.TypeFor[netip.Addr]() {
		return "an IPv4 address"
	}
	return "an IPv4 prefix"
}

func exampleOf(t reflect.Type) string {
	if t == reflect.TypeFor[netip.Addr]() {
		return "192.168.10.200"
	}
	return "192.168.10.0/24"
}
