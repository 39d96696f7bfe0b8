package ladder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/capture"
	"github.com/native-routing/labctl/labctl/capture/filter"
)

const (
	// snapLength is enough for the headers, those of a tunnel, the tag, and what
	// an ICMP error quotes.
	snapLength = 512
	// maxSeen bounds what is kept of each place.
	maxSeen = 1 << 14
	// defaultTimeout and defaultSize are those of a probe that does not say.
	defaultTimeout = time.Second
	defaultSize    = 56
	// farewell is how long a place has to hand over what it saw.
	farewell = 4 * time.Second
)

// Observe sends the probe while all places capture, and joins what they saw. A
// place that cannot look is blind in the ladder; the error is one of the sender,
// or the context's.
func Observe(ctx context.Context, p Prober, probe Probe, places []Place) (Ladder, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if probe.Timeout == 0 {
		probe.Timeout = defaultTimeout
	}
	o := observation{prober: p, ladder: Ladder{Probe: probe, Blind: map[Place]error{}, ClockOffsets: map[string]time.Duration{}}}
	program, err := program(probe.Protocol)
	if err != nil {
		return o.ladder, err
	}
	o.look(ctx, places, program)
	sent, err := o.send(ctx)
	o.collect()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return o.ladder, err
	}
	o.ladder.There, o.ladder.Back, o.ladder.Errors = Join(sent, o.seen)
	return o.ladder, nil
}

// expressions are the packets that may belong to a probe.
func program(protocol string) (api.CaptureRequest, error) {
	const around = "icmp or udp port 8472 or udp port 4789"
	expressions := map[string]string{
		ICMP: around,
		TCP:  "tcp[tcpflags] & (tcp-syn|tcp-rst) != 0 or " + around,
		UDP:  "udp or icmp",
	}
	expression, ok := expressions[protocol]
	if !ok {
		return api.CaptureRequest{}, fmt.Errorf("protocol %q: %s, %s or %s", protocol, ICMP, TCP, UDP)
	}
	parsed, err := filter.Parse(expression, nil)
	if err != nil {
		return api.CaptureRequest{}, err
	}
	instructions, err := parsed.Socket(snapLength)
	return api.CaptureRequest{SnapLength: snapLength, Filter: instructions}, err
}

// observation is one probe under way.
type observation struct {
	prober Prober
	ladder Ladder

	reading sync.WaitGroup
	streams []*api.CaptureStream

	mu   sync.Mutex
	seen []Seen
}

// look lets all places begin to capture.
func (o *observation) look(ctx context.Context, places []Place, request api.CaptureRequest) {
	var opening sync.WaitGroup
	for _, place := range places {
		opening.Go(func() {
			own := request
			own.Pod = place.Pod
			stream, err := o.prober.Capture(ctx, place.Node, own)
			o.mu.Lock()
			defer o.mu.Unlock()
			if err != nil {
				o.ladder.Blind[place] = err
				return
			}
			if stream.ClockOffset != 0 {
				o.ladder.ClockOffsets[place.Node] = stream.ClockOffset
			}
			o.streams = append(o.streams, stream)
			o.reading.Go(func() { o.read(place, stream) })
		})
	}
	opening.Wait()
}

// read takes in what a place sees.
func (o *observation) read(place Place, stream *api.CaptureStream) {
	var seen []Seen
	r, err := capture.NewReader(place.String(), stream)
	for err == nil {
		var p capture.Packet
		if p, err = r.Next(); err == nil && len(seen) < maxSeen {
			seen = append(seen, Seen{place, p})
		}
	}
	var counts api.CaptureCounts
	if errors.Is(err, io.EOF) {
		counts, err = stream.Counts()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, seen...)
	o.ladder.Dropped += counts.Dropped
	if err != nil {
		o.ladder.Blind[place] = err
	}
}

// collect ends the captures, and waits for what they saw.
func (o *observation) collect() {
	late := time.AfterFunc(farewell, func() {
		for _, s := range o.streams {
			_ = s.Close()
		}
	})
	defer late.Stop()
	for _, s := range o.streams {
		s.Stop()
	}
	o.reading.Wait()
	for _, s := range o.streams {
		_ = s.Close()
	}
}

// send sends the probe, and notes what came of it.
func (o *observation) send(ctx context.Context) (Sent, error) {
	probe := &o.ladder.Probe
	sent := Sent{Probe: *probe, Session: rand.Uint32()}
	if probe.Protocol == ICMP {
		return sent, o.ping(ctx, sent)
	}
	results, err := o.prober.Knock(ctx, probe.Node, []api.KnockTarget{{
		Pod: probe.Pod, Protocol: probe.Protocol, To: probe.To, Port: probe.Port, From: probe.From, Timeout: probe.Timeout,
		Session: sent.Session, Probe: 1,
	}})
	if err != nil {
		return sent, err
	}
	sent.Local = results[0].Local
	o.ladder.Local, o.ladder.Failure = results[0].Local, results[0].Failure
	o.ladder.Answered = results[0].Outcome == api.KnockAnswered
	return sent, nil
}

func (o *observation) ping(ctx context.Context, sent Sent) error {
	probe := sent.Probe
	size := probe.Size
	if size == 0 {
		size = defaultSize
	}
	results, err := o.prober.Ping(ctx, probe.Node, []api.PingTarget{{
		Pod: probe.Pod, To: probe.To, From: probe.From, Count: 1, Timeout: probe.Timeout, Size: size,
		DontFragment: probe.DontFragment, Session: sent.Session, Probe: 1,
	}})
	if err != nil {
		return err
	}
	o.ladder.Answered, o.ladder.Failure = results[0].Received > 0, results[0].Failure
	return nil
}
