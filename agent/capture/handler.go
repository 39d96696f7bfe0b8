//go:build linux

package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// maxCaptures at once, each of which holds at most 400 KiB here and 16 MiB in
	// the kernel.
	maxCaptures = 32
	// maxCaptureRequest bounds a request, in bytes; a filter has at most 4096
	// instructions.
	maxCaptureRequest = 1 << 20
)

// captures answers api.CapturePath.
type captures struct {
	in     func(pod string, do func() error) error
	places chan struct{} // one for each capture under way
}

// NewHandler answers [api.CapturePath]. In runs a function on a thread that is in
// the namespace of a pod, or of the node where pod is empty.
func NewHandler(in func(pod string, do func() error) error) http.Handler {
	return &captures{in, make(chan struct{}, maxCaptures)}
}

func (c *captures) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The request's body stays open: nothing may wait for its end before it answers.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		api.WriteError(w, err)
		return
	}
	w.Header().Set("Connection", "close") // and there may be more to come of it
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	default:
		api.WriteError(w, &api.Error{Code: api.CodeUnavailable, Message: fmt.Sprintf("%d captures are under way, which is the most: stop one", maxCaptures)})
		return
	}
	var request api.CaptureRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCaptureRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&request); err != nil {
		api.WriteError(w, &api.Error{Code: api.CodeInvalid, Message: "decode the request: " + err.Error()})
		return
	}
	if request.SnapLength < 0 || request.SnapLength > api.MaxSnapLength {
		api.WriteError(w, &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf("capture: snap length %d: at most %d", request.SnapLength, api.MaxSnapLength)})
		return
	}
	c.stream(w, r, request)
}

// stream captures until the caller closes the request's body, or goes away.
func (c *captures) stream(w http.ResponseWriter, r *http.Request, request api.CaptureRequest) {
	out := http.NewResponseController(w)
	stream, err := c.open(w, out, request)
	if err != nil {
		api.WriteError(w, err)
		return
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(io.Discard, r.Body) // its end, or the caller's
		stream.Stop()
	}()
	counts, err := stream.Run()
	if err == nil {
		w.Header().Set(api.CaptureReceivedTrailer, strconv.FormatUint(counts.Received, 10))
		w.Header().Set(api.CaptureDroppedTrailer, strconv.FormatUint(counts.Dropped, 10))
	}
	_ = out.SetReadDeadline(time.Unix(1, 0)) // what the caller still has to say is not heard
	<-heard
}

// open begins the capture and the answer.
func (c *captures) open(w http.ResponseWriter, out *http.ResponseController, request api.CaptureRequest) (stream *Stream, err error) {
	answer := answer{w, w.Header()}
	err = c.in(request.Pod, func() (err error) {
		stream, err = NewStream(answer, Options{
			Devices: request.Devices, SnapLength: request.SnapLength, Filter: request.Filter,
		}, out.Flush)
		return err
	})
	if errors.Is(err, unix.EINVAL) {
		err = &api.Error{Code: api.CodeInvalid, Message: "capture: " + err.Error()}
	}
	return stream, err
}

// answer is a response whose head says what follows.
type answer struct {
	io.Writer
	head http.Header
}

func (a answer) Write(b []byte) (int, error) {
	if a.head.Get("Trailer") == "" {
		a.head.Set("Content-Type", "application/x-pcapng")
		a.head.Set("Trailer", api.CaptureReceivedTrailer+", "+api.CaptureDroppedTrailer)
	}
	return a.Writer.Write(b)
}
