package workload_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

func decode(t *testing.T, text string) manifest.Objects {
	t.Helper()
	objs, _, err := manifest.Decode("test.yaml", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

// study is the set of the study's manifests on the shipped lab.
func study(t *testing.T) (*topo.Topology, workload.Set) {
	t.Helper()
	lab := shipped(t)
	var files []manifest.Objects
	for _, name := range []string{"webpod.yaml", "curl-pod.yaml"} {
		objs, notices, err := manifest.Decode(name, bytes.NewReader(shippedManifest(t, name)))
		if err != nil || len(notices) > 0 {
			t.Fatal(err, notices)
		}
		files = append(files, objs)
	}
	all, err := manifest.Join(files...)
	if err != nil {
		t.Fatal(err)
	}
	set, _, err := workload.Set{}.Apply(lab, start, all)
	if err != nil {
		t.Fatal(err)
	}
	return lab, set
}

func TestOneWebpodPerNode(t *testing.T) {
	lab, set := study(t)
	c, err := set.Cluster(lab, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, p := range c.Pods {
		if p.Labels["app"] == "webpod" {
			seen[p.Node]++
		}
	}
	if diff := cmp.Diff(map[string]int{"k8s-ctr": 1, "k8s-w1": 1, "k8s-w0": 1}, seen); diff != "" {
		t.Errorf("webpods by node (-want +got):\n%s", diff)
	}
}

func TestForNode(t *testing.T) {
	lab, set := study(t)
	whole, err := set.Cluster(lab, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range lab.PodNodes() {
		for i, p := range workload.ForNode(whole, node).Pods {
			if (p.Spec != nil) != (p.Node == node) {
				t.Errorf("the cluster for %s has %s of %s with the spec %v", node, p.Key(), p.Node, p.Spec)
			}
			if whole.Pods[i].Spec == nil {
				t.Fatal("ForNode changed the cluster that it was given")
			}
		}
	}
}

// Every shipped lab with pods gives its agents nodes and a name server, before
// anything is applied.
func TestEmptySet(t *testing.T) {
	for _, name := range topologies.Names() {
		lab, err := topologies.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := workload.Set{}.Cluster(lab, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := len(c.Nodes), len(lab.PodNodes()); got != want {
			t.Errorf("%s: %d nodes, want %d", name, got, want)
		}
		if want := workload.DNSAddress(lab); c.DNS != want || want.IsValid() != (len(c.Services) == 1) {
			t.Errorf("%s: DNS %s, want %s, and its service: %v", name, c.DNS, want, c.Services)
		}
	}
}

func TestNoCluster(t *testing.T) {
	lab, err := topo.Load("bare.yaml", strings.NewReader(`
apiVersion: labctl/v1
kind: Topology
metadata: {name: bare}
networks: {n: {cidr: 192.168.10.0/24}}
nodes: {r: {role: router, interfaces: {eth1: {network: n, address: 192.168.10.1/24}}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := workload.Set{}.Cluster(lab, nil)
	if diff := cmp.Diff(api.Cluster{}, c, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("a lab without pods (-want +got): %v\n%s", err, diff)
	}
	set, _, err := workload.Set{}.Apply(lab, start, decode(t, `{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: nicolaka/netshoot}]}}`))
	if err != nil || set.Pods[0].Status.Conditions[0].Message != "no nodes available to schedule pods" {
		t.Errorf("a pod on a lab without pods: %v, %v", set.Pods, err)
	}
	_, _, err = workload.Set{}.Apply(lab, start, decode(t, `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {a: b}, ports: [{port: 80}]}}`))
	if !errors.Is(err, workload.ErrRefused) || !strings.Contains(err.Error(), "the lab has no service CIDR") {
		t.Errorf("a service without a service CIDR: %v", err)
	}
}

func TestIgnoreNotFound(t *testing.T) {
	lab, set := study(t)
	refs := []manifest.Ref{{Kind: "Pod", Name: "nobody"}, {Kind: "Pod", Name: "curl-pod"}}
	next, changes, err := set.Delete(lab, start, refs, true)
	if err != nil || len(changes) != 1 || len(next.Pods) != len(set.Pods)-1 {
		t.Errorf("Delete = %v, %v", changes, err)
	}
	if _, _, err = set.Delete(lab, start, refs, false); !errors.Is(err, workload.ErrNotFound) {
		t.Errorf("Delete = %v, want ErrNotFound", err)
	}
	if _, _, err = set.Delete(lab, start, []manifest.Ref{{Kind: "Ingress", Name: "a"}}, true); !errors.Is(err, workload.ErrRefused) {
		t.Errorf("Delete of an Ingress = %v, want ErrRefused", err)
	}
}

// A pod that is deleted and applied again is another pod: its agent must not
// take it for the one that is ending.
func TestAnotherUID(t *testing.T) {
	lab, set := study(t)
	less, _, err := set.Delete(lab, start, []manifest.Ref{{Kind: "Pod", Name: "curl-pod"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := less.Apply(lab, start.Add(1), decode(t, string(shippedManifest(t, "curl-pod.yaml"))))
	if err != nil {
		t.Fatal(err)
	}
	a, b := byName(set, "curl-pod"), byName(again, "curl-pod")
	if a.UID == b.UID || a.Status.PodIP == b.Status.PodIP {
		t.Errorf("the pods %s %s and %s %s are alike", a.UID, a.Status.PodIP, b.UID, b.Status.PodIP)
	}
}

func byName(s workload.Set, name string) corev1.Pod {
	for _, p := range s.Pods {
		if p.Name == name {
			return p
		}
	}
	return corev1.Pod{}
}

// A node's pod CIDR that changes takes its pods along, and leaves the others alone.
func TestReconcilePodCIDR(t *testing.T) {
	lab, set := study(t)
	for i := range lab.Nodes {
		if lab.Nodes[i].Name == "k8s-w0" {
			lab.Nodes[i].Value.PodCIDR = netip.MustParsePrefix("172.20.9.0/24")
		}
	}
	next, err := set.Reconcile(lab, start)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range next.Pods {
		was := set.Pods[i]
		if moved := was.Spec.NodeName == "k8s-w0"; moved != (p.UID != was.UID) || moved != (p.Status.PodIP == "172.20.9.2") || p.Spec.NodeName != was.Spec.NodeName {
			t.Errorf("%s: was %s %s, is %s %s on %s", p.Name, was.UID, was.Status.PodIP, p.UID, p.Status.PodIP, p.Spec.NodeName)
		}
	}
	same, err := next.Reconcile(lab, start)
	if diff := cmp.Diff(asJSON(t, next), asJSON(t, same)); err != nil || diff != "" {
		t.Errorf("a second Reconcile changed something: %v\n%s", err, diff)
	}
}

func TestReconcileServiceCIDR(t *testing.T) {
	lab, set := study(t)
	lab.Cluster.ServiceCIDR = netip.MustParsePrefix("10.200.0.0/24")
	next, err := set.Reconcile(lab, start)
	if err != nil {
		t.Fatal(err)
	}
	if a := netip.MustParseAddr(next.Services[0].Spec.ClusterIP); !lab.Cluster.ServiceCIDR.Contains(a) {
		t.Errorf("the service kept %s", a)
	}
	lab.Cluster.ServiceCIDR = netip.Prefix{}
	if _, err := set.Reconcile(lab, start); !errors.Is(err, workload.ErrRefused) {
		t.Errorf("Reconcile without a service CIDR = %v", err)
	}
}

// No address and no node port is given twice, and none that is not the lab's to
// give, until there are none left.
func TestServiceAddresses(t *testing.T) {
	lab := shipped(t)
	lab.Cluster.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/26")
	set, addresses, ports := workload.Set{}, map[string]string{}, map[int32]string{}
	const room = 64 - 4
	for i := range room {
		next, _, err := set.Apply(lab, start, decode(t, fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: s%d}, spec: {type: NodePort, selector: {a: b}, ports: [{port: 80}]}}`, i)))
		if err != nil {
			t.Fatal(err)
		}
		set = next
		v := set.Services[i]
		if by := addresses[v.Spec.ClusterIP]; by != "" {
			t.Errorf("%s has the address of %s", v.Name, by)
		}
		if by := ports[v.Spec.Ports[0].NodePort]; by != "" {
			t.Errorf("%s has the node port of %s", v.Name, by)
		}
		addresses[v.Spec.ClusterIP], ports[v.Spec.Ports[0].NodePort] = v.Name, v.Name
	}
	for _, kept := range []string{"10.96.0.0", "10.96.0.1", "10.96.0.10", "10.96.0.63"} {
		if by := addresses[kept]; by != "" {
			t.Errorf("%s has %s", by, kept)
		}
	}
	_, _, err := set.Apply(lab, start, decode(t, `{apiVersion: v1, kind: Service, metadata: {name: more}, spec: {selector: {a: b}, ports: [{port: 80}]}}`))
	if !errors.Is(err, workload.ErrRefused) || !strings.Contains(err.Error(), "used up") {
		t.Errorf("one service too many: %v", err)
	}
}

