//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// node is the datapath of k8s-ctr, loaded but attached to nothing: tests hand it
// packets by Program.Run. Its devices are those of a namespace made for it.
type node struct {
	*ebpf.Collection
	maglev map[uint32]*ebpf.Map
	slots  uint32
	unsure bool // whether a device will finish a checksum: the kernel does not say
}

var testOptions = Options{
	PodCIDR:    netip.MustParsePrefix("172.20.0.0/24"),
	NativeCIDR: netip.MustParsePrefix("172.20.0.0/16"),
	Masquerade: true, HostNetns: 1, MaglevSize: 251,
	Features: Features{KernelContext: true, SetRetval: true, HZ: 250},
	Sizes: Sizes{Frontends: 20000, Slots: 70000, Backends: 70000, Flows: 65536, NATs: 65536,
		Events: 1 << 16},
}

// Devices of the test node, with the ifindexes that they are made with.
var devices = map[string]int{"lxc1": 11, "lxc2": 21, "eth0": 31, "eth1": 41, "labctl_host": 51, "vxlan": 61}

var (
	mac     = map[string][6]byte{"lxc1": {2, 0, 0, 0, 1, 1}, "lxc2": {2, 0, 0, 0, 2, 1}}
	hostMAC = map[string][6]byte{"lxc1": {2, 0, 0, 0, 1, 2}, "lxc2": {2, 0, 0, 0, 2, 2}}
	outside = [2][6]byte{{2, 0, 0, 0, 9, 1}, {2, 0, 0, 0, 9, 2}}
)

// inNamespace runs work on a thread in a network namespace of its own, which is
// gone when it returns.
func inNamespace(t testing.TB, work func()) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	var err error
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			work()
		}
	}()
	wg.Wait()
	if err != nil {
		t.Fatalf("make a network namespace: %v (this test needs root)", err)
	}
}

// load loads the datapath; a verifier's refusal is printed in full.
func load(t testing.TB, o Options) *ebpf.Collection {
	t.Helper()
	spec, err := Spec(o)
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	var refusal *ebpf.VerifierError
	if errors.As(err, &refusal) {
		t.Fatalf("%+v", refusal)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return coll
}

func makeDevices(t testing.TB) {
	t.Helper()
	for name, index := range devices {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Index = name, index
		peer := fmt.Sprintf("peer%d", index)
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}); err != nil {
			t.Errorf("add %s: %v", name, err)
		}
	}
}

// newNode has two pods, two network devices, and neighbours as in the lab.
func newNode(t testing.TB, o Options) *node {
	n := &node{Collection: load(t, o), maglev: map[uint32]*ebpf.Map{}, slots: 1}
	n.reset(t)
	return n
}

// reset empties all maps and fills in the addresses.
func (n *node) reset(t testing.TB) {
	t.Helper()
	for name, m := range n.Maps {
		switch m.Type() {
		case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie, ebpf.HashOfMaps:
			clearMap(t, name, m)
		}
	}
	n.slots = 1
	for id, e := range []struct{ addr, device string }{
		{}, {"172.20.0.10", "lxc1"}, {"172.20.0.11", "lxc2"},
		{"172.20.0.1", ""}, {"192.168.10.100", ""}, {"10.0.2.15", ""},
	} {
		if id == 0 {
			continue
		}
		endpoint := DatapathEndpoint{Addr: ip(e.addr), Identity: uint32(1000 + id)}
		if e.device == "" {
			endpoint.Flags, endpoint.Identity = uint32(DatapathEndpointFlagENDPOINT_HOST), 1
		} else {
			endpoint.Ifindex = uint32(devices[e.device])
			endpoint.Mac, endpoint.HostMac = mac[e.device], hostMAC[e.device]
		}
		n.put(t, Endpoints, uint32(id), endpoint)
		n.put(t, Addresses, endpoint.Addr, uint32(id))
	}
	n.put(t, Devices, uint32(devices["eth0"]), DatapathDevice{Addr: ip("10.0.2.15")})
	n.put(t, Devices, uint32(devices["eth1"]), DatapathDevice{Addr: ip("192.168.10.100")})
	n.put(t, Devices, uint32(devices["vxlan"]), DatapathDevice{Addr: ip("172.20.0.1")})
	for prefix, identity := range map[string]uint32{
		"0.0.0.0/0": 2, "192.168.10.100/32": 1, "192.168.10.101/32": 6, "192.168.20.100/32": 7,
	} {
		key, err := Prefix(netip.MustParsePrefix(prefix))
		if err != nil {
			t.Fatal(err)
		}
		n.put(t, IPCache, key, DatapathRemote{Identity: identity})
	}
	n.put(t, Settings, uint32(0), DatapathSetting{})
	n.put(t, Handover, uint32(0), uint32(0))
}

func clearMap(t testing.TB, name string, m *ebpf.Map) {
	t.Helper()
	key := make([]byte, m.KeySize())
	for {
		if err := m.NextKey(nil, &key); errors.Is(err, ebpf.ErrKeyNotExist) {
			return
		} else if err != nil {
			t.Fatalf("walk %s: %v", name, err)
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Fatalf("empty %s: %v", name, err)
		}
	}
}

func (n *node) put(t testing.TB, name string, key, value any) {
	t.Helper()
	if err := n.Maps[name].Put(key, value); err != nil {
		t.Fatalf("put into %s: %v", name, err)
	}
}

