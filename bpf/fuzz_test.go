//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var tcPrograms = []struct{ name, device string }{
	{FromPod, "lxc1"}, {ToPod, "lxc1"}, {FromHost, "labctl_host"}, {FromNetdev, "eth1"}, {ToNetdev, "eth1"},
}

// FuzzPackets gives mutated packets to every tc program. Whatever comes: the
// verdict is one that there is, the length stays, one counter moves by one, and
// a valid IPv4 header checksum stays valid. The payload behind the headers that
// the datapath may write stays as it was.
func FuzzPackets(f *testing.F) {
	for _, line := range []string{
		"tcp 172.20.0.10:40000 > 10.96.0.10:80 S",
		"tcp 172.20.1.20:8080 > 172.20.0.10:40000 SA options",
		"tcp 192.168.10.200:50000 > 192.168.10.100:30080 S",
		"udp 172.20.0.10:40000 > 10.10.1.200:53 first size=200",
		"udp 172.20.0.10:40000 > 10.10.1.200:53 later size=200",
		"echo 172.20.0.10 > 10.10.1.200 id=7",
		"unreach 192.168.10.200 > 172.20.0.10 about tcp 172.20.0.10:40000 > 172.20.1.20:8080 A",
		"exceeded 192.168.10.200 > 192.168.10.100 full about udp 192.168.10.100:40000 > 10.10.1.200:53 options",
	} {
		frame, err := parseFrame(line)
		if err != nil {
			f.Fatal(err)
		}
		for program := range 5 {
			f.Add(uint8(program), frame.bytes(outside[0], outside[1]))
		}
	}
	if testing.Short() {
		f.Skip("needs root")
	}
	n := fuzzNode(f)
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		if len(data) < 40 || len(data) > 1500 {
			return
		}
		p := tcPrograms[int(which)%len(tcPrograms)]
		before := n.total(t)
		done := make(chan struct{})
		var verdict int32
		var out []byte
		n.work <- func() {
			defer close(done)
			verdict, out = n.run(t, p.name, p.device, data, 0)
		}
		<-done
		switch verdict {
		case -1, 2, 7:
		default:
			t.Fatalf("verdict %d", verdict)
		}
		if len(out) != len(data) {
			t.Fatalf("%d bytes became %d", len(data), len(out))
		}
		if after := n.total(t); after != before+1 {
			t.Fatalf("counted %d times", after-before)
		}
		checkUntouched(t, data, out)
	})
}

func checkUntouched(t *testing.T, in, out []byte) {
	t.Helper()
	header := int(in[14]&15) * 4
	if binary.BigEndian.Uint16(in[12:]) != 0x0800 || in[14]>>4 != 4 || header < 20 || len(in) < 14+header {
		if string(in[14:]) != string(out[14:]) {
			t.Fatalf("no IPv4, and changed\n%x\n%x", in, out)
		}
		return
	}
	if sum(in[14:14+header], 0) == 0 && sum(out[14:14+header], 0) != 0 {
		t.Fatalf("the header checksum was right\n%x\n%x", in, out)
	}
	if string(in[34:14+header]) != string(out[34:14+header]) {
		t.Fatalf("options changed\n%x\n%x", in, out)
	}
	// ICMP, header, quoted header and its first 20 bytes at most.
	if end := 14 + header + 8 + 60 + 20; len(in) > end && string(in[end:]) != string(out[end:]) {
		t.Fatalf("payload changed\n%x\n%x", in, out)
	}
}

// fuzzed is a node on a thread of its own, for each call of a fuzz target comes
// on any.
type fuzzed struct {
	*node
	work chan func()
}

func fuzzNode(f *testing.F) *fuzzed {
	n := &fuzzed{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			makeDevices(f)
		}
		ready <- err
		for work := range n.work {
			work()
		}
	}()
	if err := <-ready; err != nil {
		f.Fatalf("make a network namespace: %v (this test needs root)", err)
	}
	f.Cleanup(func() { close(n.work) })
	n.node = newNode(f, testOptions)
	n.backend(f, strings.Fields("1 172.20.1.20:8080/tcp"))
	n.backend(f, strings.Fields("2 172.20.0.11:8080/tcp"))
	n.service(f, strings.Fields("10.96.0.10:80/tcp 1 backends=1,2"))
	n.service(f, strings.Fields("192.168.10.100:30080/tcp 2 nodeport maglev backends=1,2"))
	return n
}

// total is all that was counted, for any reason.
func (n *fuzzed) total(t testing.TB) (packets uint64) {
	t.Helper()
	var cursor ebpf.MapBatchCursor
	keys := make([]uint32, 1024)
	values := make([]DatapathMetric, len(keys)*ebpf.MustPossibleCPU())
	count, err := n.Maps[Metrics].BatchLookup(&cursor, keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) || count != len(keys) {
		t.Fatalf("read %d counters: %v", count, err)
	}
	for _, m := range values {
		packets += m.Packets
	}
	return packets
}

// TestMutated changes every byte of packets of each kind, and gives what comes
// of it to every program.
func TestMutated(t *testing.T) {
	onNode(t, testOptions, func(n *node) {
		n.backend(t, strings.Fields("1 172.20.1.20:8080/tcp"))
		n.service(t, strings.Fields("10.96.0.10:80/tcp 1 backends=1"))
		for _, line := range []string{
			"tcp 172.20.0.10:40000 > 10.96.0.10:80 A options",
			"udp 172.20.0.10:40000 > 10.10.1.200:53",
			"exceeded 192.168.10.200 > 192.168.10.100 full about udp 192.168.10.100:40000 > 10.10.1.200:53 options",
		} {
			frame, err := parseFrame(line)
			if err != nil {
				t.Fatal(err)
			}
			whole := frame.bytes(outside[0], outside[1])
			for _, p := range tcPrograms {
				for at := 12; at < len(whole); at++ {
					for _, value := range []byte{0, whole[at] + 1, whole[at] ^ 0x80, 0xff} {
						data := append([]byte{}, whole...)
						data[at] = value
						verdict, out := n.run(t, p.name, p.device, data, 0)
						if verdict != -1 && verdict != 2 && verdict != 7 || len(out) != len(data) {
							t.Fatalf("%s, byte %d set to %#x: verdict %d, %d bytes", line, at, value, verdict, len(out))
						}
						checkUntouched(t, data, out)
					}
				}
			}
		}
	})
}
