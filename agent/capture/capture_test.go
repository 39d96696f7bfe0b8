//go:build linux

package capture_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/net/bpf"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/capture"
	"github.com/native-routing/labctl/agent/capture/capturetest"
	"github.com/native-routing/labctl/agent/nstest"
)

// pair is two namespaces with a link between them.
func pair(t testing.TB) (a, b *nstest.Namespace) {
	a, b = nstest.New(t), nstest.New(t)
	a.Connect("eth1", b, "eth1")
	a.IP("addr add 10.0.0.1/24 dev eth1")
	b.IP("addr add 10.0.0.2/24 dev eth1")
	return a, b
}

func open(t testing.TB, ns *nstest.Namespace, o capture.Options) *capture.Socket {
	t.Helper()
	var s *capture.Socket
	var err error
	ns.Do(func() { s, err = capture.Open(o) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stream(t testing.TB, client *api.Client, request api.CaptureRequest) (*api.CaptureStream, *pcapgo.NgReader) {
	t.Helper()
	s, err := api.OpenCapture(context.Background(), client, request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	r, err := pcapgo.NewNgReader(s, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

// all reads a stream to its end, as lines of device, direction and length.
func all(t testing.TB, r *pcapgo.NgReader) []string {
	t.Helper()
	var lines []string
	for {
		_, info, options, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		face, _ := r.Interface(info.InterfaceIndex)
		way := "in"
		if options.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound {
			way = "out"
		}
		lines = append(lines, fmt.Sprintf("%s %s %d of %d", face.Name, way, info.CaptureLength, info.Length))
	}
}

func TestStreamOfAllDevices(t *testing.T) {
	a, b := pair(t)
	client, _ := capturetest.Node(t, a, map[string]*nstest.Namespace{"default/b": b})
	icmp := []bpf.RawInstruction{ // tcpdump -ddd icmp, with 60 bytes kept
		{Op: 40, K: 12}, {Op: 21, Jf: 3, K: 0x800}, {Op: 48, K: 23}, {Op: 21, Jf: 1, K: 1}, {Op: 6, K: 60}, {Op: 6},
	}
	s, r := stream(t, client, api.CaptureRequest{Filter: icmp})
	inside, fromInside := stream(t, client, api.CaptureRequest{Pod: "default/b", SnapLength: 50})
	a.Run("ping", "-c", "1", "10.0.0.2")
	a.Run("ping", "-c", "1", "127.0.0.1")
	a.IP("link set eth1 down") // which is told once, and ends nothing
	a.IP("link set eth1 name eth9")
	a.IP("link set eth9 up")
	a.Run("ping", "-c", "1", "10.0.0.2")
	s.Stop()
	inside.Stop()
	want := []string{
		"eth1 out 60 of 98", "eth1 in 60 of 98", "lo in 60 of 98", "lo in 60 of 98", "eth9 out 60 of 98", "eth9 in 60 of 98",
	}
	if got := all(t, r); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if counts, err := s.Counts(); err != nil || counts != (api.CaptureCounts{Received: 6}) {
		t.Errorf("%+v, %v", counts, err)
	}
	if got := all(t, fromInside); !slices.Contains(got, "eth1 in 50 of 98") || slices.Contains(got, "lo in 50 of 98") {
		t.Errorf("in the pod: %v", got)
	}
}

// A device may be asked for before it is there, go, and come again.
func TestNamedDevices(t *testing.T) {
	a, b := pair(t)
	client, _ := capturetest.Node(t, a, nil)
	s, r := stream(t, client, api.CaptureRequest{Devices: []string{"eth2"}})
	for range 2 {
		a.Connect("eth2", b, "eth2")
		a.IP("addr add 10.0.2.1/24 dev eth2")
		b.IP("addr add 10.0.2.2/24 dev eth2")
		// The filter follows the kernel's notice, which is not waited for.
		for try := 0; ; try++ {
			before := statistics(t, a)
			a.Run("ping", "-c", "1", "10.0.2.2")
			if statistics(t, a) > before || try > 100 {
				break
			}
		}
		a.Run("ping", "-c", "1", "10.0.0.2") // by eth1, which nobody asked for
		a.IP("link del eth2")
	}
	s.Stop()
	got := all(t, r)
	for _, line := range got {
		if !strings.HasPrefix(line, "eth2 ") {
			t.Errorf("seen: %s", line)
		}
	}
	if echoes := slices.DeleteFunc(got, func(s string) bool { return !strings.HasSuffix(s, "98 of 98") }); len(echoes) < 4 {
		t.Errorf("%d packets of 4 at least", len(echoes))
	}
}

// statistics is what eth2 has received: the packet sockets see it no later.
func statistics(t *testing.T, ns *nstest.Namespace) int {
	var n int
	fields := strings.Fields(ns.IP("-s link show eth2"))
	at := slices.Index(fields, "RX:")
	if _, err := fmt.Sscan(fields[at+7], &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Every packet of a flood is either taken or counted as dropped, and Stop is
// heard in the midst of it.
func TestFlood(t *testing.T) {
	for _, size := range []int{0, 4096} {
		a, b := pair(t)
		marked := []bpf.RawInstruction{ // UDP to port 9
			{Op: 48, K: 23}, {Op: 21, Jf: 3, K: 17}, {Op: 40, K: 36}, {Op: 21, Jf: 1, K: 9}, {Op: 6, K: 100}, {Op: 6},
		}
		s := open(t, b, capture.Options{QueueSize: size, SnapLength: 100, Filter: marked})
		const sent = 20000
		a.Do(func() {
			c, err := net.Dial("udp", "10.0.0.2:9")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for i := range sent {
				for { // a refusal is told once, and means another one
					if _, err := c.Write(binary.BigEndian.AppendUint32(nil, uint32(i))); err == nil {
						break
					}
				}
			}
		})
		s.Stop()
		taken := 0
		counts, err := s.Run(func(p *capture.Packet) error {
			if taken++; p.Time.IsZero() || time.Since(p.Time) > time.Minute || len(p.Data) != 46 {
				t.Errorf("%+v", p)
			}
			return nil
		}, nil)
		if err != nil || counts.Received != sent || taken+int(counts.Dropped) != sent || size > 0 != (taken < 100) {
			t.Errorf("queue %d: %+v, %d taken, %v", size, counts, taken, err)
		}
		t.Logf("queue %d: %+v, %d taken", size, counts, taken)
	}
}

func TestRefusedRequests(t *testing.T) {
	a, _ := pair(t)
	client, stop := capturetest.Node(t, a, nil)
	for _, request := range []api.CaptureRequest{
		{Filter: []bpf.RawInstruction{{Op: 0xffff}}},
		{SnapLength: -1},
		{SnapLength: api.MaxSnapLength + 1},
	} {
		if _, err := api.OpenCapture(context.Background(), client, request); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%+v: %v", request, err)
		}
	}
	var held []*api.CaptureStream
	for {
		s, err := api.OpenCapture(context.Background(), client, api.CaptureRequest{SnapLength: 64})
		if err != nil {
			if !errors.Is(err, api.ErrUnavailable) || len(held) != 32 {
				t.Errorf("%d held: %v", len(held), err)
			}
			break
		}
		held = append(held, s)
	}
	stop()
	for _, s := range held {
		if _, err := io.Copy(io.Discard, s); err == nil {
			if _, err := s.Counts(); err == nil {
				t.Error("a stream ended as if it had been stopped")
			}
		}
		_ = s.Close()
	}
}

func BenchmarkCapture(b *testing.B) {
	a, peer := pair(b)
	s := open(b, a, capture.Options{SnapLength: 2048, QueueSize: 64 << 20})
	peer.Do(func() {
		c, err := net.Dial("udp", "10.0.0.1:9")
		if err != nil {
			b.Error(err)
			return
		}
		for range b.N {
			_, _ = c.Write(make([]byte, 64))
		}
	})
	s.Stop()
	out, taken := io.Discard, 0
	b.ResetTimer()
	counts, err := s.Run(func(p *capture.Packet) error {
		taken++
		_, err := out.Write(p.Data)
		return err
	}, nil)
	if err != nil {
		b.Error(err)
	}
	b.ReportMetric(float64(taken)/b.Elapsed().Seconds(), "packets/s")
	_ = counts
}
