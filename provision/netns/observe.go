//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/mounts"
	"github.com/native-routing/labctl/provision"
)

// leftovers is everything of a lab that has a name on this machine.
type leftovers struct {
	// parts says of each node which parts of it are there.
	parts map[string]nodeParts
	// fabric says that the fabric's namespace, its file or its name is there.
	fabric bool
	// mounts are all mount points below the lab's directories.
	mounts []string
	files  []string // directories too
	cgroup string   // the lab's; empty where it is not there
	// noCgroups says that this machine lets nobody make one.
	noCgroups bool
}

type nodeParts struct {
	net, uts       bool // mounted
	netFile        bool // a file, mounted upon or not
	named, etc     bool
	runDir, stored bool
	pins, cgroup   bool
}

func (l leftovers) names() []string {
	var names []string
	for name := range l.parts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (l leftovers) note(node string, set func(*nodeParts)) {
	parts := l.parts[node]
	set(&parts)
	l.parts[node] = parts
}

// scan finds the lab by names alone, each kind for itself: a run that was cut
// short may have left any of them.
func scan(at paths) (leftovers, error) {
	l := leftovers{parts: map[string]nodeParts{}, noCgroups: at.cgroup == ""}
	if err := l.scanNamespaces(at); err != nil {
		return l, err
	}
	for _, dir := range []struct {
		path string
		set  func(*nodeParts)
	}{
		{at.runNodes(), func(p *nodeParts) { p.runDir = true }},
		{at.dataNodes(), func(p *nodeParts) { p.stored = true }},
	} {
		names, err := list(dir.path)
		if err != nil {
			return l, err
		}
		for _, name := range names {
			l.note(name, dir.set)
		}
	}
	for _, dir := range []struct {
		path string
		set  func(*nodeParts)
	}{
		{netnsDir, func(p *nodeParts) { p.named = true }},
		{etcNetnsDir, func(p *nodeParts) { p.etc = true }},
	} {
		if err := l.scanSymlinks(at, dir.path, dir.set); err != nil {
			return l, err
		}
	}
	if at.ownBPF() {
		for _, name := range subdirectories(at.bpf()) {
			l.note(name, func(p *nodeParts) { p.pins = true })
		}
	}
	if isDirectory(at.cgroup) {
		l.cgroup = at.cgroup
		for _, name := range subdirectories(at.cgroup) {
			l.note(name, func(p *nodeParts) { p.cgroup = true })
		}
	}
	if err := l.scanMounts(at); err != nil {
		return l, err
	}
	for _, path := range append(at.stored(), at.run) {
		if exists(path) {
			l.files = append(l.files, path)
		}
	}
	return l, nil
}

func (l *leftovers) scanNamespaces(at paths) error {
	names, err := list(at.nsDir())
	if err != nil {
		return err
	}
	for _, name := range names {
		node, isNet := strings.CutSuffix(name, netSuffix)
		if node == fabricFile {
			l.fabric = true
			continue
		}
		f, err := openNS(filepath.Join(at.nsDir(), name))
		mounted := err == nil
		if mounted {
			f.Close()
		}
		if isNet {
			l.note(node, func(p *nodeParts) { p.net, p.netFile = mounted, true })
			continue
		}
		if node, isUTS := strings.CutSuffix(name, utsSuffix); isUTS {
			l.note(node, func(p *nodeParts) { p.uts = mounted })
		}
	}
	return nil
}

func (l *leftovers) scanSymlinks(at paths, dir string, set func(*nodeParts)) error {
	names, err := list(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		node, ok := at.nodeOf(name)
		if !ok {
			continue
		}
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if node == "" {
			l.fabric = true
			continue
		}
		l.note(node, set)
	}
	return nil
}

func (l *leftovers) scanMounts(at paths) error {
	points, err := mounts.Read("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, p := range points {
		if strings.HasPrefix(p.Path, at.run+"/") || strings.HasPrefix(p.Path, at.data+"/") {
			l.mounts = append(l.mounts, p.Path)
		}
	}
	return nil
}

// list is empty where there is no such directory.
func list(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// Observe finds the lab's nodes, and in Objects the fabric, processes in the
// lab's namespaces and cgroups or with its mark, the lab's cgroup, mounts, and
// files. The lab core's own files in the data directory are not among them.
func (p *Provider) Observe(ctx context.Context, lab string) (provision.Observation, error) {
	var o provision.Observation
	if err := ctx.Err(); err != nil {
		return o, err
	}
	at := p.options.paths(lab)
	at.cgroup = labCgroup(p.options.cgroupRoot(), lab)
	found, err := scan(at)
	if err != nil {
		return o, fmt.Errorf("look at lab %s: %w", lab, err)
	}
	in := spaces{}
	in.add(at, "")
	for _, name := range found.names() {
		parts := found.parts[name]
		parts.cgroup = parts.cgroup || found.noCgroups // what nobody can have, nobody lacks
		o.Nodes = append(o.Nodes, parts.observed(name))
		in.add(at, name)
	}
	if found.fabric {
		o.Objects = append(o.Objects, "namespace "+at.name(""))
	}
	search, err := newSearch(lab, in, found.cgroup, func(string) bool { return true })
	if err != nil {
		return o, fmt.Errorf("look for the processes of lab %s: %w", lab, err)
	}
	running, err := search.processes()
	if err != nil {
		return o, fmt.Errorf("look for the processes of lab %s: %w", lab, err)
	}
	for _, r := range running {
		text := fmt.Sprintf("process %d (%s)", r.pid, r.command)
		if r.node != "" {
			text += " on " + r.node
		}
		o.Objects = append(o.Objects, text)
	}
	if found.cgroup != "" {
		o.Objects = append(o.Objects, "cgroup "+found.cgroup)
	}
	for _, m := range found.mounts {
		o.Objects = append(o.Objects, "mount "+m)
	}
	for _, f := range found.files {
		o.Objects = append(o.Objects, "file "+f)
	}
	o.Remarks = remarks(at, found)
	return o, nil
}

// observed judges a node by its parts.
func (p nodeParts) observed(name string) provision.ObservedNode {
	o := provision.ObservedNode{Name: name, State: provision.NodeBroken}
	var missing []string
	for _, part := range []struct {
		there bool
		name  string
	}{
		{p.net, "its network namespace is not mounted"}, {p.uts, "its hostname is not mounted"},
		{p.named, "its name for ip netns is missing"}, {p.etc, "its name in /etc/netns is missing"},
		{p.runDir, "its run directory is missing"}, {p.stored, "its data directory is missing"},
		{p.pins, "its BPF directory is missing"}, {p.cgroup, "its cgroup is missing"},
	} {
		if !part.there {
			missing = append(missing, part.name)
		}
	}
	switch {
	case len(missing) == 0:
		o.State = provision.NodeRunning
	case p.stored && !p.net && !p.uts && !p.netFile && !p.runDir:
		// As after the machine's restart: /run is empty.
		o.State, o.Detail = provision.NodeStopped, "its namespaces are gone, its files are there"
	default:
		o.Detail = strings.Join(missing, ", ")
	}
	return o
}

// remarks says which links differ from the file because of this machine.
func remarks(at paths, found leftovers) []string {
	var remarks []string
	for _, name := range found.names() {
		s, err := openSpace(at.net(name))
		if err != nil {
			continue // what is not there was said already
		}
		links, err := s.links()
		s.Close()
		if err != nil {
			continue
		}
		var stand []string
		for _, l := range links {
			if l.Kind == kindIFB && strings.HasPrefix(l.Alias, markPrefix(at.lab)) {
				stand = append(stand, l.Name)
			}
		}
		if len(stand) > 0 {
			remarks = append(remarks, fmt.Sprintf("%s: %s: ifb for dummy, which this kernel lacks (modprobe dummy)", name, strings.Join(stand, ", ")))
		}
	}
	return remarks
}
