package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/topo"
)

// ported is the shipped cluster with the service open to the outside.
func ported(c *api.Cluster) {
	c.Services[0].Type, c.Services[0].Ports[0].NodePort = api.NodePort, 30080
}

// serviceSubject is the shipped lab in a stage, with what a test makes of the cluster.
func serviceSubject(t *testing.T, stage string, shape func(*api.Cluster)) Subject {
	t.Helper()
	return subjectOf(t, "native-routing", stage, shape)
}

func subjectOf(t *testing.T, lab, stage string, shape func(*api.Cluster)) Subject {
	t.Helper()
	whole := load(t, lab)
	staged, err := whole.Stage(stage)
	if err != nil {
		t.Fatal(err)
	}
	for i := range staged.Nodes {
		staged.Nodes[i].Value.WebServer = staged.Nodes[i].Value.Role == topo.RoleRouter
	}
	cluster := shippedCluster(staged)
	if shape != nil {
		shape(&cluster)
	}
	return Subject{Topology: staged, Stage: stage, Exceptions: whole.Exceptions(stage), Cluster: cluster}
}

func verifyServices(t *testing.T, stage string, shape func(*api.Cluster), spoil func(*clusterSimulator)) Report {
	t.Helper()
	subject := serviceSubject(t, stage, shape)
	s := newClusterSimulator(subject.Topology, subject.Cluster)
	if spoil != nil {
		spoil(s)
	}
	return RunServices(context.Background(), subject, s, Selection{})
}

func TestHealthyServices(t *testing.T) {
	for _, lab := range []struct {
		name, stage string
		shape       func(*api.Cluster)
	}{
		{"baseline", "baseline", nil},
		{"static-routes", "static-routes", nil},
		{"nodeport-baseline", "baseline", ported},
		{"nodeport", "static-routes", ported},
		{"nodeport-local", "static-routes", func(c *api.Cluster) {
			ported(c)
			web := &c.Services[0]
			web.ExternalLocal = true
			web.Backends = web.Backends[:2] // none on k8s-w0
		}},
		{"affinity", "static-routes", func(c *api.Cluster) { ported(c); c.Services[0].Affinity = time.Hour }},
		{"affinity-baseline", "baseline", func(c *api.Cluster) { c.Services[0].Affinity = time.Hour }},
		{"no-masquerade", "static-routes", func(c *api.Cluster) { c.Masquerade = false }},
	} {
		t.Run(lab.name, func(t *testing.T) {
			r := verifyServices(t, lab.stage, lab.shape, nil)
			if !r.Passed() {
				t.Errorf("a healthy lab does not pass:\n%s", text(r, false))
			}
			golden(t, "services-"+lab.name, text(r, true))
		})
	}
}

// The other labs have equal-cost ways and chains of routers.
func TestHealthyServicesElsewhere(t *testing.T) {
	for _, lab := range []string{"router-chain", "redundant-square"} {
		subject := subjectOf(t, lab, "", ported)
		r := RunAll(context.Background(), subject, newClusterSimulator(subject.Topology, subject.Cluster), Selection{})
		if !r.Passed() || r.Summary[OK] < 100 {
			t.Errorf("%s does not pass:\n%s", lab, text(r, false))
		}
	}
}

func (s *clusterSimulator) web(node string) *api.Frontend {
	for i, f := range s.maps[node].Frontends {
		if f.Service == "default/webpod" {
			return &s.maps[node].Frontends[i]
		}
	}
	return nil
}

