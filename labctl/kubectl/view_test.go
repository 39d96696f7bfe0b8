package kubectl_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/kubectl"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies"
)

// TestManyEndpointsFillSeveralSlices: every endpoint is in exactly one slice,
// none of which holds more than a hundred.
func TestManyEndpointsFillSeveralSlices(t *testing.T) {
	topology, err := topologies.Load(topologies.Default)
	if err != nil {
		t.Fatal(err)
	}
	const pods = 230
	set := workload.Set{Services: []corev1.Service{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}},
	}}}
	said := map[string][]api.PodStatus{"k8s-ctr": {}}
	address := netip.MustParseAddr("172.20.0.2")
	for i := range pods {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("web-%d", i), UID: "u", Labels: map[string]string{"app": "web"},
		}}
		p.Spec.NodeName, p.Status.PodIP = "k8s-ctr", address.String()
		set.Pods = append(set.Pods, p)
		address = address.Next()
	}
	view := kubectl.View(kubectl.Lab{Set: set, Topology: topology, Pods: said})
	seen, names := map[string]int{}, map[string]bool{}
	for _, s := range view.EndpointSlices {
		if s.Namespace != "default" {
			continue
		}
		names[s.Name] = true
		if len(s.Endpoints) > 100 {
			t.Errorf("%s has %d endpoints", s.Name, len(s.Endpoints))
		}
		for _, e := range s.Endpoints {
			seen[e.Addresses[0]]++
		}
	}
	if len(names) != 3 || len(seen) != pods {
		t.Errorf("%d slices with %d addresses, want 3 with %d", len(names), len(seen), pods)
	}
	for address, n := range seen {
		if n != 1 {
			t.Errorf("%s is in %d slices", address, n)
		}
	}
}

// TestViewTakesWhatItGets: a set that does not fit the topology, and agents that
// say odd things, are shown and not stumbled over.
func TestViewTakesWhatItGets(t *testing.T) {
	topology, err := topologies.Load(topologies.Default)
	if err != nil {
		t.Fatal(err)
	}
	lab := kubectl.Lab{
		Topology: topology,
		Set: workload.Set{
			Pods:        []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "lost", UID: "1"}, Spec: corev1.PodSpec{NodeName: "gone"}}},
			Deployments: []appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bare"}}},
		},
		Pods: map[string][]api.PodStatus{
			"gone":    {{Namespace: "default", Name: "ghost", UID: "2", Phase: api.PodTerminating, Reason: "Odd"}},
			"k8s-ctr": {{Namespace: "default", Name: "ghost", UID: "2", Phase: api.PodRunning, Containers: []api.ContainerStatus{{Name: "c", State: "odd"}}}},
		},
		Silent: map[string]error{"k8s-w0": errors.New("silent")},
	}
	out, err := answer(lab, kubectl.Query{Args: []string{"all,nodes,ep,endpointslices,cep"}, AllNamespaces: true}, kubectl.Wide)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"default     pod/ghost   0/0     Terminating   0          <unknown>   <none>   gone      <none>           <none>",
		"default     pod/ghost   0/1     Terminating   0          <unknown>   <none>   k8s-ctr   <none>           <none>",
		"default     pod/lost    0/0                   0          <unknown>   <none>   gone      <none>           <none>",
		"default     deployment.apps/bare   0/1     0            0           <unknown>                         ",
	} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
}

func answer(lab kubectl.Lab, q kubectl.Query, format ui.Format) (string, error) {
	request, err := q.Compile()
	if err != nil {
		return "", err
	}
	found, err := request.Find(kubectl.View(lab))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = found.Write(&out, kubectl.Layout{Format: format, Age: kubectl.AgeAt(lab.Now)})
	return out.String(), err
}
