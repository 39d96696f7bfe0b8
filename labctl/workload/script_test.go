package workload_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"

	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

var update = flag.Bool("update", false, "write what the package gives to testdata")

var start = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// TestScripts runs the steps of each archive, ten seconds apart, on the shipped
// lab unless the archive has a topology.yaml. A step's name says what it does:
//
//	*.apply    a manifest; "file NAME" stands for a shipped one
//	*.delete   lines of kind, namespace and name
//	*.wait     lets that much time pass before the next step
//	*.lose     nodes of the topology that go away
//	*.cluster  nothing: what the agents get, as JSON
//
// and NAME.want is all that it leads to.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, archive)
			if again := runScript(t, archive); !bytes.Equal(txtar.Format(got), txtar.Format(again)) {
				t.Error("two runs differ")
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); diff != "" {
				t.Errorf("(-want +got; -update writes it):\n%s", diff)
			}
		})
	}
}

type script struct {
	t    *testing.T
	topo *topo.Topology
	now  time.Time
	set  workload.Set
}

func runScript(t *testing.T, archive *txtar.Archive) *txtar.Archive {
	t.Helper()
	s := &script{t: t, topo: shipped(t), now: start, set: workload.Set{Key: []byte("0123456789abcdef0123456789abcdef")}}
	got := &txtar.Archive{Comment: archive.Comment}
	for _, f := range archive.Files {
		if strings.HasSuffix(f.Name, ".want") {
			continue
		}
		got.Files = append(got.Files, f)
		if f.Name == "topology.yaml" {
			var err error
			if s.topo, err = topo.Load(f.Name, bytes.NewReader(f.Data)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		before := asJSON(t, s.set)
		was := s.set
		result := s.step(f)
		if asJSON(t, was) != before {
			t.Errorf("%s changed the set that it was given", f.Name)
		}
		// What is kept on disk between two commands is all that there is.
		var read workload.Set
		if err := json.Unmarshal([]byte(asJSON(t, s.set)), &read); err != nil {
			t.Fatal(err)
		}
		s.set = read
		if filepath.Ext(f.Name) == ".wait" {
			continue
		}
		got.Files = append(got.Files, txtar.File{Name: f.Name + ".want", Data: []byte(result)})
		s.now = s.now.Add(10 * time.Second)
	}
	return got
}

func (s *script) step(f txtar.File) string {
	var changes []workload.Change
	var err error
	switch filepath.Ext(f.Name) {
	case ".apply":
		objs, notices, decodeErr := manifest.Decode(f.Name, bytes.NewReader(s.included(f.Data)))
		if decodeErr != nil || len(notices) > 0 {
			return fmt.Sprintln(decodeErr, notices)
		}
		s.set, changes, err = s.set.Apply(s.topo, s.now, objs)
	case ".delete":
		var refs []manifest.Ref
		for line := range strings.Lines(string(f.Data)) {
			fields := strings.Fields(line)
			refs = append(refs, manifest.Ref{Kind: fields[0], Namespace: strings.TrimPrefix(fields[1], "-"), Name: fields[2]})
		}
		s.set, changes, err = s.set.Delete(s.topo, s.now, refs, false)
	case ".wait":
		pause, err := time.ParseDuration(strings.TrimSpace(string(f.Data)))
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(pause)
		return ""
	case ".lose":
		for _, name := range strings.Fields(string(f.Data)) {
			s.topo.Nodes = slices.DeleteFunc(slices.Clone(s.topo.Nodes), func(e topo.Entry[topo.Node]) bool { return e.Name == name })
		}
		s.set, err = s.set.Reconcile(s.topo, s.now)
	case ".cluster":
		c, err := s.set.Cluster(s.topo, nil)
		if err != nil {
			return err.Error() + "\n"
		}
		return asJSON(s.t, c) + "\n"
	default:
		s.t.Fatalf("unknown step %s", f.Name)
	}
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, c)
	}
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	b.WriteString(tables(s.set))
	return b.String()
}

func (s *script) included(data []byte) []byte {
	name, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "file ")
	if !ok {
		return data
	}
	return shippedManifest(s.t, name)
}

func shippedManifest(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("../../topologies/workloads/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func shipped(t *testing.T) *topo.Topology {
	t.Helper()
	lab, err := topologies.Load(topologies.Default)
	if err != nil {
		t.Fatal(err)
	}
	return lab
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tables shows all that the set gave to objects.
func tables(s workload.Set) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, n := range s.Namespaces {
		fmt.Fprintf(w, "namespace\t%s\t%s\n", n.Name, n.UID)
	}
	for _, d := range s.Deployments {
		fmt.Fprintf(w, "deployment\t%s/%s\t%d\tgeneration %d\n", d.Namespace, d.Name, *d.Spec.Replicas, d.Generation)
	}
	for _, r := range s.ReplicaSets {
		fmt.Fprintf(w, "replicaset\t%s/%s\t%d\n", r.Namespace, r.Name, *r.Spec.Replicas)
	}
	for _, p := range s.Pods {
		node, address := p.Spec.NodeName, p.Status.PodIP
		if address == "" {
			address = "Pending: " + p.Status.Conditions[0].Message
		}
		if node == "" {
			node = "<none>"
		}
		fmt.Fprintf(w, "pod\t%s/%s\t%s\t%s\t%s\n", p.Namespace, p.Name, node, address, p.UID[:8])
	}
	for _, v := range s.Services {
		fmt.Fprintf(w, "service\t%s/%s\t%s\t%s\t%s\n", v.Namespace, v.Name, v.Spec.Type, v.Spec.ClusterIP, portsOf(v))
	}
	for _, key := range slices.Sorted(maps.Keys(s.Identities)) {
		fmt.Fprintf(w, "identity\t%d\t%s\n", s.Identities[key], key)
	}
	for _, l := range s.Leaving {
		fmt.Fprintf(w, "leaving\t%s\tuntil %s\n", l.Address, l.Until.Format(time.TimeOnly))
	}
	if err := errors.Join(w.Flush()); err != nil {
		panic(err)
	}
	return b.String()
}

func portsOf(v corev1.Service) string {
	var ports []string
	for _, p := range v.Spec.Ports {
		text := fmt.Sprintf("%d", p.Port)
		if p.NodePort != 0 {
			text += fmt.Sprintf(":%d", p.NodePort)
		}
		ports = append(ports, text+"/"+string(p.Protocol))
	}
	return strings.Join(ports, ",")
}
