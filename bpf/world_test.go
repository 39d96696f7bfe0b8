//go:build linux

package bpf

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

type world struct {
	*node
	t                         *testing.T
	host, pod1, pod2, outside netns.NsHandle
	cgroup                    *os.File
}

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	w := &world{t: t}
	for _, ns := range []*netns.NsHandle{&w.host, &w.pod1, &w.pod2, &w.outside} {
		*ns = newNamespace(t)
	}
	w.connect("lxc1", w.pod1, "eth0", "172.20.0.10/32")
	w.connect("lxc2", w.pod2, "eth0", "172.20.0.11/32")
	w.connect("eth1", w.outside, "eth0", "192.168.10.200/24")
	w.connect("labctl_host", w.host, "labctl_net", "")
	for _, command := range []string{
		"ip addr add 192.168.10.100/24 dev eth1",
		"ip addr add 172.20.0.1/32 dev labctl_host",
		"ip link set labctl_host arp off", "ip link set labctl_net arp off",
		"ip route add 172.20.0.0/24 via 172.20.0.1 dev labctl_host src 172.20.0.1",
		"ip route add 172.20.1.0/24 via 192.168.10.200",
		"ip route add 10.10.0.0/16 via 192.168.10.200",
	} {
		w.sh(w.host, strings.Fields(command)...)
	}
	w.sh(w.host, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done")
	for _, pod := range []netns.NsHandle{w.pod1, w.pod2} {
		w.sh(pod, "ip", "route", "add", "172.20.0.1", "dev", "eth0")
		w.sh(pod, "ip", "route", "add", "default", "via", "172.20.0.1")
	}
	for _, addr := range []string{"172.20.1.20/32", "10.10.1.200/32"} {
		w.sh(w.outside, "ip", "addr", "add", addr, "dev", "lo")
	}
	w.sh(w.outside, "ip", "route", "add", "172.20.0.0/24", "via", "192.168.10.100")
	w.node = newNode(t, o)
	w.place()
	w.attach()
	return w
}

// connect makes a veth pair from the node to ns.
func (w *world) connect(name string, ns netns.NsHandle, peer, addr string) {
	w.t.Helper()
	in(w.t, w.host, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(ns)})
		if err != nil {
			w.t.Errorf("add %s: %v", name, err)
		}
	})
	if addr != "" {
		w.sh(ns, "ip", "addr", "add", addr, "dev", peer)
	}
	w.sh(ns, "ip", "link", "set", peer, "up")
	w.sh(w.host, "ip", "link", "set", name, "up")
}

// place tells the maps where the pods are in truth.
func (w *world) place() {
	index := map[string]uint32{}
	in(w.t, w.host, func() {
		for id, name := range []string{"", "lxc1", "lxc2"} {
			if id == 0 {
				continue
			}
			device, err := net.InterfaceByName(name)
			if err != nil {
				w.t.Error(err)
				return
			}
			var endpoint DatapathEndpoint
			if err := w.Maps[Endpoints].Lookup(uint32(id), &endpoint); err != nil {
				w.t.Error(err)
				return
			}
			endpoint.Ifindex = uint32(device.Index)
			endpoint.HostMac = [6]byte(device.HardwareAddr)
			in(w.t, map[int]netns.NsHandle{1: w.pod1, 2: w.pod2}[id], func() {
				inside, err := net.InterfaceByName("eth0")
				if err != nil {
					w.t.Error(err)
					return
				}
				endpoint.Mac = [6]byte(inside.HardwareAddr)
			})
			w.put(w.t, Endpoints, uint32(id), endpoint)
		}
		device, err := net.InterfaceByName("eth1")
		if err != nil {
			w.t.Error(err)
			return
		}
		index["eth1"] = uint32(device.Index)
	})
	clearMap(w.t, Devices, w.Maps[Devices])
	w.put(w.t, Devices, index["eth1"], DatapathDevice{Addr: ip("192.168.10.100")})
}

