//go:build linux

package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
	"golang.org/x/sys/unix"
)

func startIn(t testing.TB, ns *nstest.Namespace, w *Witness, request api.WitnessRequest) {
	t.Helper()
	var err error
	ns.Do(func() { _, err = w.Start(context.Background(), request) })
	if err != nil {
		t.Fatal(err)
	}
}

// stop is called on any thread: the agent's handlers run where they like.
func stop(t testing.TB, w *Witness, session uint32) api.WitnessResponse {
	t.Helper()
	response, err := w.Stop(context.Background(), api.WitnessRequest{Session: session})
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func sightingText(s api.Sighting) string {
	way, what := "In", "request"
	if s.Outgoing {
		way = "Out"
	}
	if s.Reply {
		what = "reply"
	}
	return fmt.Sprintf("%s %s %s > %s %s probe %d seq %d ttl %d", s.Device, way, s.From, s.To, what, s.Probe, s.Sequence, s.TTL)
}

func sightingTexts(r api.WitnessResponse) []string {
	var texts []string
	for _, s := range r.Sightings {
		texts = append(texts, sightingText(s))
	}
	return texts
}

func TestWitnessOnTheMiddleRouter(t *testing.T) {
	c := newChain(t)
	var w Witness
	startIn(t, c.r1, &w, api.WitnessRequest{Session: 7})
	before := time.Now()
	pingIn(t, c.a,
		api.PingTarget{To: addr("10.0.3.2"), Count: 2, Interval: 5 * time.Millisecond, Timeout: time.Second, Size: 16, Session: 7, Probe: 42},
		api.PingTarget{To: addr("10.0.3.2"), Count: 1, Timeout: time.Second, Size: 16, Session: 8, Probe: 43})
	run(c.a, "ping", "-c", "1", "-W", "1", "10.0.3.2")
	response := stop(t, &w, 7)
	var want []string
	for seq := 1; seq <= 2; seq++ {
		want = append(want,
			fmt.Sprintf("to-a In 10.0.1.2 > 10.0.3.2 request probe 42 seq %d ttl 64", seq),
			fmt.Sprintf("to-r2 Out 10.0.1.2 > 10.0.3.2 request probe 42 seq %d ttl 63", seq),
			fmt.Sprintf("to-r2 In 10.0.3.2 > 10.0.1.2 reply probe 42 seq %d ttl 63", seq),
			fmt.Sprintf("to-a Out 10.0.3.2 > 10.0.1.2 reply probe 42 seq %d ttl 62", seq))
	}
	if got := sightingTexts(response); !slices.Equal(got, want) || response.Dropped != 0 {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, s := range response.Sightings {
		if s.Timestamp.Before(before) || s.Timestamp.After(time.Now()) {
			t.Errorf("the time of %s is %s", sightingText(s), s.Timestamp)
		}
	}
}

var dumped = regexp.MustCompile(`(\S+)\s+(In|Out)\s+IP (\S+) > (\S+): ICMP echo (request|reply), id \d+, seq (\d+)`)

func TestWitnessSeesWhatTcpdumpSees(t *testing.T) {
	need(t, "tcpdump")
	c := newChain(t)
	const echoes = 20
	const packets = 4 * echoes
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	// Without -s each packet takes 256 KiB of its ring, in which no more than eight find room.
	tcpdump := c.r1.Command(ctx, "tcpdump", "-i", "any", "-n", "-l", "-s", "128", "--immediate-mode", "-c", fmt.Sprint(packets), "icmp")
	out, err := tcpdump.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	messages, err := tcpdump.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tcpdump.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(messages); lines.Scan() && !strings.HasPrefix(lines.Text(), "listening"); {
	}
	var w Witness
	startIn(t, c.r1, &w, api.WitnessRequest{Session: 7})
	pingIn(t, c.a, api.PingTarget{To: addr("10.0.3.2"), Count: echoes, Interval: time.Millisecond, Timeout: time.Second, Size: 56, Session: 7})
	response := stop(t, &w, 7)
	var want, got []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		m := dumped.FindStringSubmatch(lines.Text())
		if m == nil {
			t.Fatalf("tcpdump wrote %q", lines.Text())
		}
		want = append(want, strings.Join(m[1:], " "))
	}
	if err := tcpdump.Wait(); err != nil {
		t.Errorf("tcpdump did not see %d packets: %v", packets, err)
	}
	for _, s := range response.Sightings {
		words := strings.Fields(sightingText(s))
		got = append(got, strings.Join([]string{words[0], words[1], words[2], words[4], words[5], fmt.Sprint(s.Sequence)}, " "))
	}
	slices.Sort(got)
	slices.Sort(want)
	if len(got) != packets || !slices.Equal(got, want) {
		t.Errorf("got\n%s\ntcpdump says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWitnessAtTheEnds(t *testing.T) {
	c := newChain(t)
	c.r2.IP("route add blackhole 10.0.7.0/24")
	c.r1.IP("route add 10.0.7.0/24 via 10.0.2.2")
	var w Witness
	nodes := []*nstest.Namespace{c.a, c.r2, c.b}
	for i, ns := range nodes {
		startIn(t, ns, &w, api.WitnessRequest{Session: uint32(i)}) // three sessions at once, in three namespaces
	}
	target := api.PingTarget{Count: 1, Timeout: time.Second, Size: 16, From: addr("10.9.9.1")}
	var targets []api.PingTarget
	for i := range nodes {
		to := target
		to.To, to.Session = addr("10.0.3.2"), uint32(i)
		lost := to
		lost.To, lost.Probe = addr("10.0.7.7"), 1
		own := to
		own.To, own.Probe = addr("10.9.9.1"), 2
		targets = append(targets, to, lost, own)
	}
	pingIn(t, c.a, targets...)
	for i, want := range [][]string{
		{
			"to-r1 Out 10.9.9.1 > 10.0.3.2 request probe 0 seq 1 ttl 64",
			"to-r1 In 10.0.3.2 > 10.9.9.1 reply probe 0 seq 1 ttl 62",
			"to-r1 Out 10.9.9.1 > 10.0.7.7 request probe 1 seq 1 ttl 64",
		},
		{
			"to-r1 In 10.9.9.1 > 10.0.3.2 request probe 0 seq 1 ttl 63",
			"to-b Out 10.9.9.1 > 10.0.3.2 request probe 0 seq 1 ttl 62",
			"to-b In 10.0.3.2 > 10.9.9.1 reply probe 0 seq 1 ttl 64",
			"to-r1 Out 10.0.3.2 > 10.9.9.1 reply probe 0 seq 1 ttl 63",
			"to-r1 In 10.9.9.1 > 10.0.7.7 request probe 1 seq 1 ttl 63",
		},
		{
			"to-r2 In 10.9.9.1 > 10.0.3.2 request probe 0 seq 1 ttl 62",
			"to-r2 Out 10.0.3.2 > 10.9.9.1 reply probe 0 seq 1 ttl 64",
		},
	} {
		got := sightingTexts(stop(t, &w, uint32(i)))
		slices.Sort(got) // the first packet waits for ARP, so the order of the probes is open
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("node %d: got\n%s\nwant\n%s", i, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// IP options move the ICMP header, and only the first fragment is an echo.
func TestWitnessOfOptionsAndFragments(t *testing.T) {
	c := newChain(t)
	var w Witness
	startIn(t, c.r1, &w, api.WitnessRequest{Session: testTag.session})
	pingIn(t, c.a, api.PingTarget{To: addr("10.0.3.2"), Count: 1, Timeout: time.Second, Size: 4000, Session: testTag.session, Probe: 5})
	var err error
	c.a.Do(func() { err = sendRecordRoute(testEcho(20)) })
	if err != nil {
		t.Fatal(err)
	}
	run(c.a, "ping", "-c", "1", "-W", "1", "10.0.3.2") // the echo before it has passed when this is answered
	count := map[uint32]int{}
	for _, s := range stop(t, &w, testTag.session).Sightings {
		count[s.Probe]++
	}
	if len(count) != 2 || count[5] != 4 || count[testTag.probe] != 4 {
		t.Errorf("sightings by probe: %v", count)
	}
}

// sendRecordRoute sends an ICMP message to B with the option of ping -R.
func sendRecordRoute(message []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	option := append([]byte{1, 7, 39, 4}, make([]byte, 36)...)
	if err := unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, string(option)); err != nil {
		return err
	}
	return unix.Sendto(fd, message, 0, &unix.SockaddrInet4{Addr: addr("10.0.3.2").As4()})
}

func TestWitnessSessions(t *testing.T) {
	ns := nstest.New(t)
	var w Witness
	ctx := context.Background()
	if _, err := w.Stop(ctx, api.WitnessRequest{Session: 1}); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("stopped a session that was never started: %v", err)
	}
	leaks(t, func() {
		ns.Do(func() {
			for _, lifetime := range []time.Duration{-1, 61 * time.Second} {
				if _, err := w.Start(ctx, api.WitnessRequest{Session: 1, Lifetime: lifetime}); !errors.Is(err, api.ErrInvalid) {
					t.Errorf("lifetime %s: %v", lifetime, err)
				}
			}
			for i := range maxWitnesses {
				if _, err := w.Start(ctx, api.WitnessRequest{Session: uint32(i)}); err != nil {
					t.Error(err)
				}
			}
			if _, err := w.Start(ctx, api.WitnessRequest{Session: maxWitnesses}); !errors.Is(err, api.ErrUnavailable) {
				t.Errorf("one witness too many: %v", err)
			}
			if _, err := w.Start(ctx, api.WitnessRequest{Session: 3}); !errors.Is(err, api.ErrInvalid) {
				t.Errorf("started twice: %v", err)
			}
		})
		for i := range maxWitnesses {
			if got := stop(t, &w, uint32(i)); len(got.Sightings) != 0 || got.Dropped != 0 {
				t.Errorf("session %d: %+v", i, got)
			}
		}
	})
	leaks(t, func() {
		startIn(t, ns, &w, api.WitnessRequest{Session: 1, Lifetime: 30 * time.Millisecond})
		time.Sleep(500 * time.Millisecond)
		if _, err := w.Stop(ctx, api.WitnessRequest{Session: 1}); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("the lifetime was over: %v", err)
		}
	})
}

// Every packet of a burst is either seen or counted as dropped.
func TestWitnessOfABurst(t *testing.T) {
	c := newChain(t)
	var targets []api.PingTarget
	for i := range 1000 {
		targets = append(targets, api.PingTarget{To: addr("10.0.3.2"), Count: 5, Timeout: time.Second, Size: 56, Session: 7, Probe: uint32(i)})
	}
	var w Witness
	startIn(t, c.r1, &w, api.WitnessRequest{Session: 7})
	received := 0
	start := time.Now()
	for _, r := range pingIn(t, c.a, targets...) {
		received += r.Received
	}
	took := time.Since(start)
	response := stop(t, &w, 7)
	t.Logf("%d of 5000 echoes in %s, %d sightings, %d dropped", received, took, len(response.Sightings), response.Dropped)
	if received != 5000 || len(response.Sightings)+response.Dropped != 20000 {
		t.Errorf("%d echoes, %d sightings, %d dropped", received, len(response.Sightings), response.Dropped)
	}
}
