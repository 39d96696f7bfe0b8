package capture

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/capture/capturetest"
	"github.com/native-routing/labctl/agent/nstest"
	"github.com/native-routing/labctl/labctl/capture/filter"
)

// world is a client and a router, whose default route leads into the void.
type world struct {
	client, router, void *nstest.Namespace
	sources              []Source
	stop                 map[string]func()
}

func newWorld(t *testing.T, expression string) *world {
	w := &world{client: nstest.New(t), router: nstest.New(t), void: nstest.New(t), stop: map[string]func(){}}
	w.client.Connect("eth1", w.router, "eth1")
	w.router.Connect("eth0", w.void, "x")
	w.client.IP("addr add 192.168.10.100/24 dev eth1")
	w.client.IP("route add default via 192.168.10.200")
	w.router.IP("addr add 192.168.10.200/24 dev eth1")
	w.router.IP("addr add 10.0.2.15/24 dev eth0")
	w.router.IP("neigh add 10.0.2.2 lladdr 02:00:00:00:00:09 dev eth0")
	w.router.IP("route add default via 10.0.2.2")
	w.router.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	parsed, err := filter.Parse(expression, nil)
	if err != nil {
		t.Fatal(err)
	}
	program, err := parsed.Socket(api.MaxSnapLength)
	if err != nil {
		t.Fatal(err)
	}
	for name, ns := range map[string]*nstest.Namespace{"client": w.client, "router": w.router} {
		client, stop := capturetest.Node(t, ns, nil)
		w.stop[name] = stop
		w.sources = append(w.sources, Source{
			Place: name, First: Device{name, "lo", layers.LinkTypeEthernet, api.MaxSnapLength},
			Open: func(ctx context.Context) (*api.CaptureStream, error) {
				return api.OpenCapture(ctx, client, api.CaptureRequest{Filter: program})
			},
		})
	}
	slices.SortFunc(w.sources, func(a, b Source) int { return strings.Compare(a.Place, b.Place) })
	return w
}

// during captures into a sink while do runs.
func during(t *testing.T, r Run, do func()) (Result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r.Ready = func([]string) {
		go func() {
			do()
			if r.Count == 0 {
				cancel()
			}
		}()
	}
	if r.Say == nil {
		r.Say = func(text string) { t.Error(text) }
	}
	return r.Do(ctx)
}

// The lesson of the lab: a request comes in by eth1, and leaves by eth0.
func TestLostPingOnTheRouter(t *testing.T) {
	w := newWorld(t, "icmp")
	var out bytes.Buffer
	result, err := during(t, Run{Sources: w.sources, Sink: &Lines{Out: &out, Width: 6, Timeless: true}}, func() {
		_, _ = w.client.Command(context.Background(), "ping", "-c", "1", "-W", "0.1", "-e", "5", "172.20.2.7").CombinedOutput()
	})
	if err != nil || result.Captured != 3 || result.Received != 3 || result.Dropped != 0 || len(result.Lost) > 0 {
		t.Errorf("%+v, %v", result, err)
	}
	want := `client eth1  Out IP 192.168.10.100 > 172.20.2.7: ICMP echo request, id 5, seq 1, length 64
router eth1  In  IP 192.168.10.100 > 172.20.2.7: ICMP echo request, id 5, seq 1, length 64
router eth0  Out IP 192.168.10.100 > 172.20.2.7: ICMP echo request, id 5, seq 1, length 64
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

// shared is a buffer that is read while another process writes.
type shared struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buffer.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buffer.String()
}

// What follows the node's name is what tcpdump writes on the same node.
func TestLinesAreThoseOfTcpdumpOnAny(t *testing.T) {
	const expression = "not ip6"
	w := newWorld(t, expression)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Without -s each packet takes 256 KiB of its ring, in which no more than eight find room.
	tcpdump := w.router.Command(ctx, "tcpdump", "-nni", "any", "-t", "-l", "-s", "2048", "--immediate-mode", expression)
	tcpdump.Cancel = func() error { return exec.Command("kill", "-INT", fmt.Sprint(tcpdump.Process.Pid)).Run() }
	var theirs shared
	tcpdump.Stdout = &theirs
	errs, err := tcpdump.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tcpdump.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(errs); lines.Scan() && !strings.HasPrefix(lines.Text(), "listening"); {
	}
	var ours bytes.Buffer
	_, err = during(t, Run{Sources: w.sources[1:], Sink: &Lines{Out: &ours, Width: 6, Timeless: true}}, func() {
		w.client.Run("sh", "-c", "ping -c 2 -i 0.01 192.168.10.200; ping -c 1 -W 0.1 172.20.2.7; curl -s -m 1 http://192.168.10.200:81/; "+
			"curl -s -m 0.2 http://172.20.2.7/; ping -b -c 1 -W 0.1 192.168.10.255; ping -c 1 -W 0.1 224.0.0.5; true")
		w.router.Run("ping", "-c", "1", "127.0.0.1")
	})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); strings.Count(theirs.String(), "\n") < strings.Count(ours.String(), "\n") && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // it ends without what it has not read yet
	}
	cancel()
	_, _ = io.Copy(io.Discard, errs)
	_ = tcpdump.Wait()
	got := strings.ReplaceAll(ours.String(), "router ", "")
	if diff := cmp.Diff(strings.Split(strings.TrimSpace(theirs.String()), "\n"), strings.Split(strings.TrimSpace(got), "\n")); diff != "" || strings.Count(got, "\n") < 14 {
		t.Errorf("tcpdump says (-), and we (+)\n%s", diff)
	}
}

// What tshark reads of a file: names of interfaces, directions, counts.
func TestFileForTshark(t *testing.T) {
	w := newWorld(t, "icmp")
	in, out := io.Pipe()
	tshark := exec.Command("tshark", "-r", "-", "-T", "fields", "-e", "frame.interface_name", "-e", "frame.interface_description", "-e", "frame.packet_flags_direction", "-e", "frame.packet_flags_reception_type", "-e", "ip.dst")
	tshark.Stdin = in
	var read bytes.Buffer
	tshark.Stdout = &read
	if err := tshark.Start(); err != nil {
		t.Fatal(err)
	}
	file := &File{Out: out, Version: "test", Filter: "icmp"}
	_, err := during(t, Run{Sources: w.sources, Sink: file, Count: 4}, func() { w.client.Run("ping", "-c", "2", "192.168.10.200") })
	if err := errors.Join(err, file.End(), out.Close(), tshark.Wait()); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^client/eth1\teth1 of client\t\S*2\t\S*0\t192.168.10.200
router/eth1\teth1 of router\t\S*1\t\S*1\t192.168.10.200
router/eth1\teth1 of router\t\S*2\t\S*0\t192.168.10.100
client/eth1\teth1 of client\t\S*1\t\S*1\t192.168.10.100
$`)
	if !want.MatchString(read.String()) {
		t.Errorf("tshark says\n%s", read.String())
	}
}

