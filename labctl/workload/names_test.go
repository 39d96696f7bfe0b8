package workload_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/native-routing/labctl/labctl/workload"
)

// A long name is cut, and what comes of it is still a name, and another one for
// each pod.
func TestLongNames(t *testing.T) {
	lab, name := shipped(t), strings.Repeat("a", 60)
	set, _, err := workload.Set{}.Apply(lab, start, decode(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  replicas: 50
  selector: {matchExpressions: [{key: absent, operator: DoesNotExist}]}
  template: {spec: {containers: [{name: a, image: traefik/whoami}]}}
`, name)))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range set.Pods {
		if says := validation.IsDNS1123Label(p.Name); len(says) > 0 || seen[p.Name] {
			t.Errorf("%s: %v, or twice", p.Name, says)
		}
		seen[p.Name] = true
	}
	c, err := set.Cluster(lab, nil)
	if err != nil || len(c.Pods) != 50 {
		t.Fatalf("%d pods, %v", len(c.Pods), err)
	}
	if again, err := set.Reconcile(lab, start); err != nil || asJSON(t, again) != asJSON(t, set) {
		t.Errorf("a template without labels is replaced again and again: %v", err)
	}
}

// Two machines that apply the same manifests, at different times, get the same
// names, addresses and identities.
func TestSameEverywhere(t *testing.T) {
	lab, here := study(t)
	objs := decode(t, string(shippedManifest(t, "webpod.yaml")))
	before := asJSON(t, objs)
	there, _, err := workload.Set{}.Apply(lab, start.AddDate(1, 0, 0), objs)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, asJSON(t, objs)); diff != "" {
		t.Errorf("Apply changed the manifest:\n%s", diff)
	}
	for _, p := range there.Pods {
		q := byName(here, p.Name)
		if p.Spec.NodeName != q.Spec.NodeName || p.UID == q.UID {
			t.Errorf("%s: on %s there, on %q here; UIDs %s and %s", p.Name, p.Spec.NodeName, q.Spec.NodeName, p.UID, q.UID)
		}
	}
	for key, n := range there.Identities {
		if here.Identities[key] != n {
			t.Errorf("%s is %d there and %d here", key, n, here.Identities[key])
		}
	}
	if a, b := here.Services[0].Spec.ClusterIP, there.Services[0].Spec.ClusterIP; a != b {
		t.Errorf("the service has %s here and %s there", a, b)
	}
	lab.Metadata.Name = "another"
	other, _, err := workload.Set{}.Apply(lab, start, objs)
	if err != nil || other.Services[0].Spec.ClusterIP == here.Services[0].Spec.ClusterIP {
		t.Errorf("another lab has the same address: %v", err)
	}
}