func TestServiceFaults(t *testing.T) {
	faults := []struct {
		name  string
		stage string
		shape func(*api.Cluster)
		spoil func(*clusterSimulator)
	}{
		{"backend-missing", "static-routes", nil, func(s *clusterSimulator) {
			f := s.web("k8s-w1")
			f.Backends, f.Usable = f.Backends[:2], 2
		}},
		{"backend-missing-baseline", "baseline", nil, func(s *clusterSimulator) {
			f := s.web("k8s-ctr")
			f.Backends, f.Usable = f.Backends[:2], 2
		}},
		{"backend-extra", "static-routes", nil, func(s *clusterSimulator) {
			f := s.web("k8s-ctr")
			f.Backends = append(f.Backends, api.FrontendBackend{ID: 9, Address: netip.MustParseAddrPort("172.20.2.99:80"), State: "active"})
			f.Usable++
		}},
		{"frontend-missing", "static-routes", nil, func(s *clusterSimulator) {
			table := s.maps["k8s-w1"]
			table.Frontends = table.Frontends[1:]
		}},
		{"frontend-foreign", "static-routes", nil, func(s *clusterSimulator) {
			table := s.maps["k8s-w1"]
			table.Frontends = append(table.Frontends, api.Frontend{ID: 99, Address: netip.MustParseAddrPort("10.96.9.9:443"), Protocol: "TCP", Scope: "external"})
		}},
		{"pod-not-ready", "static-routes", nil, func(s *clusterSimulator) { s.unready("default/webpod-b", "CrashLoopBackOff") }},
		{"pod-not-ready-yet-in-the-map", "static-routes", nil, func(s *clusterSimulator) {
			stale := *s.maps["k8s-ctr"]
			s.unready("default/webpod-b", "readiness check fails")
			s.maps["k8s-ctr"] = &stale
		}},
		{"pod-gone", "static-routes", nil, func(s *clusterSimulator) {
			s.pods["k8s-w0"] = nil
			for _, n := range s.cluster.Nodes {
				s.fillMaps(n)
			}
		}},
		{"port-closed", "static-routes", nil, func(s *clusterSimulator) { s.closed["default/webpod-c"] = true }},
		{"masquerade-off", "baseline", nil, func(s *clusterSimulator) { s.unmasked["k8s-ctr"] = true }},
		{"masquerade-off-mended", "static-routes", nil, func(s *clusterSimulator) { s.unmasked["k8s-w1"] = true }},
		{"masquerade-inside", "static-routes", nil, func(s *clusterSimulator) { s.masks["k8s-ctr"] = true }},
		{"route-missing", "static-routes", nil, func(s *clusterSimulator) { s.delete("router", "172.20.1.0/24") }},
		{"direct-route-missing", "baseline", nil, func(s *clusterSimulator) { s.delete("k8s-ctr", "172.20.1.0/24") }},
		{"mended", "baseline", nil, func(s *clusterSimulator) {
			s.add("router", "172.20.0.0/24", "192.168.10.100", "eth1")
			s.add("router", "172.20.1.0/24", "192.168.10.101", "eth1")
			s.add("router", "172.20.2.0/24", "192.168.20.100", "eth2")
		}},
		{"half-mended", "baseline", nil, func(s *clusterSimulator) { s.add("router", "172.20.2.0/24", "192.168.20.100", "eth2") }},
		{"pods-route-missing", "static-routes", nil, func(s *clusterSimulator) { s.down("k8s-w1", "labctl_host") }},
		{"nodeport-swallowed", "static-routes", ported, func(s *clusterSimulator) { s.portDown["k8s-w1"] = true }},
		{"nodeport-source", "static-routes", ported, func(s *clusterSimulator) { s.noSNAT["k8s-ctr"] = true }},
		{"nodeport-unreachable", "static-routes", ported, func(s *clusterSimulator) { s.link("k8s-w1", "eth1").Carrier = false }},
		{"reverse", "static-routes", nil, func(s *clusterSimulator) { s.bare["k8s-w0"] = true }},
		{"biased", "static-routes", nil, func(s *clusterSimulator) { s.biased["k8s-ctr"] = true }},
		{"fickle", "static-routes", func(c *api.Cluster) { c.Services[0].Affinity = time.Hour }, func(s *clusterSimulator) { s.fickle["k8s-ctr"] = true }},
		{"name-stale", "static-routes", nil, func(s *clusterSimulator) { s.stale["k8s-w1"] = ip("10.96.1.1") }},
		{"name-server-mute", "static-routes", nil, func(s *clusterSimulator) { s.mute["k8s-w0"] = true }},
		{"drops", "baseline", nil, func(s *clusterSimulator) { s.growth["k8s-w1"] = map[string]uint64{"Invalid source ip": 12} }},
		{"firewall", "static-routes", nil, func(s *clusterSimulator) { s.drop["router"] = true }},
		{"tcp-firewall", "static-routes", nil, func(s *clusterSimulator) { s.filters["router"] = true }},
		{"own-tcp-lost", "static-routes", nil, func(s *clusterSimulator) { s.own["k8s-w1"] = true }},
		{"page-swallowed", "static-routes", nil, func(s *clusterSimulator) { s.webless["router"] = true }},
		{"address-gone", "baseline", nil, func(s *clusterSimulator) {
			s.bared["default/webpod-b"] = true
			s.objects["k8s-w1"] = []api.Object{{Kind: "pod", Name: "default/webpod-b", Condition: api.Drifted, Reason: "address 172.20.1.2/32 is missing; route default via 172.20.1.1 is missing"}}
		}},
		{"program-stopped", "static-routes", nil, func(s *clusterSimulator) { s.stopped["default/webpod-b"] = true }},
		{"map-unpinned", "static-routes", nil, func(s *clusterSimulator) {
			s.mapErrs["k8s-w1"] = errors.New("no datapath is loaded on this node (no map in /run/bpf/maps)")
		}},
		{"agent-dead", "baseline", nil, func(s *clusterSimulator) { s.dead["k8s-w0"] = true }},
		{"router-agent-dead", "baseline", nil, func(s *clusterSimulator) { s.dead["router"] = true }},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			r := verifyServices(t, f.stage, f.shape, f.spoil)
			if r.Passed() {
				t.Error("the fault was not seen")
			}
			if strings.HasSuffix(f.name, "agent-dead") && !r.Undecided() {
				t.Error("an agent that does not answer is no failure of a service")
			}
			golden(t, "services-fault-"+f.name, text(r, false))
		})
	}
}