func (w *world) attach() {
	w.t.Helper()
	in(w.t, w.host, func() {
		for _, a := range []struct {
			device, program string
			at              ebpf.AttachType
		}{
			{"lxc1", FromPod, ebpf.AttachTCXIngress}, {"lxc1", ToPod, ebpf.AttachTCXEgress},
			{"lxc2", FromPod, ebpf.AttachTCXIngress}, {"lxc2", ToPod, ebpf.AttachTCXEgress},
			{"labctl_host", FromHost, ebpf.AttachTCXEgress},
			{"eth1", FromNetdev, ebpf.AttachTCXIngress}, {"eth1", ToNetdev, ebpf.AttachTCXEgress},
		} {
			device, err := net.InterfaceByName(a.device)
			if err == nil {
				var l link.Link
				l, err = link.AttachTCX(link.TCXOptions{Interface: device.Index, Program: w.Programs[a.program], Attach: a.at})
				if err == nil {
					w.t.Cleanup(func() { l.Close() })
				}
			}
			if err != nil {
				w.t.Errorf("attach %s to %s: %v", a.program, a.device, err)
			}
		}
	})
	w.cgroup = newCgroup(w.t)
	for program, at := range map[string]ebpf.AttachType{
		Connect4: ebpf.AttachCGroupInet4Connect, Sendmsg4: ebpf.AttachCGroupUDP4Sendmsg,
		Recvmsg4: ebpf.AttachCGroupUDP4Recvmsg, Getpeername4: ebpf.AttachCgroupInet4GetPeername,
	} {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: w.cgroup.Name(), Attach: at, Program: w.Programs[program]})
		if err != nil {
			w.t.Fatalf("attach %s: %v", program, err)
		}
		w.t.Cleanup(func() { l.Close() })
	}
}

// newCgroup is a child of the cgroup2 mount, wherever that is.
func newCgroup(t *testing.T) *os.File {
	t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		words := strings.Fields(line)
		if len(words) < 3 || words[2] != "cgroup2" {
			continue
		}
		path, err := os.MkdirTemp(words[1], "labctl-bpf-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		})
		dir, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
		return dir
	}
	t.Fatal("no cgroup2 is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)")
	return nil
}

// in runs work on a thread in ns.
func in(t testing.TB, ns netns.NsHandle, work func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := netns.Set(ns)
		if err == nil {
			work()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("enter a network namespace: %v", err)
	}
}

func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	var ns netns.NsHandle
	inNamespace(t, func() {
		var err error
		if ns, err = netns.Get(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { ns.Close() })
	in(t, ns, func() {
		for _, name := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return ns
}

// sh runs a command in ns, which must succeed.
func (w *world) sh(ns netns.NsHandle, argv ...string) {
	w.t.Helper()
	in(w.t, ns, func() {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			w.t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
	})
}

// setOffload turns checksum and segmentation offload of all veth ends on or off
// (ethtool -K tx, tso, gso). Of pods only: what a pod leaves to its device the
// node's device has to finish, behind our programs.
func (w *world) setOffload(of string) {
	w.t.Helper()
	const setTxChecksum, setTSO, setGSO = 0x17, 0x1f, 0x24
	for ns, names := range map[netns.NsHandle][]string{
		w.host: {"lxc1", "lxc2", "eth1"}, w.pod1: {"eth0"}, w.pod2: {"eth0"}, w.outside: {"eth0"},
	} {
		on := of == "on" || of == "of pods" && ns != w.host
		for _, name := range names {
			for _, command := range []uint32{setTxChecksum, setTSO, setGSO} {
				in(w.t, ns, func() {
					if err := ethtool(name, command, on); err != nil {
						w.t.Errorf("offload of %s: %v", name, err)
					}
				})
			}
		}
	}
}

func ethtool(device string, command uint32, on bool) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	value := struct{ command, data uint32 }{command, uint32(flag(on))}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], device)
	if _, _, code := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); code != 0 {
		return code
	}
	return nil
}
