package check

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/lb"
)

// What the checks want in the maps is what the agent puts there.
func TestFrontendsAreTheAgents(t *testing.T) {
	shapes := map[string]func(*api.Cluster){
		"shipped":        func(*api.Cluster) {},
		"nodeport":       ported,
		"external local": func(c *api.Cluster) { ported(c); c.Services[0].ExternalLocal = true },
		"internal local": func(c *api.Cluster) { ported(c); c.Services[0].InternalLocal = true },
		"both local": func(c *api.Cluster) {
			ported(c)
			c.Services[0].InternalLocal, c.Services[0].ExternalLocal = true, true
		},
		"external IP": func(c *api.Cluster) {
			c.Services[0].ExternalIPs = append(c.Services[0].ExternalIPs, ip("192.168.10.211"))
			c.Services[0].Affinity = time.Hour
		},
		"headless":    func(c *api.Cluster) { c.Services[0].ClusterIP = netip.Addr{} },
		"maintenance": func(c *api.Cluster) { c.Pods[1].BackendState = "maintenance" },
		"quarantined": func(c *api.Cluster) { c.Pods[1].BackendState = "quarantined" },
		"kube-proxy":  func(c *api.Cluster) { c.KubeProxyReplacement = false },
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			subject := serviceSubject(t, "static-routes", shape)
			s := newServices(subject, Selection{})
			readiness := map[string]lb.Readiness{}
			for i, p := range s.cluster.Pods {
				ready := i != 2
				s.lists[p.Node] = api.PodList{Pods: append(s.lists[p.Node].Pods, api.PodStatus{Namespace: p.Namespace, Name: p.Name, Address: p.Address, Phase: api.PodRunning, Ready: ready})}
				readiness[p.Key()] = lb.NotReady
				if ready {
					readiness[p.Key()] = lb.Ready
				}
			}
			for _, node := range s.cluster.Nodes {
				var want, got []string
				for _, f := range lb.Compile(lb.Input{Node: node.Name, Cluster: &s.cluster, Readiness: readiness}).Frontends {
					text := f.Key.String() + " of " + f.Service
					for _, b := range f.Backends[:f.Count] {
						text += " " + b.Address.AddrPort().String()
					}
					want = append(want, text)
				}
				for _, f := range s.frontends(node) {
					text := f.String() + " of " + f.service.Key()
					for _, b := range f.backends {
						text += " " + b.address.String()
					}
					got = append(got, text)
				}
				slices.Sort(want)
				slices.Sort(got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: -agent +checks:\n%s", node.Name, diff)
				}
			}
		})
	}
}