func TestSentenceOfTheLesson(t *testing.T) {
	r := verifyServices(t, "baseline", nil, nil)
	const lesson = "webpod: backend 3 (172.20.2.2, k8s-w0) is active in the map and unreachable from k8s-ctr: one request in three fails; the router has no route for 172.20.2.0/24"
	for _, x := range r.Results {
		if x.Group == Service && strings.HasPrefix(x.Name, "curl-pod ") && strings.HasPrefix(x.Seen, lesson) {
			return
		}
	}
	t.Error("nobody says: " + lesson)
}

// One fault has the same words, and is counted once, in routes and in services.
func TestAllIsRoutesAndServices(t *testing.T) {
	subject := serviceSubject(t, "static-routes", nil)
	s := newClusterSimulator(subject.Topology, subject.Cluster)
	s.delete("router", "172.20.1.0/24")
	r := RunAll(context.Background(), subject, s, Selection{})
	if len(r.Causes) != 1 || r.Results[0].Group != Interfaces || r.Results[len(r.Results)-1].Group != Drops {
		t.Errorf("causes: %v", r.Causes)
	}
	if only := RunAll(context.Background(), subject, s, Selection{Groups: []Group{Maps}}); len(only.Results) != 9 || !only.Passed() {
		t.Errorf("maps alone: %s", text(only, true))
	}
	if routes := RunAll(context.Background(), subject, s, Selection{Groups: RouteGroups()}); routes.Results[len(routes.Results)-1].Group != Tracepath {
		t.Errorf("routes alone: %s", text(routes, true))
	}
}

func TestOneNodeOfServices(t *testing.T) {
	for _, node := range []string{"router", "k8s-w0"} {
		subject := serviceSubject(t, "baseline", ported)
		r := RunServices(context.Background(), subject, newClusterSimulator(subject.Topology, subject.Cluster), Selection{Nodes: []string{node}})
		if !r.Passed() || len(r.Results) == 0 {
			t.Errorf("%s", text(r, false))
		}
		for _, x := range r.Results {
			if x.Node != node {
				t.Errorf("%s is about %s", x.Name, x.Node)
			}
		}
	}
}

