//go:build linux

package netns

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/native-routing/labctl/topologies/topo"
)

// Labs finds labs by their directories, and by names for ip netns that point
// into them. The lab core's own files in the data directory make no lab.
func (p *Provider) Labs(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	at := p.options.paths("")
	labs := map[string]bool{}
	for _, look := range []struct {
		dir string
		lab func(name string) (lab string, ok bool)
	}{
		{at.run, func(name string) (string, bool) { return name, isDirectory(filepath.Join(at.run, name)) }},
		{at.data, func(name string) (string, bool) {
			return name, slices.ContainsFunc(p.options.paths(name).stored(), exists)
		}},
		{netnsDir, func(name string) (string, bool) {
			lab, node := splitName(name)
			return lab, pointsTo(filepath.Join(netnsDir, name), p.options.paths(lab).net(node))
		}},
		{etcNetnsDir, func(name string) (string, bool) {
			lab, _ := splitName(name)
			at, link := p.options.paths(lab), filepath.Join(etcNetnsDir, name)
			return lab, pointsTo(link, at.etc()) || pointsTo(link, at.etcPods())
		}},
	} {
		names, err := list(look.dir)
		if err != nil {
			return nil, fmt.Errorf("look for labs: %w", err)
		}
		for _, name := range names {
			if lab, ok := look.lab(name); ok && isLabName(lab) {
				labs[lab] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(labs)), nil
}

// splitName is the reverse of paths.name for any lab; empty for what is no lab's.
func splitName(name string) (lab, node string) {
	rest, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return "", ""
	}
	lab, node, _ = strings.Cut(rest, ".")
	return lab, node
}

// isLabName says whether a topology could have that name.
func isLabName(name string) bool {
	ok, err := regexp.MatchString(topo.NamePattern, name)
	return err == nil && ok && len(name) <= topo.MaxLabName
}

func pointsTo(path, target string) bool {
	now, err := os.Readlink(path)
	return err == nil && now == target
}

func isDirectory(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}
