//go:build linux

package datapath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
	"github.com/native-routing/labctl/bpf"
)

// world is two nodes and somebody outside:
//
//	pod1 172.20.0.10 ─┐                                              ┌ pod 172.20.1.10
//	pod2 172.20.0.11 ─┴ node a ─ eth1 192.168.10.100 ── .101 eth1 ─ node b
//	                      └ eth2 192.168.30.100 ── 192.168.30.200 outside (10.10.1.200)
type world struct {
	t       *testing.T
	a, b    *node
	outside *nstest.Namespace
}

// node is a namespace that is a lab's node, with its pods in namespaces.
type node struct {
	t      *testing.T
	ns     *nstest.Namespace
	pods   map[string]*nstest.Namespace
	state  api.State
	status []api.PodStatus
	config Config
	told   chan Maps

	*Datapath
	cancel context.CancelFunc
	ended  chan struct{}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, outside: nstest.New(t)}
	w.a = newNode(t, "a", "172.20.0.0/24", map[string]string{"eth1": "192.168.10.100/24", "eth2": "192.168.30.100/24"})
	w.b = newNode(t, "b", "172.20.1.0/24", map[string]string{"eth1": "192.168.10.101/24"})
	w.a.ns.Connect("eth1", w.b.ns, "eth1")
	w.a.ns.Connect("eth2", w.outside, "eth0")
	w.a.ns.IP("addr add 192.168.10.100/24 dev eth1")
	w.a.ns.IP("addr add 192.168.30.100/24 dev eth2")
	w.b.ns.IP("addr add 192.168.10.101/24 dev eth1")
	w.a.ns.IP("route add 172.20.1.0/24 via 192.168.10.101")
	w.b.ns.IP("route add 172.20.0.0/24 via 192.168.10.100")
	w.a.ns.IP("route add 10.10.0.0/16 via 192.168.30.200")
	w.outside.IP("addr add 192.168.30.200/24 dev eth0")
	w.outside.IP("addr add 10.10.1.200/32 dev lo")
	w.a.addPod("pod1", "172.20.0.10", 16)
	w.a.addPod("pod2", "172.20.0.11", 17)
	w.b.addPod("pod", "172.20.1.10", 16)
	return w
}

func newNode(t *testing.T, name, cidr string, devices map[string]string) *node {
	t.Helper()
	prefix := netip.MustParsePrefix(cidr)
	gateway := prefix.Addr().Next()
	n := &node{t: t, ns: nstest.New(t), pods: make(map[string]*nstest.Namespace), told: make(chan Maps, 100)}
	n.config = Config{
		PinDir: newBPFFS(t), Cgroup: newCgroup(t), Namespace: n.ns.Handle,
		Report: func(err error) { t.Errorf("node %s reports: %v", name, err) },
		OnMaps: func(m Maps) { n.told <- m },
	}
	n.state = api.State{
		Generation: "1", Lab: "lab", Node: name,
		Pods: &api.PodNetwork{CIDR: prefix, Gateway: gateway, MTU: 1500},
		Cluster: &api.Cluster{
			Name: "default", ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
			NativeCIDR: netip.MustParsePrefix("172.20.0.0/16"), Masquerade: true, KubeProxyReplacement: true,
			MapSizes: api.MapSizes{Services: 1000, Backends: 1000, Flows: 4096, NAT: 4096, IPCache: 1000, Affinity: 1000},
			Nodes: []api.Node{
				{Name: "a", Address: netip.MustParseAddr("192.168.10.100"), PodCIDR: netip.MustParsePrefix("172.20.0.0/24"),
					Gateway: netip.MustParseAddr("172.20.0.1"), ControlPlane: true, Addresses: []netip.Addr{netip.MustParseAddr("192.168.10.100"), netip.MustParseAddr("192.168.30.100")}},
				{Name: "b", Address: netip.MustParseAddr("192.168.10.101"), PodCIDR: netip.MustParsePrefix("172.20.1.0/24"),
					Gateway: netip.MustParseAddr("172.20.1.1"), Addresses: []netip.Addr{netip.MustParseAddr("192.168.10.101")}},
			},
		},
	}
	for device, address := range devices {
		n.state.Underlay.Links = append(n.state.Underlay.Links, api.UnderlayLink{
			Name: device, MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix(address)},
		})
	}
	n.ns.IP("link add labctl_host type veth peer name labctl_net")
	for _, command := range []string{
		"link set labctl_host arp off", "link set labctl_net arp off", "link set labctl_host up", "link set labctl_net up",
		fmt.Sprintf("addr add %s/32 dev labctl_host", gateway),
		fmt.Sprintf("route add %s via %s dev labctl_host src %s", cidr, gateway, gateway),
	} {
		n.ns.IP(command)
	}
	n.ns.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done")
	return n
}

