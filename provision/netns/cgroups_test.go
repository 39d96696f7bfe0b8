//go:build linux

package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/provision/providertest"
)

// TestUnusualMachines runs a lab in mount namespaces of its own: one that gets
// nothing from the machine, one whose mounts go on to others, one without a
// cgroup2 mount, as with cgroup v1 alone, and one where none can be made.
func TestUnusualMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	const noCgroups = `for m in $(awk '$(NF-2) == "cgroup2" || / - cgroup2 / {print $5}' /proc/self/mountinfo); do umount -l $m; done; `
	for _, test := range []struct{ name, prepare, want string }{
		{"private", "", "ok cgroup2\ncgroup /sys/fs/cgroup"},
		{"shared, as systemd has it", "mount --make-rshared /; ", "ok cgroup2\ncgroup /sys/fs/cgroup"},
		{"no cgroup2", noCgroups, "ok cgroup2\ncgroup RUN/@cgroup2/labctl.LAB/a\nmount RUN/@cgroup2"},
		{"no cgroup2 at all", noCgroups + "mkdir RUN; >RUN/@cgroup2; ", "ok cgroup2\ncgroup -"},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) {
			lab, dir := providertest.Name(), t.TempDir()
			replace := strings.NewReplacer("RUN", filepath.Join(dir, "run"), "LAB", lab)
			c := exec.Command("unshare", "-m", "sh", "-ec", replace.Replace(test.prepare)+`exec "$0" "$@"`, os.Args[0], lab, dir)
			c.Env = append(os.Environ(), asChild+"=unusual")
			out, err := c.CombinedOutput()
			if err != nil || !strings.Contains(string(out), replace.Replace(test.want)) {
				t.Errorf("%v\n%s\nwant in it:\n%s", err, out, replace.Replace(test.want))
			}
			if left := residue(t, lab); len(left) > 0 {
				t.Errorf("left on the machine:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

// unusual is the child of TestUnusualMachines: a whole life of a lab.
func unusual(lab, dir string) error {
	ctx := context.Background()
	run := filepath.Join(dir, "run")
	p := netns.New(netns.Options{RunDir: run, DataDir: filepath.Join(dir, "data")})
	t, err := labOf(lab)
	if err != nil {
		return err
	}
	for _, f := range p.Preflight(ctx, t) {
		if f.Subject == "cgroup2" {
			fmt.Println(f.Severity, f.Subject)
		}
	}
	for range 2 {
		if err := up(p, t); err != nil {
			return err
		}
	}
	n, err := p.OpenNode(ctx, lab, "a")
	if err != nil {
		return err
	}
	defer n.Close()
	group := n.Cgroup()
	if group == "" {
		group = "-"
	}
	fmt.Println("cgroup", group)
	o, err := p.Observe(ctx, lab)
	if err != nil {
		return err
	}
	for _, node := range o.Nodes {
		if node.State != provision.NodeRunning {
			return fmt.Errorf("%s is %s: %s", node.Name, node.State, node.Detail)
		}
	}
	if strings.HasPrefix(group, run) {
		fmt.Println("mount", filepath.Dir(filepath.Dir(group)))
	}
	err = n.Run(ctx, provision.Command{Argv: []string{"sh", "-c", `stat -f "$0" && [ "$1" = "" ] || grep -qx $$ "$1/cgroup.procs"`,
		n.BPFDir(), n.Cgroup()}, Stderr: os.Stderr})
	if err != nil {
		return err
	}
	if _, err := p.Destroy(ctx, lab); err != nil {
		return err
	}
	if o, err := p.Observe(ctx, lab); err != nil || !o.Empty() {
		return fmt.Errorf("left: %+v, %w", o, err)
	}
	if left, err := filepath.Glob(run); err != nil || group != "-" && len(left) > 0 {
		return fmt.Errorf("left: %q, %w", left, err)
	}
	return nil
}

// TestDestroyEscaped wants processes gone that went out of the node's cgroup and
// of its namespace, and some that are new at every look.
func TestDestroyEscaped(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	for name, script := range map[string]string{
		"by its mark": `echo $$ >"$1/../../cgroup.procs" && echo there && exec setsid unshare -n sleep 1008`,
		// Each process of the chain lives for a moment, in a session of its own.
		"always another": `g='setsid sh -c "$1" sh "$1" &'; sh -c "$g" sh "$g"; sh -c "$g" sh "$g"; echo there`,
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			lab := providertest.Name()
			t.Cleanup(func() { wantGoneAtEnd(t, p, lab) })
			if err := up(p, providertest.Load(t, lab, providertest.Lab)); err != nil {
				t.Fatal(err)
			}
			n, err := p.OpenNode(t.Context(), lab, "a")
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			log := filepath.Join(t.TempDir(), "log")
			f, err := os.Create(log)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			go func() {
				_ = n.Run(context.Background(), provision.Command{Argv: []string{"sh", "-c", script, "sh", n.Cgroup()}, Stdout: f, Stderr: f})
			}()
			for text := ""; text != "there\n"; time.Sleep(time.Millisecond) {
				b, err := os.ReadFile(log)
				if text = string(b); err != nil || text != "" && text != "there\n" {
					t.Fatalf("%v: %s", err, text)
				}
			}
			time.Sleep(20 * time.Millisecond)
			start := time.Now()
			wantGone(t, p, lab)
			t.Logf("took %s", time.Since(start))
		})
	}
}

// TestDownFromInside ends a lab from a shell on one of its nodes: all but labctl goes.
func TestDownFromInside(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	lab := providertest.Name()
	t.Cleanup(func() { wantGoneAtEnd(t, p, lab) })
	if err := up(p, providertest.Load(t, lab, providertest.Lab)); err != nil {
		t.Fatal(err)
	}
	n, err := p.OpenNode(t.Context(), lab, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	// The files are the machine's own, so down finds there what it would outside.
	out := new(strings.Builder)
	err = n.Run(t.Context(), provision.Command{Argv: []string{os.Args[0], lab}, Env: []string{asChild + "=down"}, Stdout: out, Stderr: out})
	if err != nil || !strings.Contains(out.String(), "done") {
		t.Errorf("down: %v\n%s", err, out)
	}
}

// TestPins pins a map, and wants it gone with the node.
func TestPins(t *testing.T) {
	lab, n := oneNode(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.BPFDir(), "maps")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.Pin(filepath.Join(dir, "kept")); err != nil {
		t.Fatal(err)
	}
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	m.Close()
	gone := func() bool {
		again, err := ebpf.NewMapFromID(id)
		if err == nil {
			again.Close()
		}
		return errors.Is(err, os.ErrNotExist)
	}
	p := netns.New(netns.Options{})
	if _, err := p.Destroy(t.Context(), lab, "b"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if gone() {
		t.Error("the map went with another node")
	}
	if out := sh(t, n, "ls "+dir); out != "kept\n" {
		t.Errorf("a process on the node sees %q", out)
	}
	if _, err := p.Destroy(t.Context(), lab, "a"); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if gone() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the map outlives its node")
}

// TestRemountedPins wants a service that cannot see the BPF file system started anew.
func TestRemountedPins(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	lab := providertest.Name()
	t.Cleanup(func() { wantGoneAtEnd(t, p, lab) })
	top := providertest.Load(t, lab, providertest.Lab)
	if err := up(p, top); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("umount", "/run/labctl/"+lab+"/bpf").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, want := range []string{"mounted anew", ""} {
		if _, err := p.EnsureNode(t.Context(), top, "a"); err != nil {
			t.Fatal(err)
		}
		n, err := p.OpenNode(t.Context(), lab, "a")
		if err != nil {
			t.Fatal(err)
		}
		changes, err := n.EnsureService(t.Context(), provision.Service{Name: "svc", Argv: []string{"svc", filepath.Join(n.RunDir(), "svc.lock")}})
		n.Close()
		if err != nil || (want == "") != (len(changes) == 0) || want != "" && !strings.Contains(changes[0].Detail, want) {
			t.Errorf("time %d: %v, %v, want %q", i+1, changes, err, want)
		}
	}
}

// TestResolver looks at a cluster's nodes and at a router.
func TestResolver(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	p := netns.New(netns.Options{})
	lab := providertest.Name()
	t.Cleanup(func() { wantGoneAtEnd(t, p, lab) })
	cluster := []string{
		"nodes:\n", "cluster: {podCIDR: 172.20.0.0/16, serviceCIDR: 10.96.0.0/16, routingMode: native, nativeRoutingCIDR: 172.20.0.0/16}\nnodes:\n",
		"  a:\n    role: host\n", "  a:\n    role: control-plane\n    podCIDR: 172.20.0.0/24\n",
		"  b:\n    role: host\n", "  b:\n    role: worker\n    podCIDR: 172.20.1.0/24\n"}
	uplink := "# Made by labctl for lab " + lab + ".\nnameserver 10.0.2.3\noptions timeout:1 attempts:1\n"
	pods := "# Made by labctl for lab " + lab + ".\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n" +
		"nameserver 10.96.0.10\noptions ndots:5 timeout:1 attempts:1\n"
	for _, step := range []struct {
		name    string
		replace []string
		a       string
	}{{"cluster", cluster, pods}, {"no cluster any more", nil, uplink}, {"cluster again", cluster, pods}} {
		if err := up(p, providertest.Load(t, lab, providertest.Lab, step.replace...)); err != nil {
			t.Fatal(err)
		}
		for node, want := range map[string]string{"a": step.a, "b": step.a, "router": uplink} {
			n, err := p.OpenNode(t.Context(), lab, node)
			if err != nil {
				t.Fatal(err)
			}
			if got := sh(t, n, "cat /etc/resolv.conf"); got != want {
				t.Errorf("%s: %s has\n%s\nwant\n%s", step.name, node, got, want)
			}
			if got := sh(t, n, "getent ahostsv4 router"); !strings.HasPrefix(got, "192.168.10.200 ") {
				t.Errorf("%s: the router's address on %s is %q", step.name, node, got)
			}
			n.Close()
			out, err := exec.Command("ip", "netns", "exec", "labctl."+lab+"."+node, "sh", "-c", "cat /etc/resolv.conf; grep -c 192.168 /etc/hosts").CombinedOutput()
			if err != nil || string(out) != want+"4\n" {
				t.Errorf("%s: ip netns exec on %s: %v\n%s", step.name, node, err, out)
			}
		}
	}
}
