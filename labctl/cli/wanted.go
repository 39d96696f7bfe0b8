package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

// maxRead bounds what is read of a topology, in bytes: more than the loader
// takes, so that it is the one to say so.
const maxRead = 4 << 20

// wanted loads the topology that a command line names: a shipped one by its
// name, a file, or without either that of the lab which is up, or the default.
func (a *app) wanted(ctx context.Context, args []string) (lab.Wanted, error) {
	source, err := a.source(ctx, args)
	if err != nil {
		return lab.Wanted{}, err
	}
	data, err := readTopology(source)
	if err != nil {
		return lab.Wanted{}, err
	}
	t, err := topo.Load(source, bytes.NewReader(data))
	if err != nil {
		return lab.Wanted{}, err
	}
	if err := a.chooseVirtualizer(t); err != nil {
		return lab.Wanted{}, err
	}
	objects, err := a.workloads(t, source)
	if err != nil {
		return lab.Wanted{}, err
	}
	if !slices.Contains(topologies.Names(), source) {
		if source, err = filepath.Abs(source); err != nil {
			return lab.Wanted{}, err
		}
	}
	return lab.Wanted{Topology: t, Source: source, Digest: digest(data), Objects: objects}, nil
}

// workloads reads the manifests that a topology names, which lie beside it.
func (a *app) workloads(t *topo.Topology, source string) (manifest.Objects, error) {
	open := func(name string) (fs.File, error) { return os.DirFS(filepath.Dir(source)).Open(name) }
	if slices.Contains(topologies.Names(), source) {
		open = topologies.OpenWorkload
	}
	var files []manifest.Objects
	for _, name := range t.Workloads {
		f, err := open(name)
		if err != nil {
			return manifest.Objects{}, usageError{fmt.Errorf("workload %s of %s: %w", name, source, err)}
		}
		objects, err := a.decode(name, f)
		if err = cmp.Or(err, f.Close()); err != nil {
			return manifest.Objects{}, err
		}
		files = append(files, objects)
	}
	return manifest.Join(files...)
}

// decode reads one manifest, and says what of it changes nothing in a lab.
func (a *app) decode(name string, r io.Reader) (manifest.Objects, error) {
	objects, notices, err := manifest.Decode(name, r)
	for _, n := range notices {
		if !a.quiet {
			fmt.Fprintln(a.Err, "note:", n)
		}
	}
	return objects, err
}

// source is the file or the name that a command line means.
func (a *app) source(ctx context.Context, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	l, err := a.current(ctx, silent())
	if errors.Is(err, errNoneUp) || errors.Is(err, errNotRoots) {
		return topologies.Default, nil
	}
	if err != nil {
		return "", err
	}
	saved, err := l.Store.Load(l.Name)
	if errors.Is(err, lab.ErrNoLab) && a.lab == "" {
		return topologies.Default, nil
	}
	return saved.Source, err
}

// readTopology prefers a shipped topology's name; a path has a dot or a slash in it.
func readTopology(source string) ([]byte, error) {
	open := func() (fs.File, error) {
		if info, err := os.Stat(source); err != nil || !info.Mode().IsRegular() {
			return nil, cmp.Or(err, errors.New("it is no regular file")) // to open a pipe would wait for its writer
		}
		return os.Open(source)
	}
	if slices.Contains(topologies.Names(), source) {
		open = func() (fs.File, error) { return topologies.Open(source) }
	}
	f, err := open()
	if err != nil {
		return nil, usageError{fmt.Errorf("topology %s: %w (a file, or one of %s)", source, err, strings.Join(topologies.Names(), ", "))}
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRead))
}

func completeTopologies(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return topologies.Names(), cobra.ShellCompDirectiveDefault
}

func addOutput(cmd *cobra.Command, output *ui.FormatFlag) {
	cmd.Flags().VarP(output, "output", "o", output.Usage())
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.Names(), cobra.ShellCompDirectiveNoFileComp)) // it fails only for a flag that is not there
}

// edited warns of a file that is not what the lab was brought up from any more.
func (a *app) edited(saved lab.Saved) string {
	data, err := readTopology(saved.Source)
	if err != nil {
		return fmt.Sprintf("%s, which the lab was brought up from, is not to be read any more: %v", saved.Source, err)
	}
	if digest(data) != saved.Digest {
		return saved.Source + " was edited since labctl up: what is deployed was checked, not the file (labctl up deploys it)"
	}
	return ""
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
