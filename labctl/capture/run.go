package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// queued is how many packets of all places wait to be put in order. When it
	// is full the streams are read no further, and the kernels count what they drop.
	queued = 256
	// farewell is how long the places have to hand over what was captured last.
	farewell = 2 * time.Second
)

// Source is a place to capture in.
type Source struct {
	Place string
	// First is a device of the place: a file must name one before any packet.
	First Device
	// Open begins the capture; it lasts as long as the context.
	Open func(ctx context.Context) (*api.CaptureStream, error)
}

// Sink takes packets, in the order of time.
type Sink interface {
	// Begin tells of a device, before the first packet.
	Begin(Device) error
	Take(*Packet) error
	// Flush is called when no more packets wait.
	Flush() error
}

// Run is one capture.
type Run struct {
	Sources []Source
	// Count ends it after so many packets; 0: it goes on.
	Count int
	Sink  Sink
	// Ready is told the places that are captured in; Say is told of trouble that
	// does not end the capture.
	Ready func(places []string)
	Say   func(string)
}

// Result is how a capture went.
type Result struct {
	// Captured is how many packets the sink took.
	Captured int
	api.CaptureCounts
	// Lost are the places of which not all is known, and why.
	Lost map[string]error
}

// Do captures until ctx ends, the count is reached, the sink has an error, or no
// place is left. The error is the sink's, or says that no place could be captured in.
func (r Run) Do(ctx context.Context) (Result, error) {
	// What was captured is still read when ctx has ended.
	streams, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	w := &work{run: r, result: Result{Lost: map[string]error{}}, arrivals: make(chan arrival, queued), end: streams.Done()}
	defer w.close()
	opened := context.AfterFunc(ctx, cancel)
	err := w.open(streams)
	if !opened() {
		return w.result, nil // interrupted before it began
	}
	if err == nil {
		err = w.merge(ctx)
	}
	return w.result, err
}

// work is a capture under way.
type work struct {
	run      Run
	readers  []*Reader
	result   Result
	arrivals chan arrival
	end      <-chan struct{}
	merger   merger
	enough   bool // the count is reached
}

// arrival is a packet, or the end of a place's stream.
type arrival struct {
	packet Packet
	from   *Reader
	err    error
}

// open begins to capture in all places at once.
func (w *work) open(ctx context.Context) error {
	type opened struct {
		reader *Reader
		err    error
	}
	all := make([]opened, len(w.run.Sources))
	var opening sync.WaitGroup
	for i, s := range w.run.Sources {
		opening.Go(func() { all[i].reader, all[i].err = open(ctx, s) })
	}
	opening.Wait()
	var failures []error
	for i, o := range all {
		if o.err != nil {
			failures = append(failures, o.err)
			w.result.Lost[w.run.Sources[i].Place] = o.err
			continue
		}
		w.readers = append(w.readers, o.reader)
	}
	if len(w.readers) == 0 {
		return errors.Join(failures...)
	}
	for _, err := range failures {
		w.run.Say(err.Error())
	}
	return nil
}

func open(ctx context.Context, s Source) (*Reader, error) {
	stream, err := s.Open(ctx)
	if err != nil {
		return nil, err
	}
	reader, err := NewReader(s.Place, stream)
	if err != nil {
		_ = stream.Close()
		return nil, err
	}
	return reader, nil
}

func (w *work) close() {
	for _, r := range w.readers {
		_ = r.Close()
	}
}

// begin tells of the places, and the sink of a device of each.
func (w *work) begin() error {
	var places []string
	for _, r := range w.readers {
		places = append(places, r.place)
		if offset := r.stream.ClockOffset; offset != 0 {
			w.run.Say(fmt.Sprintf("the clock of %s differs by %s; its times are corrected", r.place, offset.Round(time.Millisecond)))
		}
	}
	w.run.Ready(places)
	for _, s := range w.run.Sources {
		if slices.Contains(places, s.Place) {
			if err := w.run.Sink.Begin(s.First); err != nil {
				return err
			}
		}
	}
	return w.run.Sink.Flush()
}

// merge takes packets in until all streams have ended, and hands them on.
func (w *work) merge(ctx context.Context) error {
	if err := w.begin(); err != nil {
		return err
	}
	var ticks <-chan time.Time
	if len(w.readers) > 1 {
		w.merger.window = window
		ticker := time.NewTicker(window / 4)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for _, r := range w.readers {
		go w.read(r)
	}
	interrupted := ctx.Done()
	var late <-chan time.Time
	for left := len(w.readers); left > 0; {
		select {
		case a := <-w.arrivals:
			if a.err != nil {
				left--
				w.over(a, late != nil)
				break
			}
			w.merger.add(a.packet, time.Now())
		case <-ticks:
		case <-interrupted:
			interrupted, late = nil, w.stop()
		case <-late:
			return w.hand(true)
		}
		if err := w.hand(false); err != nil {
			return err
		}
		if w.enough && late == nil {
			interrupted, late = nil, w.stop()
		}
	}
	return w.hand(true)
}

// stop asks all places to come to an end, and tells when they are late.
func (w *work) stop() <-chan time.Time {
	for _, r := range w.readers {
		r.Stop()
	}
	return time.After(farewell)
}

// read hands on what a place captures.
func (w *work) read(r *Reader) {
	for {
		p, err := r.Next()
		select {
		case w.arrivals <- arrival{p, r, err}:
		case <-w.end:
			return
		}
		if err != nil {
			return
		}
	}
}

// over notes the end of a stream. One that nobody has stopped is a loss.
func (w *work) over(a arrival, stopped bool) {
	counts, err := a.from.Counts()
	if !errors.Is(a.err, io.EOF) {
		err = a.err
	}
	if err == nil {
		w.result.Received += counts.Received
		w.result.Dropped += counts.Dropped
	}
	if err == nil && stopped {
		return
	}
	if err == nil {
		err = errors.New("the capture has ended by itself")
	}
	w.result.Lost[a.from.place] = err
	w.run.Say(fmt.Sprintf("%s: %v", a.from.place, err))
}

// hand gives the sink what is due, or everything.
func (w *work) hand(all bool) error {
	for !w.enough {
		p, ok := w.merger.due(time.Now(), all)
		if !ok {
			break
		}
		if err := w.run.Sink.Take(&p); err != nil {
			return err
		}
		w.result.Captured++
		w.enough = w.run.Count > 0 && w.result.Captured >= w.run.Count
	}
	if len(w.arrivals) > 0 {
		return nil
	}
	return w.run.Sink.Flush()
}
