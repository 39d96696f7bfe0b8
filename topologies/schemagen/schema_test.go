package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/tools/txtar"
	"gopkg.in/yaml.v3"
)

func TestSchemaIsFresh(t *testing.T) {
	want, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("schema.json is not what the types say; run go generate ./topologies (-want +got):\n%s", diff)
	}
}

// TestSchemaDescribes: an editor has something to say about fields with a
// comment of their own, and about those whose type has one.
func TestSchemaDescribes(t *testing.T) {
	text, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"description": "MTU in bytes of every link on it; 1500 where the file is silent."`,
		`"description": "Vagrant says from which box VMs are made."`,
		`"description": "Node is one machine of the lab."`,
		`"description": "Role is what a node does in the cluster."`,
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the schema does not say %s", want)
		}
	}
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("../schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// instance is a YAML file as the validator takes it.
func instance(t *testing.T, text []byte) any {
	t.Helper()
	var content any
	if err := yaml.Unmarshal(text, &content); err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestSchemaAcceptsShippedFiles(t *testing.T) {
	schema := compiled(t)
	paths, err := filepath.Glob("../*.yaml")
	if err != nil || len(paths) < 3 {
		t.Fatalf("%d shipped files, %v", len(paths), err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(instance(t, text)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestSchemaAcceptsValidFiles: what the loader takes, the schema takes.
func TestSchemaAcceptsValidFiles(t *testing.T) {
	schema := compiled(t)
	paths, err := filepath.Glob("../topo/testdata/valid/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d valid files, %v", len(paths), err)
	}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files { // lab.yaml, and what was loaded from it
			if err := schema.Validate(instance(t, f.Data)); err != nil {
				t.Errorf("%s: %s: %v", path, f.Name, err)
			}
		}
	}
}

func TestSchemaRejects(t *testing.T) {
	schema := compiled(t)
	const good = `apiVersion: labctl/v1
kind: Topology
metadata: {name: lab}
networks:
  left: {cidr: 192.168.10.0/24, mtu: 1500}
nodes:
  a:
    role: host
    interfaces:
      eth1: {network: left, address: 192.168.10.1/24}
    routes:
      - {to: 0.0.0.0/0, via: 192.168.10.2}
    resources: {sshPort: 60000}
    bgp: {asn: 65001, neighbors: [192.168.10.2]}
providers:
  vagrant: {box: bento/ubuntu-24.04, provider: libvirt}
stages:
  first:
    expect:
      - {from: {nodes: [a]}, to: {nodes: [a]}, result: lost, at: a, leaving: eth0}
`
	if err := schema.Validate(instance(t, []byte(good))); err != nil {
		t.Fatalf("the good file: %v", err)
	}
	for name, edit := range map[string][2]string{
		"another version":       {"labctl/v1", "labctl/v2"},
		"another kind":          {"kind: Topology", "kind: Pod"},
		"an unknown key":        {"kind: Topology", "kind: Topology\nextra: 1"},
		"an unknown nested key": {"role: host", "role: host\n    rolle: host"},
		"no networks":           {"networks:\n  left: {cidr: 192.168.10.0/24, mtu: 1500}\n", ""},
		"a lab's name":          {"name: lab", "name: ../lab"},
		"a long name":           {"name: lab", "name: " + strings.Repeat("a", 33)},
		"a node's name":         {"  a:\n", "  A:\n"},
		"an interface's name":   {"eth1:", `"eth 1":`},
		"an octet":              {"192.168.10.0/24", "192.168.10.256/24"},
		"a length":              {"192.168.10.0/24", "192.168.10.0/33"},
		"no length":             {"192.168.10.1/24", "192.168.10.1"},
		"IPv6":                  {"192.168.10.0/24", "fd00::/64"},
		"a next hop":            {"via: 192.168.10.2", "via: router"},
		"no next hop":           {"via: 192.168.10.2", "via: []"},
		"an MTU":                {"mtu: 1500", "mtu: 575"},
		"an MTU in quotes":      {"mtu: 1500", `mtu: "1500"`},
		"a port":                {"60000", "65536"},
		"a role":                {"role: host", "role: firewall"},
		"a system":              {"asn: 65001", "asn: 4294967295"},
		"a neighbour":           {"neighbors: [192.168.10.2]", "neighbors: [router]"},
		"a provider":            {"libvirt", "docker"},
		"a result":              {"result: lost", "result: gone"},
		"nothing lost anywhere": {", at: a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, edit[0], edit[1], 1)
			if bad == good {
				t.Fatalf("%q is not in the good file", edit[0])
			}
			if err := schema.Validate(instance(t, []byte(bad))); err == nil {
				t.Errorf("accepted:\n%s", bad)
			}
		})
	}
}