// A lab that declares that nothing balances services is not blamed for it.
func TestNothingBalances(t *testing.T) {
	r := verifyServices(t, "static-routes", func(c *api.Cluster) { c.KubeProxyReplacement = false }, func(s *clusterSimulator) {
		for _, table := range s.maps {
			table.Frontends = nil
		}
	})
	if !r.Passed() || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "cluster.kubeProxyReplacement: true") {
		t.Errorf("%s%s", text(r, false), r.Warnings)
	}
	for _, x := range r.Results {
		if slices.Contains([]Group{Service, Spread, NodePort, Reverse, DNS}, x.Group) {
			t.Errorf("%s: %s", x.Group, x.Name)
		}
	}
}

// Backends that are about to end serve as long as there is no other.
func TestAllBackendsTerminate(t *testing.T) {
	subject := serviceSubject(t, "static-routes", nil)
	s := newClusterSimulator(subject.Topology, subject.Cluster)
	for node, list := range s.pods {
		for i, p := range list {
			if p.Name != "curl-pod" {
				s.pods[node][i].Phase, s.pods[node][i].Ready = api.PodTerminating, false
			}
		}
		f := s.web(node)
		for i := range f.Backends {
			f.Backends[i].State = "terminating"
		}
	}
	c := &subject.Cluster // as after labctl delete: the pods are no one's any more
	c.Pods, c.Services[0].Backends = c.Pods[len(c.Pods)-1:], nil
	if r := RunServices(context.Background(), subject, s, Selection{}); !r.Passed() {
		t.Errorf("%s", text(r, false))
	}
}

// Where pods changed while the verifier looked, it looks again.
func TestLooksAgainWherePodsChange(t *testing.T) {
	subject := serviceSubject(t, "static-routes", nil)
	s := newClusterSimulator(subject.Topology, subject.Cluster)
	s.unready("default/webpod-b", "its containers are being started")
	s.meanwhile = func() {
		s.pods["k8s-w1"] = slices.Clone(s.pods["k8s-w1"])
		p := s.status("default/webpod-b")
		p.Ready, p.Reason = true, ""
		for _, n := range s.cluster.Nodes {
			s.fillMaps(n)
		}
	}
	if r := RunServices(context.Background(), subject, s, Selection{}); !r.Passed() {
		t.Errorf("%s", text(r, false))
	}
}

// What a busy machine does not connect in time is asked once more.
func TestLateConnectionsAreRepeated(t *testing.T) {
	r := verifyServices(t, "static-routes", ported, func(s *clusterSimulator) { s.late["k8s-ctr"], s.late["router"], s.late["k8s-w0"] = 8, 2, 8 })
	if !r.Passed() {
		t.Errorf("%s", text(r, false))
	}
}

// Where nodes are slow, so is what was connected and not answered in time. On
// namespaces that is no matter of time.
func TestLateAnswersAreRepeatedOnSlowNodes(t *testing.T) {
	for patience, passes := range map[int]bool{1: false, 3: true} {
		subject := serviceSubject(t, "static-routes", ported)
		subject.Patience = patience
		s := newClusterSimulator(subject.Topology, subject.Cluster)
		s.slow, s.late["k8s-ctr"], s.late["k8s-w0"] = true, 8, 8
		if r := RunServices(context.Background(), subject, s, Selection{}); r.Passed() != passes {
			t.Errorf("patience %d: passed %v\n%s", patience, r.Passed(), text(r, false))
		}
	}
}

// waits notes how long requests to a service are waited for, by who asks.
type waits struct {
	*clusterSimulator
	mu    sync.Mutex
	longs map[string][]time.Duration
}