// locked is a sink for two goroutines.
type locked struct {
	mu    sync.Mutex
	taken []Packet
	fail  error
}

func (l *locked) Begin(Device) error { return nil }
func (l *locked) Flush() error       { return nil }
func (l *locked) Take(p *Packet) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = append(l.taken, *p)
	return l.fail
}

func TestOneNodeDies(t *testing.T) {
	w := newWorld(t, "icmp")
	var said []string
	sink := new(locked)
	result, err := during(t, Run{Sources: w.sources, Sink: sink, Say: func(text string) { said = append(said, text) }}, func() {
		w.client.Run("ping", "-c", "1", "192.168.10.200")
		w.stop["client"]()
		w.client.Run("ping", "-c", "1", "192.168.10.200")
	})
	if err != nil || result.Captured < 4 || len(result.Lost) != 1 || result.Lost["client"] == nil || len(said) != 1 {
		t.Errorf("%+v, %v, said %q", result, err, said)
	}
}

func TestEnds(t *testing.T) {
	w := newWorld(t, "icmp")
	gone := errors.New("the reader has gone")
	ping := func() { w.client.Run("ping", "-c", "3", "-i", "0.01", "192.168.10.200") }
	if _, err := during(t, Run{Sources: w.sources, Sink: &locked{fail: gone}}, ping); !errors.Is(err, gone) {
		t.Errorf("a sink's error: %v", err)
	}
	result, err := during(t, Run{Sources: w.sources, Sink: new(locked), Count: 5}, ping)
	if err != nil || result.Captured != 5 {
		t.Errorf("a count: %+v, %v", result, err)
	}
	w.stop["client"]()
	w.stop["router"]()
	if _, err := during(t, Run{Sources: w.sources, Sink: new(locked)}, ping); err == nil {
		t.Error("nobody to capture on is no error")
	}
}

func TestMerge(t *testing.T) {
	began := time.Unix(1000, 0)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	m := merger{window: window}
	for arrived, stamps := range map[int]int{10: 30, 20: 5, 30: 20, 500: 1} {
		m.add(Packet{Time: at(stamps)}, at(arrived))
	}
	var order []string
	for now := 0; now < 1000; now += 10 {
		for {
			p, ok := m.due(at(now), false)
			if !ok {
				break
			}
			order = append(order, fmt.Sprintf("%d at %d", p.Time.Sub(began).Milliseconds(), now))
		}
	}
	if got := strings.Join(order, ", "); got != "1 at 600, 5 at 600, 20 at 600, 30 at 600" {
		t.Error(got)
	}
	for range maxHeld + 10 {
		m.add(Packet{Time: at(1), Data: make([]byte, 10)}, at(0))
	}
	for range 10 {
		if _, ok := m.due(at(0), false); !ok {
			t.Error("more are held than there may be")
		}
	}
	if _, ok := m.due(at(0), false); ok {
		t.Error("fewer are held than there may be")
	}
}
