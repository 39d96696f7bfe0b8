//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/topologies"
	"github.com/native-routing/labctl/topologies/topo"
)

// BenchmarkUp pairs EnsureNode and EnsureLinks of the shipped lab with a floor:
// the same namespaces, links, addresses and routes by raw netlink alone, on one
// thread, with nothing looked at, named, or marked. Each iteration does one of
// each, in turns, so that both meet the same machine. It reports medians in
// milliseconds, and their ratio.
func BenchmarkUp(b *testing.B) {
	lab := shippedLab(b, fmt.Sprintf("t-%d-bench", os.Getpid()))
	p := New(Options{})
	clean := func() {
		if _, err := p.Destroy(b.Context(), lab.Metadata.Name); err != nil {
			b.Fatal(err)
		}
		settle()
	}
	b.Cleanup(func() { _, _ = p.Destroy(context.Background(), lab.Metadata.Name) })
	var ours, nodes, links, floors, again, down []time.Duration
	for b.Loop() {
		start := time.Now()
		ensureNodes(b, p, lab)
		mid := time.Now()
		if _, err := p.EnsureLinks(b.Context(), lab); err != nil {
			b.Fatal(err)
		}
		end := time.Now()
		ours, nodes, links = append(ours, end.Sub(start)), append(nodes, mid.Sub(start)), append(links, end.Sub(mid))

		start = time.Now()
		ensureNodes(b, p, lab)
		if changes, err := p.EnsureLinks(b.Context(), lab); err != nil || len(changes) > 0 {
			b.Fatal(changes, err)
		}
		again = append(again, time.Since(start))

		start = time.Now()
		if _, err := p.Destroy(b.Context(), lab.Metadata.Name); err != nil {
			b.Fatal(err)
		}
		down = append(down, time.Since(start))
		settle()

		dir := b.TempDir()
		start = time.Now()
		if err := floor(lab, dir); err != nil {
			b.Fatal(err)
		}
		floors = append(floors, time.Since(start))
		removeFloor(dir)
		settle()
	}
	clean()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ours), "ours-ms")
	b.ReportMetric(median(nodes), "nodes-ms")
	b.ReportMetric(median(links), "links-ms")
	b.ReportMetric(median(floors), "floor-ms")
	b.ReportMetric(median(ours)/median(floors), "ours/floor")
	b.ReportMetric(median(again), "again-ms")
	b.ReportMetric(median(down), "down-ms")
}

// settle lets the kernel finish what it removes in the background.
func settle() { time.Sleep(100 * time.Millisecond) }

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2]) / float64(time.Millisecond)
}

func shippedLab(tb testing.TB, name string) *topo.Topology {
	tb.Helper()
	lab, err := topologies.Load(topologies.Default)
	if err != nil {
		tb.Fatal(err)
	}
	lab.Metadata.Name = name
	return lab
}

func ensureNodes(tb testing.TB, p *Provider, lab *topo.Topology) {
	tb.Helper()
	var group errgroup.Group
	group.SetLimit(p.parallel())
	for _, node := range lab.Nodes.Names() {
		group.Go(func() error {
			_, err := p.EnsureNode(tb.Context(), lab, node)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		tb.Fatal(err)
	}
}

// floor is what nothing can be faster than by much: it knows that all is new.
func floor(lab *topo.Topology, dir string) error {
	want, err := newPlan(lab)
	if err != nil {
		return err
	}
	return onThread(func() error {
		fabric, here, err := floorNamespace(dir, "fabric")
		if err != nil {
			return err
		}
		defer fabric.Close()
		defer here.Close()
		bridges := map[string]int{}
		for i, bridge := range want.Bridges {
			if err := here.makeBridge(bridge.Name); err != nil {
				return err
			}
			bridges[bridge.Name] = i + 2 // lo is 1
		}
		if err := here.flush(); err != nil {
			return err
		}
		for _, n := range want.Nodes {
			if err := floorNode(dir, n, here, bridges); err != nil {
				return err
			}
		}
		return nil
	})
}

func floorNamespace(dir, name string) (*os.File, *writer, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, nil, err
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return nil, nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	w, err := newWriter(f)
	return f, w, err
}

func floorNode(dir string, n nodePlan, fabric *writer, bridges map[string]int) error {
	ns, w, err := floorNamespace(dir, n.Name)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer w.Close()
	if err := w.setLink("lo", attributes{Up: true}); err != nil {
		return err
	}
	for _, l := range n.Links {
		if l.Kind == kindVeth {
			err = errors.Join(err, fabric.makeVeth(l, bridges[l.Bridge], ns))
		}
	}
	err = errors.Join(err, fabric.flush())
	for _, l := range n.Links {
		if l.Kind == kindDummy {
			err = errors.Join(err, w.makeAlone(l, kindIFB))
		} else {
			err = errors.Join(err, w.setLink(l.Name, attributes{Up: true}))
		}
	}
	index := map[string]int{}
	for i, l := range n.Links {
		index[l.Name] = i + 2
		err = errors.Join(err, w.addAddress(l, i+2))
	}
	for _, neighbour := range n.Neighbours {
		err = errors.Join(err, w.setNeighbour(neighbour, index[neighbour.Device]))
	}
	for _, r := range n.Routes {
		err = errors.Join(err, w.addRoute(r, func(device string) int { return index[device] }))
	}
	return errors.Join(err, w.flush())
}

func removeFloor(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		_ = unix.Unmount(filepath.Join(dir, e.Name()), unix.MNT_DETACH)
	}
}
