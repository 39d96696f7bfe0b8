//go:build linux

package netns

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/native-routing/labctl/topologies/topo"
)

var update = flag.Bool("update", false, "write what is into the golden files")

// TestPlan holds each testdata/plan/*.txtar: a topology and all that its lab is to hold.
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lab, err := topo.Load("lab.yaml", strings.NewReader(string(archive.Files[0].Data)))
			if err != nil {
				t.Fatal(err)
			}
			p, err := newPlan(lab)
			if err != nil {
				t.Fatal(err)
			}
			got := render(p)
			if *update {
				archive.Files = append(archive.Files[:1], txtar.File{Name: "plan", Data: []byte(got)})
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(archive.Files[1].Data); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func render(p plan) string {
	var b strings.Builder
	for _, bridge := range p.Bridges {
		fmt.Fprintf(&b, "bridge %s alias %q\n", bridge.Name, bridge.Alias)
	}
	for _, n := range p.Nodes {
		fmt.Fprintf(&b, "\nnode %s\n", n.Name)
		for _, l := range n.Links {
			fmt.Fprintf(&b, "%s %s mtu %d %s %s alias %q\n", l.Kind, l.Name, l.MTU, l.MAC, l.Address, l.Alias)
			if l.Port != "" {
				fmt.Fprintf(&b, "  port %s mtu %d bridge %q\n", l.Port, l.PortMTU, l.Bridge)
			}
		}
		for _, neighbour := range n.Neighbours {
			fmt.Fprintf(&b, "neighbour %s %s dev %s\n", neighbour.IP, neighbour.MAC, neighbour.Device)
		}
		for _, r := range n.Connected {
			fmt.Fprintf(&b, "connected %s\n", r.key())
		}
		for _, r := range n.Routes {
			fmt.Fprintf(&b, "route %s\n", r.key())
		}
	}
	return b.String()
}

func TestPlanRefuses(t *testing.T) {
	lab := shippedLab(t, "x")
	node, _ := lab.Nodes.Get("k8s-w1")
	node.Routes = append(node.Routes, topo.Route{To: lab.Cluster.PodCIDR, Via: topo.NextHops{lab.Cluster.ServiceCIDR.Addr()}})
	for i := range lab.Nodes {
		if lab.Nodes[i].Name == "k8s-w1" {
			lab.Nodes[i].Value = node
		}
	}
	_, err := newPlan(lab)
	if err == nil || err.Error() != "route 172.20.0.0/16 of k8s-w1: no interface reaches 10.96.0.0" {
		t.Errorf("got %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{portName("k8s-ctr", "eth1"), "k8s-ctr.eth1"},
		{portName("exactly-10", "eth1"), "exactly-10.eth1"},
		{portName("eleven-char", "eth1"), "port9721fbb8108"},
		{bridgeName("subnet1"), "br-subnet1"},
		{bridgeName("twelve-chars"), "br-twelve-chars"},
		{bridgeName("thirteen-char"), "br-3adc6cba4867"},
		{linkAddress("lab", "a", "eth1").String(), "02:93:0c:da:b4:73"},
	} {
		if len(test.got) > maxInterface && !strings.Contains(test.got, ":") {
			t.Errorf("%s has %d bytes", test.got, len(test.got))
		}
		if test.got != test.want {
			t.Errorf("got %s, want %s", test.got, test.want)
		}
	}
	at := Options{}.paths("lab")
	for name, want := range map[string]string{
		"labctl.lab.a": "a true", "labctl.lab": " true", "labctl.lab-2.a": "lab-2 not ours", "labctl.la": "", "other": "",
	} {
		node, ok := at.nodeOf(name)
		if strings.HasSuffix(want, "true") != ok || ok && node+" true" != want {
			t.Errorf("%s: %q %t, want %q", name, node, ok, want)
		}
	}
	if err := (Options{}).paths(strings.Repeat("l", 32)).checkLengths(strings.Repeat("n", 48)); err == nil {
		t.Error("a socket's path of 110 bytes is taken")
	}
}