// addPod makes a pod as the agent does.
func (n *node) addPod(name, address string, endpoint uint32) {
	n.t.Helper()
	pod := nstest.New(n.t)
	n.pods[name] = pod
	n.connectPod(name)
	n.status = append(n.status, api.PodStatus{
		Namespace: "default", Name: name, UID: name, Address: netip.MustParseAddr(address), Phase: api.PodRunning, Ready: true,
		Identity: 1000 + endpoint, Endpoint: endpoint, Device: "lxc" + name,
	})
	n.tellPod(len(n.status) - 1)
}

func (n *node) connectPod(name string) {
	n.t.Helper()
	pod := n.pods[name]
	gateway := n.state.Pods.Gateway.String()
	n.ns.Connect("lxc"+name, pod, "eth0")
	pod.IP("route add " + gateway + " dev eth0 scope link")
	pod.IP("route add default via " + gateway + " dev eth0")
	pod.IP("neigh add " + gateway + " lladdr " + n.device("lxc"+name).HardwareAddr.String() + " dev eth0 nud permanent")
}

// tellPod fills in what a pod's status says of its devices.
func (n *node) tellPod(i int) {
	n.t.Helper()
	s := &n.status[i]
	pod := n.pods[s.Name]
	if len(pod.Run("ip", "-4", "-o", "addr", "show", "dev", "eth0")) == 0 {
		pod.IP("addr add " + s.Address.String() + "/32 dev eth0")
	}
	host := n.device(s.Device)
	s.Index, s.DeviceMAC = host.Index, host.HardwareAddr.String()
	pod.Do(func() {
		inside, err := net.InterfaceByName("eth0")
		if err != nil {
			n.t.Error(err)
			return
		}
		s.MAC = inside.HardwareAddr.String()
	})
}

func (n *node) device(name string) (found net.Interface) {
	n.t.Helper()
	n.ns.Do(func() {
		device, err := net.InterfaceByName(name)
		if err != nil {
			n.t.Errorf("%s: %v", name, err)
			return
		}
		found = *device
	})
	return found
}

// start runs a Datapath until stop, and waits until it has done its work.
func (n *node) start(options ...func(*Datapath)) {
	n.t.Helper()
	n.launch(options...)
	n.settle()
}

func (n *node) launch(options ...func(*Datapath)) {
	n.t.Helper()
	d, err := New(n.config)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, option := range options {
		option(d)
	}
	d.Set(n.state)
	d.SetPods(n.status)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	n.Datapath, n.cancel, n.ended = d, cancel, ended
	go func() {
		defer close(ended)
		d.Run(ctx)
	}()
	n.t.Cleanup(n.stop)
}

func (n *node) stop() {
	if n.cancel != nil {
		n.cancel()
		<-n.ended
		n.Close()
		n.cancel = nil
	}
}

func (n *node) settle() {
	n.t.Helper()
	eventually(n.t, func() error {
		objects, settled := n.Objects()
		if settled {
			return nil
		}
		var bad []string
		for _, o := range objects {
			if o.Condition != api.InPlace {
				bad = append(bad, fmt.Sprintf("%s %s %s: %s", o.Kind, o.Name, o.Condition, o.Reason))
			}
		}
		return fmt.Errorf("not settled, %d objects: %s", len(objects), strings.Join(bad, "; "))
	})
}

func (n *node) object(kind, name string) api.Object {
	objects, _ := n.Objects()
	for _, o := range objects {
		if o.Kind == kind && o.Name == name {
			return o
		}
	}
	return api.Object{}
}

