//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/route"
	"github.com/native-routing/labctl/bpf"
)

// TestDeviceMadeAgain: a device that is deleted and made again has its programs
// and its place in the maps as soon as it is there.
func TestDeviceMadeAgain(t *testing.T) {
	for _, way := range []string{"tcx", "clsact"} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t)
			w.a.start(func(d *Datapath) { d.noTCX = way == "clsact" })
			serve(t, w.a.pods["pod2"], "172.20.0.11:8080")
			dial(t, w.a.pods["pod1"], "172.20.0.11:8080")

			w.a.ns.IP("link del eth2")
			eventually(t, func() error {
				if o := w.a.object(kindProgram, "to_netdev@eth2"); o.Condition != api.Drifted || !strings.Contains(o.Reason, "eth2") {
					return fmt.Errorf("%+v", o)
				}
				return nil
			})
			if _, settled := w.a.Objects(); !settled {
				t.Error("what the lab lost keeps the agent unsettled")
			}
			w.a.ns.Connect("eth2", w.outside, "eth0")
			w.a.ns.IP("addr add 192.168.30.100/24 dev eth2")
			w.a.ns.IP("route add 10.10.0.0/16 via 192.168.30.200")
			w.outside.IP("addr add 192.168.30.200/24 dev eth0")
			eventually(t, func() error {
				if o := w.a.object(kindProgram, "to_netdev@eth2"); o.Condition != api.InPlace || o.Mended != 1 {
					return fmt.Errorf("%+v", o)
				}
				return nil
			})
			world := serve(t, w.outside, "10.10.1.200:8080")
			dial(t, w.a.pods["pod1"], "10.10.1.200:8080")
			if from := <-world; from.Addr().String() != "192.168.30.100" {
				t.Errorf("the world was called by %s", from)
			}

			w.a.ns.IP("link del lxcpod1")
			w.a.connectPod("pod1")
			w.a.tellPod(0)
			began := time.Now()
			w.a.SetPods(w.a.status)
			w.a.settle()
			t.Logf("%v after the pod was told", time.Since(began))
			dial(t, w.a.pods["pod1"], "172.20.0.11:8080")
			w.a.ns.IP("link del lxcpod1")
			w.a.status = w.a.status[1:]
			w.a.SetPods(w.a.status)
			w.a.settle()
			links, err := w.a.pins.list(linksDir)
			if err != nil || strings.Contains(strings.Join(links, " "), "lxcpod1") {
				t.Errorf("pins of a device that is gone: %q, %v", links, err)
			}
			if n := len(w.a.hooks.held); way == "tcx" && n != len(links) {
				t.Errorf("%d links are held, and %d pinned", n, len(links))
			}
		})
	}
}

// TestReaction: programs are on a new device within 50 ms.
func TestReaction(t *testing.T) {
	w := newWorld(t)
	w.a.start()
	w.a.ns.IP("link del eth2")
	eventually(t, func() error { return w.a.is("to_netdev@eth2", api.Drifted) })
	best := time.Hour
	for range 5 { // the machine may be busy
		w.a.ns.IP("link add eth2 type veth peer name other")
		began := time.Now()
		eventually(t, func() error { return w.a.is("to_netdev@eth2", api.InPlace) })
		best = min(best, time.Since(began))
		w.a.ns.IP("link del eth2")
		eventually(t, func() error { return w.a.is("to_netdev@eth2", api.Drifted) })
	}
	t.Logf("a new device has its programs after %v", best)
	if best > 50*time.Millisecond {
		t.Errorf("a new device has its programs after %v only", best)
	}
}

func (n *node) is(program string, condition api.Condition) error {
	if o := n.object(kindProgram, program); o.Condition != condition {
		return fmt.Errorf("%+v", o)
	}
	return nil
}