// backend writes one, as in "7 172.20.1.20:8080/tcp terminating".
func (n *node) backend(t testing.TB, words []string) {
	t.Helper()
	id, _ := strconv.Atoi(words[0])
	addr, proto := frontendOf(t, words[1])
	state := DatapathBackendStateBACKEND_ACTIVE
	if len(words) > 2 {
		switch words[2] {
		case "terminating":
			state = DatapathBackendStateBACKEND_TERMINATING
		case "quarantined":
			state = DatapathBackendStateBACKEND_QUARANTINED
		case "maintenance":
			state = DatapathBackendStateBACKEND_MAINTENANCE
		case "gone":
			n.put(t, Backends, uint32(id), DatapathBackend{})
			return
		}
	}
	n.put(t, Backends, uint32(id), DatapathBackend{
		Addr: ip(addr.Addr().String()), Port: Port(addr.Port()), Proto: proto, State: uint8(state)})
}

// service writes one, as in "10.96.0.10:80/tcp 1 backends=1,2 affinity=60".
func (n *node) service(t testing.TB, words []string) {
	t.Helper()
	addr, proto := frontendOf(t, words[0])
	id, _ := strconv.Atoi(words[1])
	frontend := DatapathFrontend{First: n.slots, Id: uint16(id),
		Algorithm: uint8(DatapathAlgorithmALGORITHM_RANDOM)}
	key := DatapathFrontendKey{Addr: ip(addr.Addr().String()), Port: Port(addr.Port()), Proto: proto}
	var ids []uint32
	for _, word := range words[2:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "backends":
			for _, b := range strings.Split(value, ",") {
				backend, _ := strconv.Atoi(b)
				ids = append(ids, uint32(backend))
			}
		case "affinity":
			seconds, _ := strconv.Atoi(value)
			frontend.Affinity = uint32(seconds)
			frontend.Flags |= uint16(DatapathFrontendFlagFRONTEND_AFFINITY)
		case "nodeport":
			frontend.Flags |= uint16(DatapathFrontendFlagFRONTEND_NODEPORT | DatapathFrontendFlagFRONTEND_ROUTABLE)
		case "two-scopes":
			frontend.Flags |= uint16(DatapathFrontendFlagFRONTEND_TWO_SCOPES)
		case "internal":
			key.Scope = uint8(DatapathScopeSCOPE_INTERNAL)
		case "maglev":
			frontend.Algorithm = uint8(DatapathAlgorithmALGORITHM_MAGLEV)
		default:
			t.Fatalf("service: what is %q?", word)
		}
	}
	for _, backend := range ids {
		n.put(t, Slots, n.slots, DatapathSlot{Backend: backend, Service: frontend.Id})
		n.slots++
		n.put(t, AffinityMatch, DatapathAffinityMatchKey{Backend: backend, Service: frontend.Id}, uint8(1))
	}
	frontend.Count = uint16(len(ids))
	if frontend.Algorithm == uint8(DatapathAlgorithmALGORITHM_MAGLEV) {
		n.putMaglev(t, uint32(id), ids)
	}
	n.put(t, Frontends, key, frontend)
}

// putMaglev fills a table so that each backend has its preferred entries, as in
// the paper: a backend's order of entries does not depend on the others.
func (n *node) putMaglev(t testing.TB, service uint32, ids []uint32) {
	t.Helper()
	table, err := ebpf.NewMap(MaglevTable(testOptions.MaglevSize))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	for i, backend := range maglevTable(ids, testOptions.MaglevSize) {
		if err := table.Put(uint32(i), backend); err != nil {
			t.Fatal(err)
		}
	}
	n.put(t, Maglev, service, table)
}

func maglevTable(ids []uint32, size uint32) []uint32 {
	table, next := make([]uint32, size), make([]uint32, len(ids))
	for filled := uint32(0); filled < size; {
		for i, id := range ids {
			offset, skip := id*2654435761%size, id*40503%(size-1)+1
			for {
				entry := (offset + next[i]*skip) % size
				next[i]++
				if table[entry] == 0 {
					table[entry] = id
					filled++
					break
				}
			}
			if filled == size {
				break
			}
		}
	}
	return table
}

// run gives a frame to a program, as if it had come by the device.
func (n *node) run(t testing.TB, program, device string, in []byte, flags uint32) (verdict int32, out []byte) {
	t.Helper()
	context := make([]byte, 192)
	binary.NativeEndian.PutUint32(context[40:], uint32(devices[device])) // ifindex
	opts := &ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+64), Context: context, Flags: flags}
	code, err := n.Programs[program].Run(opts)
	if err != nil {
		t.Fatalf("run %s: %v", program, err)
	}
	return int32(code), opts.DataOut
}

// counted sums up the counters of a reason over all processors.
func (n *node) counted(t testing.TB, reason DatapathReason) (packets uint64) {
	t.Helper()
	for direction := DatapathDirection(0); direction < 4; direction++ {
		var per []DatapathMetric
		if err := n.Maps[Metrics].Lookup(MetricIndex(reason, direction), &per); err != nil {
			t.Fatal(err)
		}
		for _, m := range per {
			packets += m.Packets
		}
	}
	return packets
}

func frontendOf(t testing.TB, text string) (netip.AddrPort, uint8) {
	t.Helper()
	addr, proto, _ := strings.Cut(text, "/")
	number := map[string]uint8{"tcp": 6, "udp": 17}[proto]
	parsed, err := netip.ParseAddrPort(addr)
	if err != nil || number == 0 {
		t.Fatalf("no frontend: %q", text)
	}
	return parsed, number
}

func ip(text string) uint32 {
	if text == "" {
		return 0
	}
	address, err := Address(netip.MustParseAddr(text))
	if err != nil {
		panic(err)
	}
	return address
}

// keep makes pods keep their address to a prefix.
func (n *node) keep(t testing.TB, prefix string) {
	t.Helper()
	key, err := Prefix(netip.MustParsePrefix(prefix))
	if err != nil {
		t.Fatal(err)
	}
	n.put(t, Nonmasquerade, key, uint8(1))
}
