//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// held is what one node's agent holds, and what it keeps in the kernel.
type held struct {
	// Pins are all pinned objects, without what tells versions apart.
	Pins []string
	// Maps are the kernel's numbers of the pinned maps. Programs are all that use
	// one of them, and Links all that attach one of these, pinned or not.
	Maps            []ebpf.MapID
	Programs, Links int
	Files           int
	RSS             int // in KiB
}

// held looks at every node that has a datapath.
func (l *loadLab) held() map[string]held {
	l.t.Helper()
	all := map[string]held{}
	for _, node := range podNodes {
		var h held
		root := filepath.Join(l.dir, "run", l.name, "bpf", node)
		h.Pins = pins(l.t, root)
		h.Maps = mapIDs(l.t, filepath.Join(root, "maps"))
		h.Programs, h.Links = users(l.t, h.Maps)
		h.Files, h.RSS = process(l.t, l.agentPID(node))
		all[node] = h
	}
	return all
}

func pins(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil || len(list) == 0 {
		t.Fatalf("nothing is pinned in %s: %v", root, err)
	}
	return list
}

func mapIDs(t *testing.T, dir string) []ebpf.MapID {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var ids []ebpf.MapID
	for _, e := range entries {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, e.Name()), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			t.Fatalf("open pinned map %s: %v", e.Name(), err)
		}
		info, err := m.Info()
		_ = m.Close()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		ids = append(ids, id)
	}
	return ids
}

// users counts the kernel's programs that use one of the maps, and their links.
func users(t *testing.T, ids []ebpf.MapID) (programs, links int) {
	t.Helper()
	ours := map[ebpf.ProgramID]bool{}
	for id, err := ebpf.ProgramGetNextID(0); ; id, err = ebpf.ProgramGetNextID(id) {
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // others' programs come and go
		}
		info, err := p.Info()
		_ = p.Close()
		if err != nil {
			t.Fatal(err)
		}
		used, _ := info.MapIDs()
		if slices.ContainsFunc(used, func(m ebpf.MapID) bool { return slices.Contains(ids, m) }) {
			ours[id] = true
		}
	}
	all := new(link.Iterator)
	defer all.Close()
	for all.Next() {
		if info, err := all.Link.Info(); err == nil && ours[info.Program] {
			links++
		}
	}
	return len(ours), links
}

func process(t *testing.T, pid int) (files, rss int) {
	t.Helper()
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			rss, _ = strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return len(descriptors), rss
}

// Bounds of what may be more after agents were started anew.
const (
	moreFiles = 4
	moreRSS   = 8 << 10 // KiB: garbage that is not collected yet
)

// holds compares with what was held before, and gives what is temporary a moment.
func (l *loadLab) holds(before map[string]held, rounds int) {
	l.t.Helper()
	time.Sleep(500 * time.Millisecond)
	now := l.held()
	for _, node := range slices.Sorted(maps.Keys(before)) {
		was, is := before[node], now[node]
		l.t.Logf("%s after %d restarts: %d pins (before %d), %d programs (%d), %d links (%d), %d files (%d), RSS %d KiB (%d)", node, rounds,
			len(is.Pins), len(was.Pins), is.Programs, was.Programs, is.Links, was.Links, is.Files, was.Files, is.RSS, was.RSS)
		if !slices.Equal(was.Pins, is.Pins) {
			l.t.Errorf("%s: the pins are\n  %s\nbefore they were\n  %s", node, strings.Join(is.Pins, "\n  "), strings.Join(was.Pins, "\n  "))
		}
		if !slices.Equal(was.Maps, is.Maps) {
			l.t.Errorf("%s: the maps were made anew by an agent that changed nothing, and what they knew of connections is lost", node)
		}
		if was.Programs != is.Programs || was.Links != is.Links {
			l.t.Errorf("%s: %d programs and %d links in the kernel, before the restarts %d and %d: each restart leaves some", node, is.Programs, is.Links, was.Programs, was.Links)
		}
		if is.Files > was.Files+moreFiles || is.RSS > was.RSS+moreRSS {
			l.t.Errorf("%s: the agent has %d open files and %d KiB, before %d and %d: it grows with each restart", node, is.Files, is.RSS, was.Files, was.RSS)
		}
	}
}
