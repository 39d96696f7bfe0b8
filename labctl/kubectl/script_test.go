package kubectl_test

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
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/kubectl"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies"
)

var update = flag.Bool("update", false, "write what the package gives to testdata")

var start = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// TestScripts runs the steps of each archive on the shipped lab:
//
//	*.apply   a manifest; "file NAME" stands for a shipped one
//	*.delete  lines of kind, namespace and name
//	*.wait    lets that much time pass
//	*.said    what agents say from then on, a line for each pod:
//	          NODE POD PHASE [CONTAINER…], a container as
//	          STATE[:REASON][,unready][,restarts=N][,exit=N][,started=AGO][,never]
//	*.silent  lines of a node and why its agent does not answer
//	get …     a command line, and all that it prints
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
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(archive)), string(got)); diff != "" {
				t.Errorf("(-want +got; -update writes it):\n%s", diff)
			}
		})
	}
}

type script struct {
	t    *testing.T
	lab  kubectl.Lab
	ever map[string]corev1.Pod // every pod that the lab ever had
	uses map[string]uint32     // their identities
}

func runScript(t *testing.T, archive *txtar.Archive) []byte {
	t.Helper()
	topology, err := topologies.Load(topologies.Default)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{
		t: t, ever: map[string]corev1.Pod{}, uses: map[string]uint32{},
		lab: kubectl.Lab{Topology: topology, Since: start, Now: start, Version: "0.1.0", Set: workload.Set{Key: make([]byte, 32)}},
	}
	got := &txtar.Archive{Comment: archive.Comment}
	for _, f := range archive.Files {
		if f.Name == "get" || strings.HasPrefix(f.Name, "get ") {
			f.Data = []byte(s.get(strings.Fields(f.Name)[1:]))
		} else {
			s.step(f)
		}
		got.Files = append(got.Files, f)
	}
	return txtar.Format(got)
}

