package capture

import (
	"bufio"
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/native-routing/labctl/labctl/capture/tcpdump"
)

// Lines is a sink that writes packets as tcpdump writes those of the device
// "any", with the place in front of the device.
type Lines struct {
	Out io.Writer
	// Width is that of the longest place's name.
	Width int
	// Timeless leaves out the time.
	Timeless bool

	printer tcpdump.Printer
	buffer  *bufio.Writer
}

// Begin does nothing: a line names its device itself.
func (l *Lines) Begin(Device) error { return nil }

// Take writes a packet's lines.
func (l *Lines) Take(p *Packet) error {
	if l.buffer == nil {
		l.buffer = bufio.NewWriter(l.Out)
	}
	if !l.Timeless {
		_, _ = l.buffer.WriteString(p.Time.Local().Format("15:04:05.000000 ")) // its error comes again
	}
	_, err := fmt.Fprintf(l.buffer, "%-*s %-5s %-3s %s\n", l.Width, p.Device.Place, p.Device.Name, direction(p.Flags),
		l.printer.Packet(p.Device.Link, p.Data, p.Length))
	return err
}

// Flush writes what is held back.
func (l *Lines) Flush() error {
	if l.buffer == nil {
		return nil
	}
	return l.buffer.Flush()
}

// direction is tcpdump's word for how a packet passes a device.
func direction(f pcapgo.NgEpbFlags) string {
	switch {
	case f.Direction == pcapgo.NgEpbFlagDirectionOutbound:
		return "Out"
	case f.Reception == pcapgo.NgEpbFlagReceptionTypeBroadcast:
		return "B"
	case f.Reception == pcapgo.NgEpbFlagReceptionTypeMulticast:
		return "M"
	case f.Reception == pcapgo.NgEpbFlagReceptionTypePromiscuous:
		return "P"
	}
	return "In"
}

// File is a sink that writes pcapng: an interface for each device, by the name
// PLACE/DEVICE, and in each packet's flags its direction.
type File struct {
	Out io.Writer
	// Version is labctl's own, Filter the expression, Comment what the file is.
	Version, Filter, Comment string

	writer  *pcapgo.NgWriter
	numbers map[Device]int
	taken   map[Device]uint64
}

// Begin writes a device's interface.
func (f *File) Begin(d Device) error {
	_, err := f.number(d)
	return err
}

// number is that of a device's interface in the file.
func (f *File) number(d Device) (int, error) {
	if n, ok := f.numbers[d]; ok {
		return n, nil
	}
	face := pcapgo.NgInterface{
		Name: d.Place + "/" + d.Name, Description: d.Name + " of " + d.Place, Filter: f.Filter, OS: "linux",
		LinkType: d.Link, SnapLength: d.SnapLength,
	}
	if f.writer != nil {
		n, err := f.writer.AddInterface(face)
		f.numbers[d] = n
		return n, err
	}
	var err error
	f.writer, err = pcapgo.NewNgWriterInterface(f.Out, face, pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Application: "labctl " + f.Version, Comment: f.Comment},
	})
	f.numbers, f.taken = map[Device]int{d: 0}, map[Device]uint64{}
	return 0, err
}

// Take writes a packet.
func (f *File) Take(p *Packet) error {
	n, err := f.number(p.Device)
	if err != nil {
		return err
	}
	f.taken[p.Device]++
	flags := p.Flags
	options := pcapgo.NgPacketOptions{Flags: &flags}
	if p.Comment != "" {
		options.Comments = []string{p.Comment}
	}
	return f.writer.WritePacketWithOptions(gopacket.CaptureInfo{
		Timestamp: p.Time, CaptureLength: len(p.Data), Length: max(p.Length, len(p.Data)), InterfaceIndex: n,
	}, p.Data, options)
}

// Flush writes what is held back.
func (f *File) Flush() error {
	if f.writer == nil {
		return nil
	}
	return f.writer.Flush()
}

// End writes how many packets each interface has. The file is complete then.
func (f *File) End() error {
	for d, n := range f.numbers {
		err := f.writer.WriteInterfaceStats(n, pcapgo.NgInterfaceStatistics{PacketsReceived: f.taken[d], PacketsDropped: pcapgo.NgNoValue64})
		if err != nil {
			return err
		}
	}
	return f.Flush()
}