// What a later manifest asks for by number, an earlier one does not get by chance.
func TestAskedForIsKeptFree(t *testing.T) {
	lab := shipped(t)
	auto := `{apiVersion: v1, kind: Service, metadata: {name: auto}, spec: {type: NodePort, selector: {a: b}, ports: [{port: 80}]}}`
	alone, _, err := workload.Set{}.Apply(lab, start, decode(t, auto))
	if err != nil {
		t.Fatal(err)
	}
	chosen := alone.Services[0].Spec
	both, _, err := workload.Set{}.Apply(lab, start, decode(t, auto+fmt.Sprintf("\n---\n"+
		`{apiVersion: v1, kind: Service, metadata: {name: asks}, spec: {type: NodePort, clusterIP: %s, selector: {a: b}, ports: [{port: 80, nodePort: %d}]}}`,
		chosen.ClusterIP, chosen.Ports[0].NodePort)))
	if err != nil {
		t.Fatal(err)
	}
	if got := both.Services[1].Spec; got.ClusterIP != chosen.ClusterIP || got.Ports[0].NodePort != chosen.Ports[0].NodePort {
		t.Errorf("asked for %s:%d, got %s:%d", chosen.ClusterIP, chosen.Ports[0].NodePort, got.ClusterIP, got.Ports[0].NodePort)
	}
}

// A full lab is laid out in no time.
func TestManyPods(t *testing.T) {
	lab := shipped(t)
	set, _, err := workload.Set{}.Apply(lab, start, decode(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 1000
  selector: {matchLabels: {app: many}}
  template: {metadata: {labels: {app: many}}, spec: {containers: [{name: a, image: traefik/whoami}]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	addresses, names := map[string]bool{}, map[string]bool{}
	for _, p := range set.Pods {
		names[p.Name] = true
		if p.Status.PodIP != "" {
			addresses[p.Status.PodIP] = true
		}
	}
	if len(names) != 1000 || len(addresses) != 3*253 {
		t.Errorf("%d names, %d addresses; want 1000, %d", len(names), len(addresses), 3*253)
	}
}