// TestMended: what others detach or unpin is put back at the next look.
func TestMended(t *testing.T) {
	w := newWorld(t)
	w.a.start()
	path := func(dir, name string) string { return w.a.pins.path(dir, name) }

	l, err := link.LoadPinnedLink(path(linksDir, "to_netdev@eth1"), nil)
	if err == nil {
		err = l.Detach()
	}
	pinned, err2 := link.LoadPinnedLink(path(linksDir, "from_pod@lxcpod1"), nil)
	cgroup, err3 := link.LoadPinnedLink(path(linksDir, "connect4@cgroup"), nil)
	if err := errors.Join(err, err2, err3, cgroup.Detach()); err != nil {
		t.Fatal(err)
	}
	before, err := pinned.Info()
	if err != nil {
		t.Fatal(err)
	}
	for _, pin := range []string{path(linksDir, "from_pod@lxcpod1"), path(mapsDir, bpf.Flows), path(programsDir, bpf.ToPod+"@"+w.a.now.digest)} {
		if err := os.Remove(pin); err != nil {
			t.Fatal(err)
		}
	}
	_ = pinned.Close()
	w.a.Set(w.a.state)
	w.a.settle()
	for _, want := range []objectKey{
		{kindProgram, "to_netdev@eth1"}, {kindProgram, "from_pod@lxcpod1"}, {kindProgram, "connect4@cgroup"}, {kindMap, bpf.Flows},
	} {
		if o := w.a.object(want.kind, want.name); o.Mended != 1 {
			t.Errorf("%+v", o)
		}
	}
	if o := w.a.object(kindProgram, "from_netdev@eth1"); o.Mended != 0 {
		t.Errorf("%+v", o)
	}
	again, err := link.LoadPinnedLink(path(linksDir, "from_pod@lxcpod1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := again.Info(); err != nil || after.ID != before.ID {
		t.Errorf("a link that only lost its pin was made anew: %v, %v", after, err)
	}
	for dir, count := range map[string]int{mapsDir: len(allMaps), programsDir: 9, linksDir: 13} {
		if names, err := w.a.pins.list(dir); err != nil || len(names) != count {
			t.Errorf("%d in %s, want %d: %q", len(names), dir, count, names)
		}
	}
	if n, err := attachedTCX(w.a); err != nil || n != 9 {
		t.Errorf("%d TCX programs attached, want 9", n)
	}
}

// TestForeignFilters are left alone, and one in the place of ours is named.
func TestForeignFilters(t *testing.T) {
	w := newWorld(t)
	w.foreign("eth1", 7)
	w.foreign("eth2", filterPriority)
	w.a.launch(func(d *Datapath) { d.noTCX = true })
	eventually(t, func() error {
		if o := w.a.object(kindProgram, "to_netdev@eth2"); o.Condition != api.Failed || !strings.Contains(o.Reason, "tc filter del") {
			return fmt.Errorf("%+v", o)
		}
		return w.a.is("to_netdev@eth1", api.InPlace)
	})
	w.a.ns.Run("tc", "filter", "del", "dev", "eth2", "egress", "prio", fmt.Sprint(filterPriority))
	w.a.Set(w.a.state)
	w.a.settle()
	// Somebody deletes one of ours.
	w.a.ns.Run("tc", "filter", "del", "dev", "eth2", "ingress")
	w.a.Set(w.a.state)
	w.a.settle()
	if o := w.a.object(kindProgram, "from_netdev@eth2"); o.Mended != 1 {
		t.Errorf("%+v", o)
	}
	shown := w.a.ns.Run("tc", "filter", "show", "dev", "eth1", "egress")
	if !strings.Contains(shown, "labctl-to_netdev direct-action") || !strings.Contains(shown, "foreign") {
		t.Errorf("tc shows\n%s", shown)
	}
	w.a.stop()
	if err := Remove(w.a.config); err != nil {
		t.Fatal(err)
	}
	if shown := w.a.ns.Run("tc", "filter", "show", "dev", "eth1", "egress"); !strings.Contains(shown, "foreign") || strings.Contains(shown, "labctl") {
		t.Errorf("after removal tc shows\n%s", shown)
	}
	if shown := w.a.ns.Run("tc", "qdisc", "show"); strings.Count(shown, "clsact") != 1 {
		t.Errorf("after removal tc shows\n%s", shown)
	}
}

// foreign adds a filter that is not ours to the egress of a device.
func (w *world) foreign(device string, priority uint16) {
	w.t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	defer program.Close()
	handle, err := openHandle(w.a.ns.Handle)
	if err != nil {
		w.t.Fatal(err)
	}
	defer handle.Close()
	index := w.a.device(device).Index
	if err := (clsact{handle}).ensureQdisc(index); err != nil {
		w.t.Fatal(err)
	}
	err = handle.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: filterHandle,
			Priority: priority, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: "foreign", DirectAction: true,
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestStateChanges: options and hooks follow the state while connections stay.
func TestStateChanges(t *testing.T) {
	w := newWorld(t)
	w.a.start()
	world := serve(t, w.outside, "10.10.1.200:8080")
	w.outside.IP("route add 172.20.0.0/24 via 192.168.30.100")
	open := dial(t, w.a.pods["pod1"], "10.10.1.200:8080")
	<-world
	cluster := *w.a.state.Cluster
	cluster.Masquerade, cluster.KubeProxyReplacement = false, false
	cluster.MapSizes.Flows = 1024
	w.a.state.Cluster = &cluster
	maps := w.a.maps()
	service(t, maps, "10.96.0.20:80", "172.20.0.11:8080")
	w.a.Set(w.a.state)
	w.a.settle()
	open.say()
	dial(t, w.a.pods["pod1"], "10.10.1.200:8080")
	if from := <-world; from.Addr().String() != "172.20.0.10" {
		t.Errorf("without masquerade the world was called by %s", from)
	}
	if w.a.Status().SocketLB {
		t.Error("sockets are still balanced")
	}
	if links, _ := w.a.pins.list(linksDir); strings.Contains(strings.Join(links, " "), cgroupDevice) {
		t.Errorf("left %q", links)
	}
	if len(w.a.told) != 2 {
		t.Errorf("maps were told %d times, want 2", len(w.a.told))
	}
	now := w.a.maps()
	if size := now.Map(bpf.Flows).MaxEntries(); size != 1024 {
		t.Errorf("flows holds %d", size)
	}
	each := now.Map(bpf.Frontends).Iterate()
	var key bpf.DatapathFrontendKey
	var value bpf.DatapathFrontend
	if each.Next(&key, &value) {
		t.Errorf("a frontend is left: %+v", key)
	}
}

// TestTunnelGivenUp: who came from outside, by the tunnel to a backend on another
// node, goes on while the tunnel is given up, however long its device is still
// there and the other node sends by it.
func TestTunnelGivenUp(t *testing.T) {
	for _, way := range []string{"tcx", "clsact"} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t)
			w.b.carries("192.168.10.101", w.a, "192.168.10.100")
			w.a.carries("192.168.10.100", w.b, "192.168.10.101")
			as := func(d *Datapath) { d.noTCX = way == "clsact" }
			w.b.start(as)
			w.a.start(as)
			service(t, w.a.maps(), "192.168.30.100:30080", "172.20.1.10:8080")
			callers := serve(t, w.b.pods["pod"], "172.20.1.10:8080")
			open := dial(t, w.outside, "192.168.30.100:30080")
			if from := <-callers; from.Addr().String() != "172.20.0.1" {
				t.Fatalf("called by %s, want a's end of the tunnel", from)
			}

			native := *w.a.state.Pods
			native.Overlay = nil
			w.a.state.Pods = &native
			w.a.Set(w.a.state)
			w.a.settle()
			open.say()

			for _, n := range []*node{w.a, w.b} {
				n.ns.IP("link del " + route.TunnelDevice)
			}
			w.a.ns.IP("route add 172.20.1.0/24 via 192.168.10.101")
			w.b.ns.IP("route add 172.20.0.0/24 via 192.168.10.100")
			open.say()
			eventually(t, func() error {
				links, err := w.a.pins.list(linksDir)
				if err == nil && strings.Contains(strings.Join(links, " "), route.TunnelDevice) {
					err = fmt.Errorf("left %q", links)
				}
				return err
			})
		})
	}
}

