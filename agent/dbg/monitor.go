//go:build linux

package dbg

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/bpf"
)

// monitor is what one run of the command shows.
type monitor struct {
	types             []string
	level             string
	from, to, related endpointFlag
	verbose, inHex    bool
	numeric           bool
	json              bool
	endpoints         *endpointNumbers
	packets           *packets
	out               io.Writer
}

func (p *program) monitor() *cobra.Command {
	m := &monitor{packets: newPackets(), out: p.stdout}
	cmd := &cobra.Command{
		Use: "monitor", Short: "Packets that the datapath drops and forwards, as it happens",
		Long: `Packets that the datapath drops and forwards, as it happens
By default drops, and of each connection the first packet each way and the last
ones. --from, --to and --related-to take numbers of endpoint list; given twice,
either fits. With -o json it is one object a line. The datapath does not tell
from which line of its source a drop is, nor on which CPU an event was. Ctrl-C
ends it.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := m.check(); err != nil {
				return err
			}
			m.json = p.output == "json"
			m.endpoints = &endpointNumbers{read: p.endpointNumbers}
			return p.watch(cmd.Context(), m)
		},
	}
	f := cmd.Flags()
	f.StringSliceVarP(&m.types, "type", "t", nil, "only events of a type: drop, trace")
	f.StringVar(&m.level, "level", "", "how much is told: drops, flows (the default) or all packets")
	f.Var(&m.from, "from", "only packets from an endpoint")
	f.Var(&m.to, "to", "only packets to an endpoint")
	f.Var(&m.related, "related-to", "only packets from or to an endpoint")
	f.BoolVarP(&m.verbose, "verbose", "v", false, "every layer of every packet")
	f.BoolVar(&m.inHex, "hex", false, "with --verbose: packets in hexadecimal")
	f.BoolVarP(&m.numeric, "numeric", "n", false, "all identities as numbers")
	return cmd
}

func (m *monitor) check() error {
	for _, kind := range m.types {
		if kind != "drop" && kind != "trace" {
			return usageError{fmt.Errorf("unknown type %q (there is drop, trace)", kind)}
		}
	}
	if !slices.Contains([]string{"", "drops", "flows", "all"}, m.level) {
		return usageError{fmt.Errorf("unknown level %q (there is drops, flows, all)", m.level)}
	}
	return nil
}

// wantedLevel is no more than is shown, for it costs the datapath time.
func (m *monitor) wantedLevel() string {
	if len(m.types) > 0 && !slices.Contains(m.types, "trace") {
		return "drops"
	}
	return cmp.Or(m.level, "flows")
}

func (p *program) watch(ctx context.Context, m *monitor) error {
	body, err := p.get(ctx, api.MonitorPath, url.Values{"level": {m.wantedLevel()}})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer body.Close()
	if !m.json {
		fmt.Fprintf(p.stdout, "Listening for events on %d CPUs with %dx%d of shared memory\nPress Ctrl-C to quit\n",
			runtime.NumCPU(), p.eventPages(), os.Getpagesize())
	}
	events := json.NewDecoder(body)
	for {
		var event api.MonitorEvent
		err := events.Decode(&event)
		switch {
		case ctx.Err() != nil:
			if !m.json {
				fmt.Fprint(p.stderr, "\nReceived an interrupt, disconnecting from monitor...\n\n")
			}
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the agent has ended the connection (it stopped, or was restarted)")
		case err != nil:
			return fmt.Errorf("read the agent's events: %w", err)
		}
		if err := m.tell(event); err != nil {
			return err
		}
	}
}

// defaultEventPages are those of the datapath's ring buffer where it cannot be asked.
func defaultEventPages() int { return int(bpf.DefaultSizes().Events) / os.Getpagesize() }

func (p *program) eventPages() int {
	from, err := p.open()
	if err != nil {
		return defaultEventPages()
	}
	sizes, err := from.ReadSizes()
	if err != nil {
		return defaultEventPages()
	}
	for _, size := range sizes {
		if size.Name == inspect.EventsMap {
			return int(size.Size) / os.Getpagesize()
		}
	}
	return defaultEventPages()
}

// endpointFlag are numbers of endpoints, from a flag that may be given often.
type endpointFlag []uint32

func (*endpointFlag) Type() string { return "ID" }

func (f *endpointFlag) String() string { return "" }

// Set adds numbers, with commas between them.
func (f *endpointFlag) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		number, err := strconv.ParseUint(word, 10, 16)
		if err != nil || number == 0 {
			return fmt.Errorf("%q is no number of an endpoint (they are in endpoint list)", word)
		}
		*f = append(*f, uint32(number))
	}
	return nil
}

const invalidSource = int(bpf.DatapathReasonREASON_INVALID_SOURCE)

// shownEvent is an event in JSON.
type shownEvent struct {
	api.MonitorEvent
	SourceEndpoint      uint32 `json:"sourceEndpoint"`
	DestinationEndpoint uint32 `json:"destinationEndpoint"`
	Summary             string `json:"summary,omitempty"`
}

func (m *monitor) tell(event api.MonitorEvent) error {
	if event.Type == "lost" {
		return m.tellLost(event)
	}
	if len(m.types) > 0 && !slices.Contains(m.types, event.Type) {
		return nil
	}
	shown := shownEvent{MonitorEvent: event}
	shown.SourceEndpoint, shown.DestinationEndpoint = m.ends(event)
	if !m.wants(shown) {
		return nil
	}
	shown.Summary = m.packets.summary(event.Packet)
	if m.json {
		return json.NewEncoder(m.out).Encode(shown)
	}
	text := m.line(shown)
	if m.verbose {
		text = m.long(shown)
	}
	_, err := io.WriteString(m.out, text)
	return err
}

func (m *monitor) tellLost(event api.MonitorEvent) error {
	if m.json {
		return json.NewEncoder(m.out).Encode(shownEvent{MonitorEvent: event})
	}
	_, err := fmt.Fprintf(m.out, "Lost %d events\n", event.Lost)
	return err
}

// ends are the endpoints that a packet comes from and goes to: the one by the
// source before translation, the other by the destination that it leaves with.
// The event has one of the two, and where the source is false the true sender.
func (m *monitor) ends(event api.MonitorEvent) (source, destination uint32) {
	from, to := m.packets.addresses(event.Packet)
	if event.OrigSource.IsValid() && !event.OrigSource.IsUnspecified() {
		from = event.OrigSource
	}
	source, destination = m.endpoints.of(from), m.endpoints.of(to)
	switch {
	case event.Endpoint == 0:
	case event.Reason == invalidSource:
		source = event.Endpoint
	case source == 0 && destination == 0 && event.Point == "to-endpoint":
		destination = event.Endpoint
	case source == 0 && destination == 0:
		source = event.Endpoint
	}
	return source, destination
}

func (m *monitor) wants(e shownEvent) bool {
	has := func(wanted endpointFlag, numbers ...uint32) bool {
		return slices.ContainsFunc(numbers, func(n uint32) bool { return slices.Contains(wanted, n) })
	}
	if len(m.from)+len(m.to)+len(m.related) == 0 {
		return true
	}
	return has(m.from, e.SourceEndpoint) || has(m.to, e.DestinationEndpoint) ||
		has(m.related, e.SourceEndpoint, e.DestinationEndpoint)
}

func (m *monitor) identities(e shownEvent) string {
	text := func(identity uint32) string {
		if name := inspect.ReservedName(identity); name != "" && !m.numeric {
			return name
		}
		return strconv.FormatUint(uint64(identity), 10)
	}
	return fmt.Sprintf(", identity %s->%s", text(e.SourceIdentity), text(e.DestinationIdentity))
}

// pointText is how a trace begins.
func pointText(e shownEvent) string {
	switch e.Point {
	case "to-endpoint":
		return fmt.Sprintf("-> endpoint %d", e.DestinationEndpoint)
	case "from-endpoint":
		return fmt.Sprintf("<- endpoint %d", e.SourceEndpoint)
	case "to-host":
		return "-> host from"
	}
	if name, ok := strings.CutPrefix(e.Point, "to-"); ok {
		return "-> " + name
	}
	if name, ok := strings.CutPrefix(e.Point, "from-"); ok {
		return "<- " + name
	}
	return "unknown trace"
}

// original is the source before it was translated; 0.0.0.0 where it was not.
func (m *monitor) original(e shownEvent) string {
	if from, _ := m.packets.addresses(e.Packet); e.OrigSource.IsValid() && e.OrigSource != from {
		return e.OrigSource.String()
	}
	return "0.0.0.0"
}

func device(e shownEvent) string { return cmp.Or(e.Device, strconv.Itoa(e.Index)) }

func (m *monitor) line(e shownEvent) string {
	if e.Type == "drop" {
		return fmt.Sprintf("xx drop (%s) flow %#x to endpoint %d, ifindex %d, file %s:0, %s: %s\n",
			e.ReasonText, e.Hash, e.DestinationEndpoint, e.Index, noFile, m.identities(e), e.Summary)
	}
	return fmt.Sprintf("%s flow %#x %s state %s ifindex %s orig-ip %s: %s\n",
		pointText(e), e.Hash, m.identities(e), e.State, device(e), m.original(e), e.Summary)
}

func (m *monitor) long(e shownEvent) string {
	var b strings.Builder
	fmt.Fprintln(&b, strings.Repeat("-", 78))
	if e.Type == "drop" {
		fmt.Fprintf(&b, "MARK %#x FROM %d DROP: %d bytes, reason %s%s", e.Hash, e.SourceEndpoint, e.Length, e.ReasonText, m.identities(e))
	} else {
		fmt.Fprintf(&b, "MARK %#x FROM %d %s: %d bytes (%d captured), state %s, interface %s%s, orig-ip %s",
			e.Hash, e.SourceEndpoint, e.Point, e.Length, len(e.Packet), e.State, device(e), m.identities(e), m.original(e))
	}
	if e.DestinationEndpoint != 0 {
		fmt.Fprintf(&b, ", to endpoint %d", e.DestinationEndpoint)
	}
	fmt.Fprintln(&b)
	b.WriteString(m.packets.dissection(e.Packet, m.inHex))
	return b.String()
}

// endpointNumbers are the pods' numbers by their addresses, read again where
// one is not known, but not more than once a second.
type endpointNumbers struct {
	read  func() (map[netip.Addr]uint32, error)
	known map[netip.Addr]uint32
	last  time.Time
}

func (n *endpointNumbers) of(addr netip.Addr) uint32 {
	if number, ok := n.known[addr]; ok || !addr.IsValid() {
		return number
	}
	if time.Since(n.last) < time.Second {
		return 0
	}
	n.last = time.Now()
	if known, err := n.read(); err == nil {
		n.known = known
	}
	return n.known[addr]
}

func (p *program) endpointNumbers() (map[netip.Addr]uint32, error) {
	dump, err := p.read(bpf.Endpoints)
	if err != nil {
		return nil, err
	}
	numbers := make(map[netip.Addr]uint32, len(dump.Endpoints))
	for _, e := range dump.EndpointList() {
		numbers[e.Address] = e.ID
	}
	return numbers, nil
}
