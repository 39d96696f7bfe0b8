//go:build linux && amd64

package testbed

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/native-routing/labctl/topologies"
)

// What a node has on a processor that is emulated: enough for what runs there.
const emulated = "resources: {cpus: 1, memoryMiB: 288}"

// What is edited in the shipped lab: its name, each node's resources, and what its VMs are made of.
var edited = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^  name: .*$`),
	regexp.MustCompile(`resources: \{.*\}`),
	regexp.MustCompile(`(?m)^  vagrant: \{.*\}$`),
}

// WriteLab writes the shipped lab under a name, on small VMs of the bed's box,
// with its workloads beside it, into a directory that is there; it returns the file.
func (b Bed) WriteLab(dir, name string) (string, error) {
	t, err := topologies.Load(topologies.Default)
	if err != nil {
		return "", err
	}
	for _, workload := range t.Workloads {
		text, err := read(topologies.OpenWorkload(workload))
		if err != nil {
			return "", err
		}
		file := filepath.Join(dir, workload)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	text, err := read(topologies.Open(topologies.Default))
	if err != nil {
		return "", err
	}
	for i, with := range []string{"  name: " + name, emulated, "  vagrant: {box: " + b.Box + ", provider: libvirt}"} {
		if !edited[i].MatchString(text) {
			return "", fmt.Errorf("the shipped lab has no %s", strings.TrimSpace(edited[i].String()))
		}
		text = edited[i].ReplaceAllString(text, with)
	}
	file := filepath.Join(dir, "lab.yaml")
	return file, os.WriteFile(file, []byte(text), 0o644)
}

func read(f fs.File, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	return string(text), err
}