// carries makes a tunnel to another node, as routes do.
func (n *node) carries(local string, other *node, remote string) {
	n.t.Helper()
	overlay := &api.Overlay{VNI: 1, Port: 8472, Local: netip.MustParseAddr(local), MTU: 1450}
	n.state.Pods.Overlay = overlay
	gateway, cidr := other.state.Pods.Gateway, other.state.Pods.CIDR
	mac := func(gateway netip.Addr) string { return fmt.Sprintf("0a:6c:00:00:%02x:01", gateway.As4()[2]) }
	for _, command := range []string{
		"link add " + route.TunnelDevice + " address " + mac(n.state.Pods.Gateway) + " type vxlan id 1 dstport 8472 local " + local + " nolearning",
		"link set " + route.TunnelDevice + " mtu 1450 up",
		"route del " + cidr.String(),
		fmt.Sprintf("neigh add %s lladdr %s dev %s nud permanent", gateway, mac(gateway), route.TunnelDevice),
		fmt.Sprintf("route add %s via %s dev %s onlink src %s", cidr, gateway, route.TunnelDevice, n.state.Pods.Gateway),
	} {
		n.ns.IP(command)
	}
	n.ns.Run("bridge", "fdb", "add", mac(gateway), "dev", route.TunnelDevice, "dst", remote)
}

