package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/machine"
	"github.com/native-routing/labctl/provision/providertest"
	"github.com/native-routing/labctl/topologies/topo"
)

const oneNode = `apiVersion: labctl/v1
kind: Topology
metadata: {name: LAB}
networks:
  left: {cidr: 192.168.10.0/24}
nodes:
  a:
    role: host
    interfaces: {eth1: {network: left, address: 192.168.10.1/24}}
`

const machines = `providers:
  ssh:
    user: ubuntu
    key: ~/.ssh/lab
    nodes:
      a: {host: 127.0.0.1, port: 1, interfaces: {eth1: ens5}}
`

func newProvider(t *testing.T) (*Provider, string) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	return New(Options{DataDir: t.TempDir()}), home
}

func TestAccess(t *testing.T) {
	_, home := newProvider(t)
	lab := providertest.Load(t, "lab", oneNode+machines)
	got, err := access(lab, "a")
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != "127.0.0.1" || got.Port != 1 || got.User != "ubuntu" || got.KeyFile != filepath.Join(home, ".ssh", "lab") || got.Devices["eth1"] != "ens5" {
		t.Errorf("access: %+v", got)
	}
	if _, err := access(lab, "b"); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("a node without a machine: %v", err)
	}
	if _, err := access(providertest.Load(t, "lab", oneNode), "a"); !errors.Is(err, errNoInventory) {
		t.Errorf("a topology without machines: %v", err)
	}
}

func TestPreflight(t *testing.T) {
	p, home := newProvider(t)
	finding := func(lab *topo.Topology) provision.Finding {
		t.Helper()
		all := p.Preflight(t.Context(), lab)
		if len(all) != 1 || all[0].Severity != provision.Missing {
			t.Fatalf("findings: %+v", all)
		}
		return all[0]
	}
	if f := finding(providertest.Load(t, "lab", oneNode)); !strings.Contains(f.Detail, "providers.ssh") {
		t.Errorf("without machines: %+v", f)
	}
	lab := providertest.Load(t, "lab", oneNode+machines)
	if f := finding(lab); !errors.Is(f.Err, os.ErrNotExist) || f.Subject != "a (127.0.0.1)" {
		t.Errorf("without the key: %+v", f)
	}
	if _, err := os.Stat(filepath.Join(home, ".ssh")); err == nil {
		t.Error("looking made something")
	}
}

// TestRecord goes through the life of an inventory without any machine.
func TestRecord(t *testing.T) {
	p, _ := newProvider(t)
	ctx := t.Context()
	if _, err := p.OpenNode(ctx, "lab", "a"); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("open: %v", err)
	}
	one, two := machine.Access{Host: "one", Port: 22}, machine.Access{Host: "two", Port: 22, User: "u", KeyFile: "k"}
	for node, a := range map[string]machine.Access{"a": one, "b": two} {
		if err := p.remember("lab", node, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.remember("lab", "a", two); err == nil || !strings.Contains(err.Error(), "labctl down a first") {
		t.Errorf("a node on another machine: %v", err)
	}
	admin := two
	admin.User = "admin"
	if err := p.remember("lab", "b", admin); err == nil || !strings.Contains(err.Error(), "b is on u@two port 22, and is to be on admin@two port 22") {
		t.Errorf("a user in whose home nothing would be cleaned: %v", err)
	}
	// Another process knows it too.
	p, dataDir := New(p.options), p.options.DataDir
	if labs, err := p.Labs(ctx); err != nil || !slices.Equal(labs, []string{"lab"}) {
		t.Errorf("labs: %q, %v", labs, err)
	}
	hosts, err := p.SSHHosts(ctx, "lab")
	if err != nil || len(hosts) != 2 || !strings.HasPrefix(hosts[0].KnownHosts, dataDir) {
		t.Errorf("hosts: %+v, %v", hosts, err)
	}
	for _, node := range []string{"a", "b", "b"} {
		if err := p.forget("lab", node); err != nil {
			t.Fatal(err)
		}
	}
	if labs, err := p.Labs(ctx); err != nil || len(labs) != 0 {
		t.Errorf("labs after all: %q, %v", labs, err)
	}
	if changes, err := p.Destroy(ctx, "lab"); err != nil || len(changes) != 0 {
		t.Errorf("destroy nothing: %v, %v", changes, err)
	}
	if entries, err := os.ReadDir(dataDir); err != nil || len(entries) != 0 {
		t.Errorf("left in the data directory: %v, %v", entries, err)
	}
}
