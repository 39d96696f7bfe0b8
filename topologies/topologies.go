// Package topologies holds the labs that labctl ships, and the schema of their files.
package topologies

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/native-routing/labctl/topologies/topo"
)

//go:generate go run ./schemagen -o schema.json

// Default is the lab that comes up where no other one is named.
const Default = "native-routing"

// ErrNotShipped is a name that no shipped topology has.
var ErrNotShipped = errors.New("no such topology is shipped")

//go:embed *.yaml workloads lessons
var files embed.FS

//go:embed schema.json
var schema []byte

// Names lists the shipped topologies: the default one, then the others by name.
func Names() []string {
	names := []string{Default}
	entries, _ := files.ReadDir(".") // the embedded root is always there
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		if name := strings.TrimSuffix(e.Name(), ".yaml"); name != Default {
			names = append(names, name)
		}
	}
	return names
}

// Open opens the file of a shipped topology; ErrNotShipped where there is none.
func Open(name string) (fs.File, error) {
	f, err := files.Open(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("%s: %w (there are %s)", name, ErrNotShipped, strings.Join(Names(), ", "))
	}
	return f, nil
}

// OpenWorkload opens a manifest of the shipped topologies, by its path there.
func OpenWorkload(path string) (fs.File, error) { return files.Open(path) }

// Load loads a shipped topology; ErrNotShipped where there is none.
func Load(name string) (*topo.Topology, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return topo.Load(name+".yaml", f)
}

// Schema returns the JSON schema of topology files, for editors. It says what
// shape a file has; [topo.Load] knows what makes sense.
func Schema() []byte { return append([]byte(nil), schema...) }