func (w *waits) Fetch(ctx context.Context, node string, targets []api.FetchTarget) ([]api.FetchResult, error) {
	w.mu.Lock()
	for _, t := range targets {
		if t.To == w.cluster.Services[0].ClusterIP {
			w.longs[node] = append(w.longs[node], t.Timeout)
		}
	}
	w.mu.Unlock()
	return w.clusterSimulator.Fetch(ctx, node, targets)
}

// Slow nodes are waited for, but not where losses are known of: a third of the
// requests to a service are, in the first stage.
func TestKnownLossesAreNotWaitedForLong(t *testing.T) {
	for stage, want := range map[string]time.Duration{"baseline": 3 * fetchTimeout, "static-routes": 3 * gentle.timeout} {
		subject := serviceSubject(t, stage, nil)
		subject.Patience = 3
		w := &waits{clusterSimulator: newClusterSimulator(subject.Topology, subject.Cluster), longs: map[string][]time.Duration{}}
		if r := RunServices(context.Background(), subject, w, Selection{}); !r.Passed() {
			t.Errorf("%s", text(r, false))
		}
		got := w.longs["k8s-ctr"]
		if len(got) == 0 || slices.Min(got) != want || slices.Max(got) != want {
			t.Errorf("%s: k8s-ctr waits for %v, want %s", stage, got, want)
		}
	}
}

// crowd is the shipped cluster with so many replicas and services.
func crowd(replicas, services int) func(*api.Cluster) {
	return func(c *api.Cluster) {
		for service := range services {
			web := c.Services[0]
			web.Name, web.ClusterIP, web.Backends = fmt.Sprintf("web%d", service), netip.AddrFrom4([4]byte{10, 96, 1, byte(service)}), nil
			for i := range replicas {
				n := c.Nodes[i%len(c.Nodes)]
				a := n.Gateway.As4()
				a[3] = byte(10 + service*replicas/len(c.Nodes) + i/len(c.Nodes))
				name := fmt.Sprintf("%s-%d", web.Name, i)
				c.Pods = append(c.Pods, api.Pod{Namespace: "default", Name: name, Node: n.Name, Address: netip.AddrFrom4(a), Spec: c.Pods[0].Spec})
				web.Backends = append(web.Backends, api.Backend{Address: netip.AddrFrom4(a), Node: n.Name, Pod: "default/" + name, Ports: []uint16{80}})
			}
			c.Services = append(c.Services, web)
		}
	}
}

// Much is sampled, sent in calls of bounded cost, and still tells what is wrong.
func TestCrowdIsSampled(t *testing.T) {
	for name, spoil := range map[string]func(*clusterSimulator){
		"healthy": nil,
		"route":   func(s *clusterSimulator) { s.delete("router", "172.20.1.0/24") },
	} {
		subject := serviceSubject(t, "static-routes", crowd(36, 2))
		s := newClusterSimulator(subject.Topology, subject.Cluster)
		if spoil != nil {
			spoil(s)
		}
		r := RunServices(context.Background(), subject, s, Selection{})
		total := 0
		for _, n := range s.asked {
			total += n
		}
		if total > 20_000 || s.most > callRequests {
			t.Errorf("%s: %d requests, %d in one call", name, total, s.most)
		}
		if len(r.Warnings) == 0 || !strings.Contains(r.Warnings[0], "ask nothing") && !strings.Contains(r.Warnings[0], "sampled") {
			t.Errorf("%s: nobody says that it is a sample: %s", name, r.Warnings)
		}
		if r.Passed() != (spoil == nil) || spoil != nil && len(r.Causes) != 1 {
			t.Errorf("%s: %d causes\n%.4000s", name, len(r.Causes), text(r, false))
		}
	}
}

