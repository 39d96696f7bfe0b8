package manifest_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/manifest"
)

var update = flag.Bool("update", false, "write what the package gives to testdata")

// TestManifests decodes each file of each archive; NAME.want is all that comes
// of it: mistakes, notices, objects.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no manifests", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := &txtar.Archive{Comment: archive.Comment}
			for _, f := range archive.Files {
				if !strings.HasSuffix(f.Name, ".want") {
					got.Files = append(got.Files, f, txtar.File{Name: f.Name + ".want", Data: []byte(outcome(t, f))})
				}
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

func outcome(t *testing.T, f txtar.File) string {
	t.Helper()
	objs, notices, err := manifest.Decode(f.Name, bytes.NewReader(f.Data))
	var b strings.Builder
	for _, n := range notices {
		fmt.Fprintln(&b, "notice:", n)
	}
	if err != nil {
		if !errors.Is(err, manifest.ErrInvalid) {
			t.Errorf("%s: %v is not ErrInvalid", f.Name, err)
		}
		for line := range strings.Lines(err.Error() + "\n") {
			b.WriteString("mistake: " + line)
		}
	}
	for _, r := range objs.Refs {
		fmt.Fprintf(&b, "%s at %s\n", r, objs.Where(r, ""))
	}
	dump := func(object any) {
		text, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("---\n" + string(text))
	}
	for _, o := range objs.Namespaces {
		dump(o)
	}
	for _, o := range objs.Deployments {
		dump(o)
	}
	for _, o := range objs.Pods {
		dump(o)
	}
	for _, o := range objs.Services {
		dump(o)
	}
	return b.String()
}

// The study's manifests are taken as they are, and what is read is what they say.
func TestStudy(t *testing.T) {
	for _, name := range []string{"webpod.yaml", "curl-pod.yaml"} {
		data, err := os.ReadFile("../../topologies/workloads/" + name)
		if err != nil {
			t.Fatal(err)
		}
		objs, notices, err := manifest.Decode(name, bytes.NewReader(data))
		if err != nil || len(notices) > 0 {
			t.Errorf("%s: %v, %v", name, notices, err)
			continue
		}
		documents := strings.Split(string(data), "\n---\n")
		var all []any
		for i := range objs.Deployments {
			objs.Deployments[i].Namespace = ""
			all = append(all, objs.Deployments[i])
		}
		for i := range objs.Pods {
			objs.Pods[i].Namespace = ""
			all = append(all, objs.Pods[i])
		}
		for i := range objs.Services {
			objs.Services[i].Namespace = ""
			all = append(all, objs.Services[i])
		}
		if len(all) != len(documents) {
			t.Fatalf("%s: %d objects of %d documents", name, len(all), len(documents))
		}
		for i, document := range documents {
			want := decodeAsKubernetes(t, document, all[i])
			got, err := yaml.Marshal(all[i])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("%s, document %d, differs from what Kubernetes' own decoder reads (-want +got):\n%s", name, i+1, diff)
			}
		}
	}
}

func TestJoin(t *testing.T) {
	read := func(name, text string) manifest.Objects {
		objs, _, err := manifest.Decode(name, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return objs
	}
	pod := `{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {containers: [{name: a, image: nicolaka/netshoot}]}}`
	a, b := read("a.yaml", fmt.Sprintf(pod, "a")), read("b.yaml", "\n"+fmt.Sprintf(pod, "b"))
	both, err := manifest.Join(a, b)
	if want := []manifest.Ref{{Kind: "Pod", Namespace: "default", Name: "a"}, {Kind: "Pod", Namespace: "default", Name: "b"}}; err != nil || !cmp.Equal(want, both.Refs) || len(both.Pods) != 2 {
		t.Errorf("Join = %v, %v", both.Refs, err)
	}
	if got := both.Where(both.Refs[1], "spec.containers[0].image"); got != "b.yaml:2" {
		t.Errorf("Where = %s", got)
	}
	_, err = manifest.Join(a, b, read("c.yaml", "\n\n"+fmt.Sprintf(pod, "a")))
	if want := "c.yaml:3:1: Pod a: stands already at a.yaml:1; keep one of the two"; err == nil || err.Error() != want || !errors.Is(err, manifest.ErrInvalid) {
		t.Errorf("Join = %v, want %s", err, want)
	}
}

func TestReadError(t *testing.T) {
	_, _, err := manifest.Decode("-", iotest.ErrReader(io.ErrUnexpectedEOF))
	if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, manifest.ErrInvalid) {
		t.Errorf("Decode = %v", err)
	}
}

func TestProgram(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for image, want := range map[string]api.Program{
		"traefik/whoami":                             api.ProgramWhoami,
		"traefik/whoami:v1.11.0":                     api.ProgramWhoami,
		"docker.io/traefik/whoami":                   api.ProgramWhoami,
		"index.docker.io/traefik/whoami:latest":      api.ProgramWhoami,
		"nicolaka/netshoot":                          api.ProgramTools,
		"nicolaka/netshoot:v0.13" + digest:           api.ProgramTools,
		"docker.io/nicolaka/netshoot" + digest:       api.ProgramTools,
		"":                                           "",
		"whoami":                                     "",
		"library/whoami":                             "",
		"traefik/whoami:":                            "",
		"traefik/whoami:a:b":                         "",
		"traefik/whoami@sha256:abc":                  "",
		"ghcr.io/traefik/whoami":                     "",
		"traefik/whoami/x":                           "",
		"docker.io/docker.io/traefik/whoami":         "",
		"traefik/whoami\n":                           "",
		"localhost:5000/traefik/whoami":              "",
		"traefik/whoami:" + strings.Repeat("a", 129): "",
		"Traefik/whoami":                             "",
		"traefik/whoami:" + strings.Repeat("a", 128): api.ProgramWhoami,
	} {
		if got, ok := manifest.Program(image); got != want || ok != (want != "") {
			t.Errorf("Program(%q) = %q, %t; want %q", image, got, ok, want)
		}
	}
}
