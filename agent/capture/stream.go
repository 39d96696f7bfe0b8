//go:build linux

package capture

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

// writeBuffer is how much is written at once, in bytes.
const writeBuffer = 64 << 10

// Stream writes a capture as pcapng: an interface for each device, those that
// are there at first, and others when a packet passes them; in each packet's
// flags its direction and how it was received.
type Stream struct {
	socket  *Socket
	out     *pcapgo.NgWriter
	numbers map[device]int
	flush   func() error
}

// device is a device under one name.
type device struct {
	index int
	name  string
}

// NewStream begins to capture, as [Open] does, and writes the head of the
// stream. Flush is called whenever what was written may go on its way. Nothing
// has been written where the error is one of Open.
func NewStream(w io.Writer, o Options, flush func() error) (*Stream, error) {
	socket, err := Open(o)
	if err != nil {
		return nil, err
	}
	s := &Stream{socket: socket, numbers: map[device]int{}, flush: flush}
	if err := s.begin(bufio.NewWriterSize(w, writeBuffer)); err != nil {
		socket.close()
		return nil, err
	}
	return s, nil
}

// begin writes the section's header and the interfaces that there are.
func (s *Stream) begin(w io.Writer) error {
	present, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the devices: %w", err)
	}
	wanted := s.socket.options.Devices
	for _, one := range present {
		if len(wanted) > 0 && !slices.Contains(wanted, one.Name) {
			continue
		}
		hardware, err := deviceHardware(s.socket.fd, one.Name)
		if err != nil {
			continue // it has just gone
		}
		if err := s.add(w, device{one.Index, one.Name}, hardware); err != nil {
			return err
		}
	}
	if s.out == nil { // a stream has one interface at least
		if err := s.add(w, device{0, wanted[0]}, unix.ARPHRD_ETHER); err != nil {
			return err
		}
	}
	return s.flushed()
}

// add gives a device a number in the stream.
func (s *Stream) add(w io.Writer, d device, hardware uint16) (err error) {
	face := pcapgo.NgInterface{Name: d.name, LinkType: linkType(hardware), SnapLength: uint32(s.socket.options.SnapLength)}
	if s.out == nil {
		s.out, err = pcapgo.NewNgWriterInterface(w, face, pcapgo.NgWriterOptions{
			SectionInfo: pcapgo.NgSectionInfo{Application: "labctl-agent", OS: "linux"},
		})
		s.numbers[d] = 0
		return err
	}
	s.numbers[d], err = s.out.AddInterface(face)
	return err
}

// linkType is what pcap calls the header that a device's packets begin with:
// Ethernet's, or none where they begin with IP.
func linkType(hardware uint16) layers.LinkType {
	if hardware == unix.ARPHRD_ETHER || hardware == unix.ARPHRD_LOOPBACK {
		return layers.LinkTypeEthernet
	}
	return layers.LinkTypeRaw
}

// Run writes packets until Stop is called, and then those that were captured
// before. It ends early with the first error of the writer.
func (s *Stream) Run() (api.CaptureCounts, error) {
	counts, err := s.socket.Run(s.write, s.flushed)
	if err == nil {
		err = s.flushed()
	}
	return counts, err
}

// Stop lets Run come to its end.
func (s *Stream) Stop() { s.socket.Stop() }

func (s *Stream) flushed() error {
	if err := s.out.Flush(); err != nil || s.flush == nil {
		return err
	}
	return s.flush()
}

func (s *Stream) write(p *Packet) error {
	d := device{p.Index, p.Device}
	number, known := s.numbers[d]
	if !known {
		if err := s.add(nil, d, p.Hardware); err != nil {
			return err
		}
		number = s.numbers[d]
	}
	return s.out.WritePacketWithOptions(gopacket.CaptureInfo{
		Timestamp: p.Time, CaptureLength: len(p.Data), Length: p.Length, InterfaceIndex: number,
	}, p.Data, pcapgo.NgPacketOptions{Flags: flags(p.Kind)})
}

// flags are the direction and the kind of reception.
func flags(kind uint8) *pcapgo.NgEpbFlags {
	f := &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}
	switch kind {
	case unix.PACKET_OUTGOING:
		f.Direction = pcapgo.NgEpbFlagDirectionOutbound
	case unix.PACKET_BROADCAST:
		f.Reception = pcapgo.NgEpbFlagReceptionTypeBroadcast
	case unix.PACKET_MULTICAST:
		f.Reception = pcapgo.NgEpbFlagReceptionTypeMulticast
	case unix.PACKET_OTHERHOST:
		f.Reception = pcapgo.NgEpbFlagReceptionTypePromiscuous
	default:
		f.Reception = pcapgo.NgEpbFlagReceptionTypeUnicast
	}
	return f
}