func (s *script) step(f txtar.File) {
	s.t.Helper()
	var err error
	switch filepath.Ext(f.Name) {
	case ".apply":
		data := f.Data
		if name, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "file "); ok {
			if data, err = os.ReadFile("../../topologies/workloads/" + name); err != nil {
				s.t.Fatal(err)
			}
		}
		objects, _, decodeErr := manifest.Decode(f.Name, bytes.NewReader(data))
		if decodeErr != nil {
			s.t.Fatal(decodeErr)
		}
		s.lab.Set, _, err = s.lab.Set.Apply(s.lab.Topology, s.lab.Now, objects)
		s.remember()
	case ".delete":
		var refs []manifest.Ref
		for line := range strings.Lines(string(f.Data)) {
			w := strings.Fields(line)
			refs = append(refs, manifest.Ref{Kind: w[0], Namespace: w[1], Name: w[2]})
		}
		s.lab.Set, _, err = s.lab.Set.Delete(s.lab.Topology, s.lab.Now, refs, false)
	case ".wait":
		pause, parseErr := time.ParseDuration(strings.TrimSpace(string(f.Data)))
		s.lab.Now, err = s.lab.Now.Add(pause), parseErr
	case ".said":
		s.lab.Pods, s.lab.Silent = map[string][]api.PodStatus{}, nil
		for _, node := range s.lab.Topology.PodNodes() {
			s.lab.Pods[node] = []api.PodStatus{}
		}
		for line := range strings.Lines(string(f.Data)) {
			w := strings.Fields(line)
			if node := s.ever[w[1]].Spec.NodeName; node != w[0] {
				s.t.Fatalf("%s: pod %s is on %s", f.Name, w[1], node)
			}
			s.lab.Pods[w[0]] = append(s.lab.Pods[w[0]], s.said(w[1], w[2], w[3:]))
		}
	case ".silent":
		s.lab.Silent = map[string]error{}
		for line := range strings.Lines(string(f.Data)) {
			node, why, _ := strings.Cut(strings.TrimSpace(line), " ")
			s.lab.Silent[node] = errors.New(why)
			delete(s.lab.Pods, node)
		}
	default:
		s.t.Fatalf("unknown step %s", f.Name)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) remember() {
	cluster, err := s.lab.Set.Cluster(s.lab.Topology, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range s.lab.Set.Pods {
		s.ever[p.Name] = p
	}
	for _, p := range cluster.Pods {
		s.uses[p.Name] = p.Identity
	}
}

// said is what an agent says of a pod.
func (s *script) said(name, phase string, containers []string) api.PodStatus {
	s.t.Helper()
	p, ok := s.ever[name]
	if !ok {
		s.t.Fatalf("there was never a pod %s, but %v", name, slices.Sorted(maps.Keys(s.ever)))
	}
	status := api.PodStatus{
		Namespace: p.Namespace, Name: name, UID: string(p.UID), Phase: api.Phase(phase), Ready: phase == "Running",
		Started: p.CreationTimestamp.Add(time.Second), Identity: s.uses[name], Endpoint: 16, Index: 5, PID: 100,
	}
	if err := status.Address.UnmarshalText([]byte(p.Status.PodIP)); err != nil {
		s.t.Fatal(err)
	}
	for i, c := range p.Spec.Containers {
		text := "running"
		if i < len(containers) {
			text = containers[i]
		}
		one := api.ContainerStatus{Name: c.Name, Image: c.Image, Started: status.Started}
		state, more, _ := strings.Cut(text, ",")
		one.State, one.Reason, _ = strings.Cut(state, ":")
		one.Ready = one.State == "running"
		for word := range strings.SplitSeq(more, ",") {
			key, value, _ := strings.Cut(word, "=")
			switch n, _ := strconv.Atoi(value); key {
			case "unready":
				one.Ready = false
			case "restarts":
				one.Restarts = n
			case "exit":
				one.ExitCode = n
			case "started":
				ago, _ := time.ParseDuration(value)
				one.Started = s.lab.Now.Add(-ago)
			case "never":
				one.Started = time.Time{}
			}
		}
		status.Ready = status.Ready && one.Ready
		status.Containers = append(status.Containers, one)
	}
	return status
}

// get does what the command does, and returns all that it prints.
func (s *script) get(args []string) string {
	s.t.Helper()
	q := kubectl.Query{}
	l := kubectl.Layout{Age: kubectl.AgeAt(s.lab.Now)}
	f := pflag.NewFlagSet("get", pflag.ContinueOnError)
	f.StringVarP(&q.Namespace, "namespace", "n", "default", "")
	f.BoolVarP(&q.AllNamespaces, "all-namespaces", "A", false, "")
	f.StringVarP(&q.Labels, "selector", "l", "", "")
	f.StringVar(&q.Fields, "field-selector", "", "")
	f.BoolVar(&l.Labels, "show-labels", false, "")
	f.BoolVar(&l.Bare, "no-headers", false, "")
	f.StringVarP((*string)(&l.Format), "output", "o", string(ui.Table), "")
	if err := f.Parse(args); err != nil {
		s.t.Fatal(err)
	}
	q.Args = f.Args()
	request, err := q.Compile()
	if err != nil {
		return "usage: " + err.Error() + "\n"
	}
	before, _ := json.Marshal(s.lab.Set)
	answer, missing := request.Find(kubectl.View(s.lab))
	after, _ := json.Marshal(s.lab.Set)
	if !bytes.Equal(before, after) {
		s.t.Errorf("get %v changed the set", args)
	}
	var out bytes.Buffer
	if err := answer.Write(&out, l); err != nil {
		s.t.Fatal(err)
	}
	if missing != nil {
		if !errors.Is(missing, workload.ErrNotFound) {
			s.t.Errorf("%v does not match ErrNotFound", missing)
		}
		fmt.Fprintln(&out, "error:", missing)
	} else if answer.Empty() && (l.Format == ui.Table || l.Format == kubectl.Wide) {
		fmt.Fprintln(&out, "stderr:", answer.Nothing())
	}
	return out.String()
}