// A call may take as long as all that is asked of it is lost.
func TestLimits(t *testing.T) {
	for name, test := range map[string]struct{ got, want time.Duration }{
		"fetch":    {fetchLimit([]api.FetchTarget{{Count: 20, Parallel: 8, Timeout: time.Second}, {Count: 1, Timeout: 2 * time.Second}}), 10*time.Second + margin},
		"ping":     {pingLimit([]api.PingTarget{{Count: 3, Interval: time.Second, Timeout: time.Second}}), 4*time.Second + margin},
		"trace":    {traceLimit([]api.TraceTarget{{MaxHops: 16, Tries: 2, Timeout: time.Second}}), 32*time.Second + margin},
		"no fetch": {fetchLimit(nil), margin},
	} {
		if test.got != test.want {
			t.Errorf("%s: %s, want %s", name, test.got, test.want)
		}
	}
}

// Whoever did not look out for packets is blamed for that, and not for silence.
func TestBlindNodeIsTold(t *testing.T) {
	subject := serviceSubject(t, "baseline", nil)
	s := newClusterSimulator(subject.Topology, subject.Cluster)
	s.blind = map[string]error{"router": errors.New("too many witnesses")}
	for name, r := range map[string]Report{
		"services": RunServices(context.Background(), subject, s, Selection{}), "routes": Run(context.Background(), subject, s, Selection{}),
	} {
		if !r.Undecided() || len(r.Causes) != 1 || r.Causes[0].String() != "router: does not look out for packets: too many witnesses" {
			t.Errorf("%s: %v", name, r.Causes)
		}
	}
}

func TestLabWithoutCluster(t *testing.T) {
	subject := serviceSubject(t, "baseline", func(c *api.Cluster) { *c = api.Cluster{} })
	if r := RunServices(context.Background(), subject, nil, Selection{}); len(r.Results) != 0 || !r.Passed() {
		t.Errorf("%s", text(r, true))
	}
}

// An agent that takes calls and does not answer costs its bound, and no more.
func TestHungAgentIsBounded(t *testing.T) {
	subject := serviceSubject(t, "static-routes", nil)
	s := newClusterSimulator(subject.Topology, subject.Cluster)
	s.hangs["k8s-w0"] = true
	start := time.Now()
	r := runServices(context.Background(), subject, bounded{s, 100 * time.Millisecond, Subject{}.patient}, Selection{})
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if !r.Undecided() || len(r.Causes) != 1 || !strings.Contains(r.Causes[0].Reason, "hangs") {
		t.Errorf("%s", text(r, false))
	}
}

func TestEndsWithItsContext(t *testing.T) {
	subject := serviceSubject(t, "static-routes", nil)
	s := newClusterSimulator(subject.Topology, subject.Cluster)
	s.hangs["k8s-w0"] = true
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	r := RunServices(ctx, subject, s, Selection{})
	if took := time.Since(start); took > 20*time.Second || r.Passed() {
		t.Errorf("it took %s\n%s", took, text(r, false))
	}
}

func TestEnough(t *testing.T) {
	affine := api.Service{Affinity: time.Hour}
	for _, test := range []struct {
		service  api.Service
		backends int
		want     int
	}{{api.Service{}, 0, 1}, {api.Service{}, 1, 2}, {api.Service{}, 2, 31}, {api.Service{}, 3, 54}, {api.Service{}, 10, 219}, {api.Service{}, 100, maxRequests}, {affine, 3, affineRequests}} {
		if got := enough(test.service, test.backends); got != test.want {
			t.Errorf("%d backends: %d requests, want %d", test.backends, got, test.want)
		}
	}
}

// The values of the chi-square distribution's upper tail are R's pchisq(…, lower.tail=FALSE).
func TestChance(t *testing.T) {
	for _, test := range []struct {
		statistic float64
		freedom   int
		want      float64
	}{{0, 2, 1}, {5.991465, 2, 0.05}, {27.63102, 2, 1e-6}, {3.841459, 1, 0.05}, {18.30704, 10, 0.05}, {7, 0, 1}} {
		if got := chance(test.statistic, test.freedom); got < test.want*0.999 || got > test.want*1.001 {
			t.Errorf("chi-square %g with %d degrees of freedom: %g, want %g", test.statistic, test.freedom, got, test.want)
		}
	}
}
