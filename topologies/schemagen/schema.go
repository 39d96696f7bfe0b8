package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/native-routing/labctl/topologies/topo"
)

const (
	octet         = `(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	addressRegexp = octet + `(\.` + octet + `){3}`
	lengthRegexp  = `/(3[0-2]|[12]?[0-9])`
)

// generate returns the schema; dir is the folder of package topologies, where
// the sources are from which descriptions come.
func generate(dir string) ([]byte, error) {
	comments, err := docComments(dir)
	if err != nil {
		return nil, fmt.Errorf("read doc comments: %w", err)
	}
	s := reflector(comments).Reflect(&topo.Topology{})
	s.ID = "https://github.com/native-routing/labctl/topologies/schema.json"
	s.Title = "labctl topology"
	refine(s)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// docComments maps the model's types and fields to their comments.
func docComments(dir string) (map[string]string, error) {
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(dir); err != nil {
		return nil, err
	}
	defer os.Chdir(here)
	r := new(jsonschema.Reflector)
	if err := r.AddGoComments("github.com/native-routing/labctl/topologies", "./topo"); err != nil {
		return nil, err
	}
	return r.CommentMap, nil
}

func reflector(comments map[string]string) *jsonschema.Reflector {
	r := &jsonschema.Reflector{Anonymous: true, DoNotReference: true}
	r.LookupComment = func(t reflect.Type, field string) string { return describe(comments, t, field) }
	r.Mapper = func(t reflect.Type) *jsonschema.Schema { return special(r, t) }
	return r
}

// describe returns the comment of a type or of a field; that of the field's type
// where the field itself has none.
func describe(comments map[string]string, t reflect.Type, field string) string {
	key := t.PkgPath() + "." + t.Name()
	if field == "" || comments[key+"."+field] != "" {
		return comments[strings.TrimSuffix(key+"."+field, ".")]
	}
	f, ok := t.FieldByName(field)
	if !ok {
		return ""
	}
	inner := f.Type
	for inner.Name() == "" && (inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice) {
		inner = inner.Elem()
	}
	if isMap(inner) {
		inner = inner.Elem().Field(1).Type
	}
	return comments[inner.PkgPath()+"."+inner.Name()]
}

// isMap recognises any topo.Map.
func isMap(t reflect.Type) bool {
	return t.PkgPath() == reflect.TypeFor[topo.Topology]().PkgPath() && strings.HasPrefix(t.Name(), "Map[")
}

// special returns the schema of a type that writes itself otherwise than Go
// types do; nil for all others.
func special(r *jsonschema.Reflector, t reflect.Type) *jsonschema.Schema {
	address := &jsonschema.Schema{Type: "string", Pattern: "^" + addressRegexp + "$", Examples: []any{"192.168.10.200"}}
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return address
	case reflect.TypeFor[netip.Prefix]():
		return &jsonschema.Schema{Type: "string", Pattern: "^" + addressRegexp + lengthRegexp + "$", Examples: []any{"192.168.10.0/24"}}
	case reflect.TypeFor[topo.NextHops]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			address, {Type: "array", Items: address, MinItems: new(uint64(1)), UniqueItems: true},
		}}
	}
	if choices, ok := reflect.Zero(t).Interface().(interface{ Values() []string }); ok {
		return &jsonschema.Schema{Type: "string", Enum: values(choices.Values())}
	}
	if isMap(t) {
		return named(r, t.Elem().Field(1).Type)
	}
	return nil
}

// named is a topo.Map of values of the given type.
func named(r *jsonschema.Reflector, t reflect.Type) *jsonschema.Schema {
	value := r.ReflectFromType(t)
	value.Version = ""
	names := &jsonschema.Schema{Pattern: topo.NamePattern, MaxLength: new(uint64(topo.MaxName))}
	if t == reflect.TypeFor[topo.Interface]() || t == reflect.TypeFor[topo.Device]() {
		names = &jsonschema.Schema{Pattern: topo.InterfacePattern, MaxLength: new(uint64(topo.MaxInterfaceName))}
	}
	return &jsonschema.Schema{Type: "object", PropertyNames: names, AdditionalProperties: value}
}

func values(texts []string) []any {
	all := make([]any, len(texts))
	for i, text := range texts {
		all[i] = text
	}
	return all
}

// refine adds what the types do not say: the bounds that the rules of package
// topo have, and the defaults.
func refine(s *jsonschema.Schema) {
	at(s, "apiVersion").Const = topo.APIVersion
	at(s, "kind").Const = topo.Kind
	name := at(s, "metadata.name")
	name.Pattern, name.MaxLength = topo.NamePattern, new(uint64(topo.MaxLabName))
	at(s, "nodes").PropertyNames.MaxLength = new(uint64(topo.MaxNodeName))
	at(s, "nodes").MinProperties = new(uint64(1))
	between(at(s, "networks.*.mtu"), topo.MinMTU, topo.MaxMTU)
	at(s, "networks.*.mtu").Default = topo.DefaultMTU
	between(at(s, "nodes.*.interfaces.*.mtu"), topo.MinMTU, topo.MaxMTU)
	at(s, "nodes.*.interfaces.*.type").Default = topo.Ethernet
	between(at(s, "nodes.*.resources.cpus"), 1, topo.MaxCPUs)
	between(at(s, "nodes.*.resources.memoryMiB"), topo.MinMemoryMiB, topo.MaxMemoryMiB)
	between(at(s, "nodes.*.resources.sshPort"), 1, 65535)
	at(s, "cluster.routingMode").Default = topo.RoutingNative
	at(s, "cluster.loadBalancer.algorithm").Default = topo.Random
	for _, size := range []string{"services", "backends", "flows", "nat", "ipcache", "affinity"} {
		between(at(s, "cluster.mapSizes."+size), 1, topo.MaxMapSize)
	}
	for _, bgp := range []string{"nodes.*.bgp", "stages.*.nodes.*.bgp"} {
		between(at(s, bgp+".asn"), 1, topo.MaxASN)
		at(s, bgp+".neighbors").UniqueItems = true
	}
	at(s, "providers.vagrant.box").Pattern = topo.BoxPattern
	at(s, "providers.vagrant.boxVersion").Pattern = topo.BoxVersionPattern
	at(s, "providers.vagrant.provider").Enum = values(topo.VagrantProviders())
	at(s, "providers.vagrant.provider").Default = topo.DefaultVagrantProvider
	for _, account := range []string{"providers.ssh", "providers.ssh.nodes.*"} {
		at(s, account+".user").Pattern = topo.UserPattern
		at(s, account+".key").Pattern = topo.KeyPattern
	}
	at(s, "providers.ssh.nodes").PropertyNames.MaxLength = new(uint64(topo.MaxNodeName))
	at(s, "providers.ssh.nodes.*.host").Pattern = topo.HostPattern
	between(at(s, "providers.ssh.nodes.*.port"), 1, 65535)
	at(s, "providers.ssh.nodes.*.port").Default = topo.DefaultSSHPort
	at(s, "workloads").UniqueItems = true
}

func between(s *jsonschema.Schema, least, most int) {
	s.Minimum, s.Maximum = json.Number(strconv.Itoa(least)), json.Number(strconv.Itoa(most))
}

// at finds the schema of a field; * is any name.
func at(s *jsonschema.Schema, path string) *jsonschema.Schema {
	for _, key := range strings.Split(path, ".") {
		if key == "*" {
			s = s.AdditionalProperties
			continue
		}
		property, ok := s.Properties.Get(key)
		if !ok {
			panic("the model has no field " + path)
		}
		s = property
	}
	return s
}
