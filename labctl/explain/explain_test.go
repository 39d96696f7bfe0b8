package explain

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
	"github.com/native-routing/labctl/topologies/topo"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each archive of testdata is a lab in some state, a question, and the whole of
// what is explained. The state is that of the shipped lab in a stage, with what
// the file "edits" changes in the nodes' tables; "answers" are kernels' answers
// that differ from those tables.
func TestExplain(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := map[string]string{}
			for _, f := range archive.Files {
				parts[f.Name] = string(f.Data)
			}
			got := explained(t, parts)
			if *update {
				archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want" })
				archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(parts["want"], got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// explained answers the question of an archive: "ask" is STAGE FROM TO [key=value...].
func explained(t *testing.T, parts map[string]string) string {
	t.Helper()
	words := strings.Fields(parts["ask"])
	w := shipped(t, words[0])
	for line := range strings.Lines(parts["edits"]) {
		edit(t, w, strings.TrimSpace(line))
	}
	var o Options
	for _, option := range words[3:] {
		key, value, _ := strings.Cut(option, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "proto":
			o.Protocol = value
		case "size":
			o.Size = n
		case "source-port":
			o.SourcePort = uint16(n)
		}
	}
	q, err := w.Ask(words[1], words[2], o)
	if err != nil {
		return err.Error() + "\n"
	}
	r := Report{Lab: "lab", Stage: words[0], From: words[1], To: words[2], Question: q}
	r.Ways = kernelWays(t, w, q, parts["answers"])
	r.Verdict = Judge(lang.Printer{}, w, q, r.Ways)
	return r.Text(lang.Printer{}) + findingsText(r.Verdict)
}

// findingsText is what of a verdict no text shows: the causes as a machine reads them.
func findingsText(v Verdict) string {
	var b strings.Builder
	for _, f := range append(v.Findings, v.Remarks...) {
		fmt.Fprintf(&b, "[%s, %s, %s %s]\n", f.Cause, f.Leg, f.Place.Name(), f.Device)
	}
	return b.String()
}

// kernelWays asks until nothing is open. The kernels answer by their tables, but
// for what answers says: lines "NODE ADDRESS: ERRNO", or "NODE ADDRESS: via ADDRESS dev DEVICE".
func kernelWays(t *testing.T, w *World, q Question, answers string) []Way {
	t.Helper()
	w.Answers, w.Places = map[Ask]api.PathDecision{}, map[Place]bool{}
	for range 100 {
		ways, open := Predict(w, q)
		if len(open) == 0 {
			return ways
		}
		for _, a := range open {
			if a.Query == (api.PathQuery{}) {
				w.Places[a.Place] = true
				continue
			}
			w.Answers[a] = kernel(w.space(a.Place), a.Query)
			for line := range strings.Lines(answers) {
				where, what, _ := strings.Cut(strings.TrimSpace(line), ": ")
				if where != a.Place.Name()+" "+a.Query.To.String() {
					continue
				}
				if errno, err := strconv.Atoi(what); err == nil {
					w.Answers[a] = api.PathDecision{Errno: errno, Decision: api.Decision{Error: "refused"}}
					continue
				}
				f := strings.Fields(what)
				d := api.Decision{Type: path.Unicast, Via: netip.MustParseAddr(f[1]), Device: f[3], Source: w.Answers[a].Source}
				if len(f) > 5 {
					d.MTU, _ = strconv.Atoi(f[5])
				}
				w.Answers[a] = api.PathDecision{Decision: d}
			}
		}
	}
	t.Fatal("the questions do not end")
	return nil
}

// kernel answers as one does, which also looks at where a packet comes from.
func kernel(s *api.Space, q api.PathQuery) api.PathDecision {
	if in := link(s, q.In); in != nil {
		if refused, _ := refusesSource(s, in, q.From, q.To); refused {
			return api.PathDecision{Errno: errnoInvalid, Decision: api.Decision{Error: "invalid argument"}}
		}
	}
	return decide(s, q)
}

// shipped is the shipped lab in a stage, as healthy kernels hold it.
func shipped(t *testing.T, stage string) *World {
	t.Helper()
	whole, err := topo.LoadFile("../../topologies/native-routing.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w := &World{}
	for _, name := range whole.Stages.Names() {
		staged, err := whole.Stage(name)
		if err != nil {
			t.Fatal(err)
		}
		lab := path.Predict(staged, nil)
		if name != stage {
			w.Stages = append(w.Stages, Stage{name, lab, staged.Cluster.Masquerade})
			continue
		}
		w.Planned, w.Wires = lab, lab.Wires
		w.Cluster = api.Cluster{ServiceCIDR: staged.Cluster.ServiceCIDR, NativeCIDR: staged.Cluster.NativeRoutingCIDR, Masquerade: staged.Cluster.Masquerade}
		for name, n := range staged.Nodes.All() {
			if gateway, ok := n.PodGateway(); ok {
				_, primary, _ := n.Primary()
				w.Cluster.Nodes = append(w.Cluster.Nodes, api.Node{Name: name, Address: primary.Address.Addr(), PodCIDR: n.PodCIDR, Gateway: gateway})
			}
		}
	}
	for _, n := range w.Planned.Nodes {
		w.Nodes = append(w.Nodes, Node{Name: n.Name, Snapshot: api.Snapshot{Space: spaceOf(n)}})
	}
	addPods(w)
	return w
}

// spaceOf is a node's tables as a kernel has them.
func spaceOf(n path.Node) api.Space {
	s := api.Space{Sysctls: map[string]string{api.SysctlForward: "1"}, Rules: []api.Rule{
		{Action: "lookup", Table: api.TableLocal, SuppressLength: -1},
		{Priority: 32766, Action: "lookup", Table: api.TableMain, SuppressLength: -1},
		{Priority: 32767, Action: "lookup", Table: api.TableDefault, SuppressLength: -1},
	}}
	s.Links = append(s.Links, api.Link{Index: 1, Name: "lo", Up: true, Carrier: true, MTU: 65536})
	for i, l := range n.Links {
		s.Links = append(s.Links, api.Link{Index: i + 2, Name: l.Name, Kind: l.Kind, MTU: l.MTU, Up: true, Carrier: true, Addresses: l.Addresses,
			Forwarding: true, MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", n.Name[len(n.Name)-1], i)})
		for _, p := range l.Addresses {
			addOwnRoutes(&s, l.Name, netip.PrefixFrom(p.Addr(), 32))
		}
	}
	for _, r := range n.Routes {
		s.Routes = append(s.Routes, fromPlan(r))
	}
	return s
}

// addPods puts a pod with tools on k8s-ctr, and a web server on each node.
func addPods(w *World) {
	backends := []api.FrontendBackend{}
	for i, node := range []string{"k8s-ctr", "k8s-w1", "k8s-w0"} {
		addPod(w, node, fmt.Sprintf("web-%d", i), netip.MustParseAddr(fmt.Sprintf("172.20.%d.10", i)))
		backends = append(backends, api.FrontendBackend{Address: netip.MustParseAddrPort(fmt.Sprintf("172.20.%d.10:80", i)), State: "active"})
	}
	addPod(w, "k8s-ctr", "curl-pod", netip.MustParseAddr("172.20.0.2"))
	address := netip.MustParseAddr("10.96.0.80")
	w.Cluster.Services = []api.Service{{Namespace: "default", Name: "web", ClusterIP: address, Ports: []api.ServicePort{{Protocol: "TCP", Port: 80}}}}
	for _, name := range []string{"k8s-ctr", "k8s-w1", "k8s-w0"} {
		n := w.node(name)
		n.Datapath = &api.Datapath{Devices: []string{"eth0", "eth1"}}
		frontend := api.Frontend{ID: 1, Protocol: "TCP", Scope: "external", Service: "default/web", Backends: backends, Usable: 3, Flags: []string{"non-routable"}}
		frontend.Address = netip.AddrPortFrom(address, 80)
		nodePort := frontend
		nodePort.Address, nodePort.Flags = netip.AddrPortFrom(netip.IPv4Unspecified(), 30080), nil
		n.Services = []api.Frontend{frontend, nodePort}
	}
}

func addPod(w *World, node, name string, a netip.Addr) {
	pod := api.Pod{Namespace: "default", Name: name, Node: node, Address: a}
	w.Cluster.Pods = append(w.Cluster.Pods, pod)
	n := w.node(node)
	device := "lxc-" + name
	n.Pods = append(n.Pods, api.PodStatus{Namespace: "default", Name: name, Address: a, Phase: api.PodRunning, PID: 1, Device: device})
	n.Space.Links = append(n.Space.Links, api.Link{Name: device, Kind: "veth", MTU: 1500, Up: true, Carrier: true, Forwarding: true})
	gateway := netip.PrefixFrom(a, 24).Masked().Addr().Next()
	eth0 := path.Link{Name: podDevice, Kind: "veth", MTU: 1500, Addresses: []netip.Prefix{netip.PrefixFrom(a, 32)}}
	s := spaceOf(path.Node{Name: name, Links: []path.Link{eth0}, Routes: []path.Route{
		{To: netip.PrefixFrom(gateway, 32), Type: path.Unicast, NextHops: []path.NextHop{{Device: podDevice}}},
		{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Type: path.Unicast, NextHops: []path.NextHop{{Via: gateway, Device: podDevice}}},
	}})
	if n.Spaces == nil {
		n.Spaces = map[string]api.Space{}
	}
	n.Spaces[pod.Key()] = s
}
