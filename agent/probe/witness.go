//go:build linux

package probe

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/capture"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// defaultLifetime ends a witness whose caller has gone.
	defaultLifetime = 10 * time.Second
	maxLifetime     = 60 * time.Second
	maxWitnesses    = 64
	// maxSightings bounds what one witness keeps; what comes after counts as dropped.
	maxSightings = 65536
	// loopback is the index of lo in every namespace.
	loopback = 1
)

// Witness sees the tagged echoes of [Ping] pass the interfaces of its namespace,
// coming in and going out, those of other senders too, also within packets that
// carry them through a tunnel. It may run for several
// sessions at once, which do not touch each other. The zero value is ready.
//
// It does not look at lo, nor at frames that a bridge flooded to this node but
// that are meant for another, nor at fragments other than the first.
type Witness struct {
	mu       sync.Mutex
	sessions map[uint32]*observation
}

// Start begins to look out for the request's session: every packet that passes
// after Start has returned is seen. It ends by itself after Lifetime, 10 s
// where that is 0 and at most 60 s, and then forgets what it saw. The error is
// an [*api.Error] with CodeInvalid for a session that is being observed already
// and with CodeUnavailable when there are too many.
func (w *Witness) Start(_ context.Context, request api.WitnessRequest) (api.None, error) {
	lifetime := request.Lifetime
	if lifetime == 0 {
		lifetime = defaultLifetime
	}
	if lifetime < 0 || lifetime > maxLifetime {
		return api.None{}, invalid("witness: lifetime %s: at most %s", lifetime, maxLifetime)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sessions[request.Session] != nil {
		return api.None{}, invalid("witness: session %d is being observed already", request.Session)
	}
	if len(w.sessions) >= maxWitnesses {
		return api.None{}, &api.Error{Code: api.CodeUnavailable, Message: fmt.Sprintf("witness: %d sessions are being observed, which is the most: stop one", maxWitnesses)}
	}
	o, err := observe(request.Session)
	if err != nil {
		return api.None{}, fmt.Errorf("open a packet socket for session %d: %w", request.Session, err)
	}
	if w.sessions == nil {
		w.sessions = map[uint32]*observation{}
	}
	w.sessions[request.Session] = o
	o.lifetime = time.AfterFunc(lifetime, func() {
		if w.forget(request.Session, o) {
			o.end()
		}
	})
	return api.None{}, nil
}

// Stop ends a session and returns what it saw, also what was still queued.
// The error is an [*api.Error] with CodeInvalid where nobody observes the session.
func (w *Witness) Stop(_ context.Context, request api.WitnessRequest) (api.WitnessResponse, error) {
	w.mu.Lock()
	o := w.sessions[request.Session]
	w.mu.Unlock()
	if o == nil || !w.forget(request.Session, o) {
		return api.WitnessResponse{}, invalid("witness: session %d is not observed: it was not started, or stopped, or its lifetime is over", request.Session)
	}
	o.lifetime.Stop()
	return o.end(), nil
}

// forget takes an observation off the list. It is true once, for the one who ends it.
func (w *Witness) forget(session uint32, o *observation) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sessions[session] != o {
		return false
	}
	delete(w.sessions, session)
	return true
}

// observation is one session: a capture and the goroutine that takes it in.
type observation struct {
	socket   *capture.Socket
	session  uint32
	lifetime *time.Timer
	done     chan struct{}

	// The goroutine's, until done is closed.
	sightings []api.Sighting
	dropped   int
}

func observe(session uint32) (*observation, error) {
	filter, err := bpf.Assemble(echoFilter(session))
	if err != nil {
		return nil, fmt.Errorf("assemble the filter: %w", err)
	}
	socket, err := capture.Open(capture.Options{Filter: filter, SnapLength: longestEcho, Cooked: true})
	if err != nil {
		return nil, err
	}
	o := &observation{socket: socket, session: session, done: make(chan struct{})}
	go o.run()
	return o, nil
}

// carrierSize is what VXLAN puts between a carrying packet's IPv4 header and the
// one that it carries: the headers of UDP, VXLAN (RFC 7348) and Ethernet.
const carrierSize = 8 + 8 + 14