// maps are those of the datapath that runs.
func (n *node) maps() Maps { return n.now.maps }

// eventually waits long for a machine that other tests keep busy: how fast things
// are is measured elsewhere.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func newBPFFS(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a bpffs: %v (this test needs root)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	pins := filepath.Join(dir, "node")
	if err := os.Mkdir(pins, 0o700); err != nil {
		t.Fatal(err)
	}
	return pins
}

// newCgroup is a child of the cgroup2 mount, wherever that is.
func newCgroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		words := strings.Fields(line)
		if len(words) < 3 || words[2] != "cgroup2" {
			continue
		}
		path, err := os.MkdirTemp(words[1], "labctl-datapath-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		})
		return path
	}
	t.Fatal("no cgroup2 is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)")
	return ""
}

// serve answers TCP connections with what they send, and says who called.
func serve(t *testing.T, ns *nstest.Namespace, address string) (callers chan netip.AddrPort) {
	t.Helper()
	callers = make(chan netip.AddrPort, 100)
	var listener net.Listener
	ns.Do(func() {
		var err error
		if listener, err = net.Listen("tcp4", address); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			callers <- conn.RemoteAddr().(*net.TCPAddr).AddrPort()
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return callers
}

// talk is a TCP connection that sends and expects the same back.
type talk struct {
	t    *testing.T
	conn net.Conn
	n    int
}

func dial(t *testing.T, ns *nstest.Namespace, to string) *talk {
	t.Helper()
	var conn net.Conn
	var err error
	ns.Do(func() { conn, err = net.DialTimeout("tcp4", to, 3*time.Second) })
	if err != nil {
		t.Fatalf("connect to %s: %v", to, err)
	}
	t.Cleanup(func() { conn.Close() })
	talk := &talk{t: t, conn: conn}
	talk.say()
	return talk
}

func (k *talk) try() error {
	k.n++
	line := fmt.Sprintf("line %d %s\n", k.n, strings.Repeat("x", 3000))
	if err := k.conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(k.conn, line); err != nil {
		return err
	}
	back := make([]byte, len(line))
	if _, err := io.ReadFull(k.conn, back); err != nil {
		return err
	}
	if string(back) != line {
		return errors.New("something else came back")
	}
	return nil
}

func (k *talk) say() {
	k.t.Helper()
	if err := k.try(); err != nil {
		k.t.Fatalf("connection %v to %v broke at line %d: %v", k.conn.LocalAddr(), k.conn.RemoteAddr(), k.n, err)
	}
}

// service enters a service, as the balancer would, that those outside may call too.
func service(t *testing.T, maps Maps, frontend string, backends ...string) func() {
	t.Helper()
	from := netip.MustParseAddrPort(frontend)
	put := func(name string, key, value any) {
		t.Helper()
		if err := maps.Map(name).Put(key, value); err != nil {
			t.Fatal(err)
		}
	}
	for i, backend := range backends {
		id, to := uint32(i+1), netip.MustParseAddrPort(backend)
		put(bpf.Backends, id, bpf.DatapathBackend{Addr: wire(to.Addr()), Port: bpf.Port(to.Port()), Proto: protocolTCP})
		put(bpf.Slots, id, bpf.DatapathSlot{Backend: id, Service: 1})
	}
	key := bpf.DatapathFrontendKey{Addr: wire(from.Addr()), Port: bpf.Port(from.Port()), Proto: protocolTCP}
	put(bpf.Frontends, key, bpf.DatapathFrontend{First: 1, Count: uint16(len(backends)), Id: 1, Flags: uint16(bpf.DatapathFrontendFlagFRONTEND_ROUTABLE), Algorithm: uint8(bpf.DatapathAlgorithmALGORITHM_RANDOM)})
	return func() {
		t.Helper()
		if err := maps.Map(bpf.Frontends).Delete(key); err != nil {
			t.Fatal(err)
		}
	}
}

func wire(addr netip.Addr) uint32 {
	address, err := bpf.Address(addr)
	if err != nil {
		panic(err)
	}
	return address
}