// TestTooSmall: a table that would not fit is refused, named with its setting,
// and what was loaded goes on.
func TestTooSmall(t *testing.T) {
	w := newWorld(t)
	w.a.start()
	for i := range uint16(60) {
		key := bpf.DatapathFrontendKey{Addr: 1, Port: i, Proto: protocolTCP}
		if err := w.a.maps().Map(bpf.Frontends).Put(key, bpf.DatapathFrontend{Id: i + 1}); err != nil {
			t.Fatal(err)
		}
	}
	cluster := *w.a.state.Cluster
	cluster.MapSizes.Services = 50
	w.a.state.Cluster = &cluster
	w.a.Set(w.a.state)
	eventually(t, func() error {
		o := w.a.object(kindMap, bpf.Frontends)
		if o.Condition != api.Failed || o.Reason != "frontends: map is full at 50 entries (raise cluster.mapSizes.services in the topology)" {
			return fmt.Errorf("%+v", o)
		}
		return nil
	})
	if err := w.a.is("from_pod@lxcpod1", api.InPlace); err != nil {
		t.Error(err)
	}
	serve(t, w.a.pods["pod2"], "172.20.0.11:8080")
	dial(t, w.a.pods["pod1"], "172.20.0.11:8080")
	cluster.MapSizes.Services = 60
	w.a.Set(w.a.state)
	eventually(t, func() error { // it fits, and is full
		if o := w.a.object(kindMap, bpf.Frontends); !strings.Contains(o.Reason, "full at 60") {
			return fmt.Errorf("%+v", o)
		}
		return nil
	})
	cluster.MapSizes.Services = 100
	w.a.Set(w.a.state)
	w.a.settle()
	w.checkPins()
}

// TestNoCgroup: without a cgroup2 directory sockets are not balanced, which is
// said, and all else works.
func TestNoCgroup(t *testing.T) {
	w := newWorld(t)
	w.a.config.Cgroup = t.TempDir()
	w.a.start()
	status := w.a.Status()
	if status.SocketLB || !strings.Contains(strings.Join(status.Missing, "\n"), "is not in a cgroup2 file system") {
		t.Errorf("%+v", status)
	}
	remote := serve(t, w.a.pods["pod2"], "172.20.0.11:8080")
	service(t, w.a.maps(), "10.96.0.20:80", "172.20.0.11:8080")
	dial(t, w.a.pods["pod1"], "10.96.0.20:80")
	<-remote
}

// TestNoPins: an agent without a bpffs says so, and one that is to have no
// datapath touches nothing.
func TestNoPins(t *testing.T) {
	w := newWorld(t)
	w.a.config.PinDir = ""
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("maps/mine", 0o700); err != nil {
		t.Fatal(err)
	}
	w.a.launch()
	eventually(t, func() error {
		if o := w.a.object(kindProgram, "all"); !strings.Contains(o.Reason, "--bpf") {
			return fmt.Errorf("%+v", o)
		}
		return nil
	})
	w.a.state.Cluster = nil
	w.a.Set(w.a.state)
	w.a.settle()
	if _, err := os.Stat("maps/mine"); err != nil {
		t.Error(err)
	}
}