// longestEcho is where the tag of an echo ends at most, in bytes.
const longestEcho = maxIPv4Header + carrierSize + ipv4HeaderSize + icmpHeaderSize + tagSize

// echoFilter lets the tagged echoes of a session pass, in packets that begin at
// the IPv4 header, by themselves or carried through a tunnel, by whatever port.
func echoFilter(session uint32) []bpf.Instruction {
	const echo, reject = 21, 29
	const inner = carrierSize // from where the carrier's IPv4 header ends
	return []bpf.Instruction{
		0:  bpf.LoadExtension{Num: bpf.ExtProto},
		1:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: reject - 2},
		2:  bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		3:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: loopback, SkipTrue: reject - 4},
		4:  bpf.LoadExtension{Num: bpf.ExtType},
		5:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OTHERHOST, SkipTrue: reject - 6},
		6:  bpf.LoadAbsolute{Off: 6, Size: 2}, // flags and fragment offset
		7:  bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: reject - 8},
		8:  bpf.LoadMemShift{Off: 0},
		9:  bpf.LoadAbsolute{Off: 9, Size: 1},
		10: bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocolICMP, SkipTrue: echo - 11},
		11: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: reject - 12},
		12: bpf.LoadIndirect{Off: inner - 2, Size: 2},
		13: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: reject - 14},
		14: bpf.LoadIndirect{Off: inner, Size: 1},
		15: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x45, SkipTrue: reject - 16}, // our echoes have no options
		16: bpf.LoadIndirect{Off: inner + 9, Size: 1},
		17: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolICMP, SkipTrue: reject - 18},
		18: bpf.TXA{},
		19: bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: inner + ipv4HeaderSize},
		20: bpf.TAX{},
		21: bpf.LoadIndirect{Off: 0, Size: 1},
		22: bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmpEcho, SkipTrue: 1},
		23: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpEchoReply, SkipTrue: reject - 24},
		24: bpf.LoadIndirect{Off: icmpHeaderSize, Size: 4},
		25: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: api.TagMagic, SkipTrue: reject - 26},
		26: bpf.LoadIndirect{Off: icmpHeaderSize + 4, Size: 4},
		27: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: session, SkipTrue: reject - 28},
		28: bpf.RetConstant{Val: longestEcho},
		29: bpf.RetConstant{Val: 0},
	}
}

// carried is the packet in one that carries it through a tunnel, and the
// carrier's TTL; packet itself and 0 where that carries none.
func carried(packet []byte) (inner []byte, ttl int) {
	if len(packet) < ipv4HeaderSize || packet[9] != unix.IPPROTO_UDP {
		return packet, 0
	}
	start := int(packet[0]&0xf)*4 + carrierSize
	if len(packet) < start {
		return packet, 0
	}
	return packet[start:], int(packet[8])
}

// run takes in sightings until the socket is stopped.
func (o *observation) run() {
	defer close(o.done)
	counts, _ := o.socket.Run(o.note, nil)
	o.dropped += int(counts.Dropped)
}

// end stops the goroutine after it has emptied the queue.
func (o *observation) end() api.WitnessResponse {
	o.socket.Stop()
	<-o.done
	slices.SortStableFunc(o.sightings, func(a, b api.Sighting) int { return a.Timestamp.Compare(b.Timestamp) })
	return api.WitnessResponse{Sightings: o.sightings, Dropped: o.dropped}
}

func (o *observation) note(p *capture.Packet) error {
	packet, carrierTTL := carried(p.Data)
	e, ok := parseEcho(packet)
	if !ok || e.tag.session != o.session {
		return nil
	}
	if len(o.sightings) >= maxSightings {
		o.dropped++
		return nil
	}
	o.sightings = append(o.sightings, api.Sighting{
		Probe:      e.tag.probe,
		Sequence:   int(e.tag.sequence),
		Device:     p.Device,
		Outgoing:   p.Kind == unix.PACKET_OUTGOING,
		Reply:      e.reply,
		From:       e.from,
		To:         e.to,
		TTL:        e.ttl,
		CarrierTTL: carrierTTL,
		Timestamp:  p.Time,
	})
	return nil
}
