// Package capture joins what the nodes of a lab capture: read from each, put in
// the order of time, and written as lines or as pcapng.
package capture

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/native-routing/labctl/agent/api"
)

// Device is one device of a node or a pod.
type Device struct {
	// Place is the node's or the pod's name.
	Place string
	Name  string
	Link  layers.LinkType
	// SnapLength is how much of a packet is kept, in bytes.
	SnapLength uint32
}

// Packet is one packet passing one device.
type Packet struct {
	Device Device
	// Time is by this machine's clock, as far as the node's could be compared.
	Time time.Time
	// Flags are the direction and the kind of reception.
	Flags pcapgo.NgEpbFlags
	// Length is how long the packet was, Data what was kept of it.
	Length int
	Data   []byte
	// Comment goes into a file beside the packet.
	Comment string
}

// Outgoing says that the node, or the pod, sent the packet out of the device.
func (p *Packet) Outgoing() bool { return p.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound }

// Reader reads the packets of one place.
type Reader struct {
	place  string
	stream *api.CaptureStream
	in     *pcapgo.NgReader
}

// NewReader reads the head of a stream. The place names the packets' origin.
func NewReader(place string, stream *api.CaptureStream) (*Reader, error) {
	in, err := pcapgo.NewNgReader(stream, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return nil, fmt.Errorf("read the head of the stream from %s: %w", place, err)
	}
	return &Reader{place, stream, in}, nil
}

func (r *Reader) device(number int) (Device, error) {
	face, err := r.in.Interface(number)
	return Device{Place: r.place, Name: face.Name, Link: face.LinkType, SnapLength: face.SnapLength}, err
}

// Next is the next packet; io.EOF when the capture was stopped and all was read.
func (r *Reader) Next() (Packet, error) {
	data, info, options, err := r.in.ReadPacketDataWithOptions()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the agent has ended the connection (it stopped, or was restarted)")
	}
	if err != nil {
		return Packet{}, err
	}
	device, err := r.device(info.InterfaceIndex)
	if err != nil {
		return Packet{}, err
	}
	p := Packet{Device: device, Time: info.Timestamp.Add(-r.stream.ClockOffset), Length: info.Length, Data: data}
	if options.Flags != nil {
		p.Flags = *options.Flags
	}
	return p, nil
}

// Stop, Counts and Close are the stream's.
func (r *Reader) Stop()                              { r.stream.Stop() }
func (r *Reader) Counts() (api.CaptureCounts, error) { return r.stream.Counts() }
func (r *Reader) Close() error                       { return r.stream.Close() }
