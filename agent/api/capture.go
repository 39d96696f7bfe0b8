package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/bpf"
)

// CapturePath answers a POST of a CaptureRequest with the packets that pass, in
// pcapng, from the moment that the answer begins. It goes on while the request's
// body stays open: who closes that gets what is still queued, the end of the
// stream, and in its trailers what was counted. Packets that nobody takes in
// time are dropped and counted by the kernel.
const CapturePath = "/v1/capture"

// The trailers that tell the counts of a capture at its end.
const (
	CaptureReceivedTrailer = "Labctl-Received"
	CaptureDroppedTrailer  = "Labctl-Dropped"
)

// MaxSnapLength is the most that is kept of a packet, in bytes: tcpdump's default.
const MaxSnapLength = 262144

// CaptureRequest says what to capture.
type CaptureRequest struct {
	// Pod is the key of the pod of this node in whose namespace packets are
	// looked at; empty for the node's own.
	Pod string `json:"pod,omitempty"`
	// Devices are the only ones looked at, by name, also those that appear while
	// the capture goes on; empty for all.
	Devices []string `json:"devices,omitempty"`
	// SnapLength is how much of each packet is kept, in bytes; 0 for MaxSnapLength.
	SnapLength int `json:"snapLength,omitempty"`
	// Filter is a program as a packet socket takes it, with the link layer's
	// header in front of the packet; empty for all packets. What it returns is
	// how much of the packet is kept, at most SnapLength.
	Filter []bpf.RawInstruction `json:"filter,omitempty"`
}

// CaptureCounts is how a capture went.
type CaptureCounts struct {
	// Received is how many packets passed the filter, those that were dropped included.
	Received uint64 `json:"received"`
	// Dropped is how many of them nobody took in time.
	Dropped uint64 `json:"dropped"`
}

// CaptureStream is a capture under way: what is read from it is pcapng, with an
// interface for each device and in each packet's flags whether it came in or
// went out, and as what it was received.
type CaptureStream struct {
	// ClockOffset is how much the node's clock is ahead of this one, as far as who
	// opened the stream knows: see [ClockOffset].
	ClockOffset time.Duration

	answer *http.Response
	open   *io.PipeWriter
	cancel context.CancelCauseFunc
}

// openTime is how long an agent may take to begin a capture.
const openTime = 4 * time.Second

// OpenCapture begins a capture on the agent that the client calls: every packet
// that passes after it has returned is captured. The stream ends with ctx. An
// agent that does not begin within 4 s is context.DeadlineExceeded.
func OpenCapture(ctx context.Context, c *Client, request CaptureRequest) (*CaptureStream, error) {
	head, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", CapturePath, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	body, open := io.Pipe()
	late := time.AfterFunc(openTime, func() { cancel(context.DeadlineExceeded) })
	answer, err := c.post(ctx, CapturePath, struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), body), body})
	if !late.Stop() && err == nil {
		_ = answer.Body.Close()
		err = context.DeadlineExceeded
	}
	if err != nil {
		_ = open.Close()
		cancel(nil)
		return nil, err
	}
	return &CaptureStream{answer: answer, open: open, cancel: cancel}, nil
}

// post sends a body and returns an answer that is a stream.
func (c *Client) post(ctx context.Context, path string, body io.ReadCloser) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, body)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("call the agent: %w", err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	failure := new(Error)
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxBody)).Decode(failure); err != nil {
		return nil, fmt.Errorf("call the agent: %s %s: %s", http.MethodPost, path, answer.Status)
	}
	return nil, failure
}

// Read reads the stream.
func (s *CaptureStream) Read(b []byte) (int, error) { return s.answer.Body.Read(b) }

// Stop asks the agent to end the capture: what was captured before can still be
// read, up to io.EOF. It may be called more than once, and while Read waits.
func (s *CaptureStream) Stop() { _ = s.open.Close() }

// Counts are there when Read has returned io.EOF; the error says that the agent
// went away before it could tell.
func (s *CaptureStream) Counts() (CaptureCounts, error) {
	received, err := strconv.ParseUint(s.answer.Trailer.Get(CaptureReceivedTrailer), 10, 64)
	dropped, err2 := strconv.ParseUint(s.answer.Trailer.Get(CaptureDroppedTrailer), 10, 64)
	if err != nil || err2 != nil {
		return CaptureCounts{}, errors.New("the agent has ended the connection (it stopped, or was restarted)")
	}
	return CaptureCounts{Received: received, Dropped: dropped}, nil
}

// Close ends the capture, whatever is still queued.
func (s *CaptureStream) Close() error {
	s.Stop()
	s.cancel(nil)
	return s.answer.Body.Close()
}
