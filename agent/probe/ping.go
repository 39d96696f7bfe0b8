//go:build linux

package probe

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"golang.org/x/net/bpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The bounds of one request.
const (
	maxTargets  = 10_000
	maxEchoes   = 100_000 // of all targets together
	maxEchoSize = maxDatagram - ipv4HeaderSize - icmpHeaderSize
)

// Ping sends the echoes of all targets at once, over one raw socket, and
// returns when each is answered, refused or timed out. What becomes of one
// target is in its result, also where this node's own kernel refuses it; the
// error is an [*api.Error] for a request that makes no sense, the context's, or
// that of a socket which could not be opened.
//
// Sent counts every echo that was tried, also those that the kernel refused, as
// ping(8) counts. A reply that takes longer than Timeout does not count. An echo
// for which the kernel has no room is tried again for Timeout and then given up,
// so that no call takes longer than Count × Interval + 2 × Timeout of its
// longest target.
//
// With DontFragment echoes leave with DF and may be as large as the device's
// MTU, whatever path MTU the kernel has learnt before (IP_PMTUDISC_PROBE): the
// answer is the path's and not the cache's. Without it they leave without DF
// and are fragmented wherever it takes that (IP_PMTUDISC_DONT).
func Ping(ctx context.Context, request api.PingRequest) (api.PingResponse, error) {
	for _, t := range request.Targets {
		if t.Pod != "" {
			return api.PingResponse{}, invalid("ping %s: pod %s is not on this node", t.To, t.Pod)
		}
	}
	return pingFrom(ctx, nil, request)
}

// Ping is as [Ping], and lets each target's pod send. Every pod has a socket of
// its own, made in its namespace. A pod that is not on this node is a local
// failure of its targets, of which none counts as sent.
func (p *Prober) Ping(ctx context.Context, request api.PingRequest) (api.PingResponse, error) {
	if _, err := newPinger(request); err != nil {
		return api.PingResponse{}, err
	}
	of := map[string][]int{}
	var pods []string
	for i, t := range request.Targets {
		of[t.Pod] = append(of[t.Pod], i)
		pods = append(pods, t.Pod)
	}
	rooms := p.enter(pods)
	defer rooms.leave()
	response := api.PingResponse{Results: make([]api.PingResult, len(request.Targets))}
	for pod, err := range rooms.errs {
		for _, i := range of[pod] {
			response.Results[i].Failure = localError(err)
		}
	}
	var all errgroup.Group
	for pod, room := range rooms.byPod {
		part := api.PingRequest{}
		for _, i := range of[pod] {
			part.Targets = append(part.Targets, request.Targets[i])
		}
		if len(part.Targets) == 0 {
			continue
		}
		all.Go(func() error {
			answer, err := pingFrom(ctx, room, part)
			for k, r := range answer.Results {
				response.Results[of[pod][k]] = r
			}
			return err
		})
	}
	return response, all.Wait()
}

// pingFrom pings from one namespace.
func pingFrom(ctx context.Context, room *room, request api.PingRequest) (api.PingResponse, error) {
	p, err := newPinger(request)
	if err != nil {
		return api.PingResponse{}, err
	}
	if err := room.do(p.open); err != nil {
		return api.PingResponse{}, fmt.Errorf("open a raw ICMP socket: %w", err)
	}
	defer p.socket.close()
	err = p.socket.run(ctx, &p.agenda, p.do, func() bool { return p.waiting == 0 })
	return p.response(), err
}

// pinger is one request. The identifier of a target's echoes is identifier plus
// the target's index; the sequence counts the target's echoes from 1.
type pinger struct {
	socket     *socket
	agenda     agenda
	targets    []pingTarget
	identifier uint16
	nonce      uint16
	packet     []byte
	// discover is the socket's IP_MTU_DISCOVER now.
	discover int
	// waiting counts the echoes of which the end is not known.
	waiting int
}

type pingTarget struct {
	api.PingTarget
	control  []byte
	echoes   []sentEcho
	sent     int
	replyTTL int
	failure  *api.ProbeError
}

// ownSource is the source address that the node itself was to send from, which
// can be looked at when the kernel refuses; a pod's cannot.
func (t *pingTarget) ownSource() netip.Addr {
	if t.Pod != "" {
		return netip.Addr{}
	}
	return t.From
}

type sentEcho struct {
	// due is when it was to be sent first, at when it was.
	due   time.Time
	at    time.Time
	rtt   time.Duration
	state echoState
}

type echoState uint8

const (
	echoUnsent echoState = iota
	echoWaiting
	echoAnswered
	echoLost
)

func newPinger(request api.PingRequest) (*pinger, error) {
	if len(request.Targets) > maxTargets {
		return nil, invalid("ping: %d targets: at most %d go in one request", len(request.Targets), maxTargets)
	}
	p := &pinger{
		targets:    make([]pingTarget, len(request.Targets)),
		identifier: uint16(rand.Uint32()),
		nonce:      uint16(rand.Uint32()),
		discover:   -1,
	}
	largest, now := 0, time.Now()
	for i, t := range request.Targets {
		if err := checkPing(t); err != nil {
			return nil, err
		}
		t.To, t.From = t.To.Unmap(), t.From.Unmap()
		p.targets[i] = pingTarget{PingTarget: t, control: sendControl(t.From, t.TTL)}
		p.agenda.file(event{at: now, action: actionSend, target: i})
		p.waiting += t.Count
		largest = max(largest, t.Size)
	}
	if p.waiting > maxEchoes {
		return nil, invalid("ping: %d echoes: at most %d go in one request", p.waiting, maxEchoes)
	}
	for i := range p.targets {
		p.targets[i].echoes = make([]sentEcho, p.targets[i].Count)
	}
	p.packet = make([]byte, icmpHeaderSize+largest)
	return p, nil
}

func checkPing(t api.PingTarget) error {
	switch {
	case !isTarget(t.To):
		return invalid("ping %s: not an IPv4 address", t.To)
	case t.From.IsValid() && !isTarget(t.From):
		return invalid("ping %s from %s: not an IPv4 address", t.To, t.From)
	case t.Count < 1 || t.Count > 0xffff:
		return invalid("ping %s: count %d: from 1 to 65535", t.To, t.Count)
	case t.Interval < 0 || t.Timeout <= 0:
		return invalid("ping %s: interval %s and timeout %s: must be positive", t.To, t.Interval, t.Timeout)
	case t.Size < tagSize || t.Size > maxEchoSize:
		return invalid("ping %s: size %d: from %d to %d", t.To, t.Size, tagSize, maxEchoSize)
	case t.TTL < 0 || t.TTL > 255:
		return invalid("ping %s: TTL %d: from 1 to 255, or 0 for the kernel's own", t.To, t.TTL)
	}
	return nil
}

func isTarget(a netip.Addr) bool { return a.Unmap().Is4() && !a.IsUnspecified() }

func invalid(format string, args ...any) error {
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf(format, args...)}
}

func (p *pinger) open() error {
	s, err := newSocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, maxIPv4Header+len(p.packet))
	if err != nil {
		return err
	}
	s.to, p.socket = p, s
	err = s.attach(replyFilter(p.identifier, len(p.targets)))
	if err == nil {
		err = s.tellErrors()
	}
	if err != nil {
		s.close()
	}
	return err
}

// replyFilter lets the echo replies with count identifiers from first on pass.
// The errors of the error queue do not go through it.
func replyFilter(first uint16, count int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpEchoReply, SkipTrue: 5},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpSub, Val: uint32(first)},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffff},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(count), SkipTrue: 1},
		bpf.RetConstant{Val: 0xffff_ffff},
		bpf.RetConstant{Val: 0},
	}
}

func (p *pinger) do(e event) {
	t := &p.targets[e.target]
	if e.action == actionSend {
		p.send(e)
		return
	}
	p.lose(&t.echoes[e.step])
}

// lose ends the wait for an echo.
func (p *pinger) lose(e *sentEcho) {
	if e.state == echoWaiting {
		e.state = echoLost
		p.waiting--
	}
}

func (p *pinger) send(now event) {
	target, step := now.target, now.step
	t := &p.targets[target]
	sequence := uint16(step + 1)
	mark := tag{t.Session, t.Probe, sequence, p.nonce}
	packet := putEcho(p.packet, p.identifier+uint16(target), sequence, mark, t.Size)
	e := &t.echoes[step]
	e.at, e.state = time.Now(), echoWaiting
	if e.due.IsZero() {
		e.due = now.at
	}
	err := p.fragment(t.DontFragment)
	if err == nil {
		err = p.socket.send(packet, t.control, netip.AddrPortFrom(t.To, 0))
	}
	if err == errBusy && e.at.Sub(e.due) < t.Timeout {
		e.state = echoUnsent
		p.agenda.file(event{at: e.at.Add(sendRetry), action: actionSend, target: target, step: step})
		return
	}
	t.sent++
	if err != nil {
		t.failure = sendFailure(err, t.ownSource())
	}
	if err == nil || dropped(err) {
		p.agenda.file(event{at: e.at.Add(t.Timeout), action: actionExpire, target: target, step: step})
	} else {
		p.lose(e)
	}
	if step+1 == t.Count {
		return
	}
	from := e.at
	if err == errBusy {
		from = e.due // the wait was all echoes': those behind this one do not begin it anew
	}
	p.agenda.file(event{at: from.Add(t.Interval), action: actionSend, target: target, step: step + 1})
}

func (p *pinger) fragment(never bool) error {
	mode := unix.IP_PMTUDISC_DONT
	if never {
		mode = unix.IP_PMTUDISC_PROBE
	}
	if mode == p.discover {
		return nil
	}
	p.discover = mode
	return p.socket.set(option{"IP_MTU_DISCOVER", unix.SOL_IP, unix.IP_MTU_DISCOVER, mode})
}

// find returns the echo that an identifier and a sequence stand for; nil where
// there is none, or where it was not sent yet.
func (p *pinger) find(identifier, sequence uint16) (*pingTarget, *sentEcho) {
	target, step := int(identifier-p.identifier), int(sequence)-1
	if target >= len(p.targets) || step < 0 || step >= p.targets[target].Count {
		return nil, nil
	}
	t := &p.targets[target]
	if t.echoes[step].state == echoUnsent {
		return nil, nil
	}
	return t, &t.echoes[step]
}

// owns says whether a tag is the one of the target's echo, and not that of
// another process that happened on the same identifier.
func (p *pinger) owns(t *pingTarget, sequence uint16, got tag) bool {
	return got == tag{t.Session, t.Probe, sequence, p.nonce}
}

func (p *pinger) received(m *message) {
	got, ok := parseEcho(m.bytes)
	if !ok || !got.reply || checksum(got.message) != 0 {
		return
	}
	t, e := p.find(got.identifier, got.sequence)
	if t == nil || !p.owns(t, got.sequence, got.tag) || e.state != echoWaiting {
		return
	}
	rtt := elapsed(e.at, m.stamp)
	if rtt > t.Timeout {
		return // its expiry is due
	}
	e.rtt, e.state = rtt, echoAnswered
	t.replyTTL = got.ttl
	p.waiting--
}

func (p *pinger) refused(m *message) {
	q, ok := parseQuote(m.bytes)
	if !ok {
		return
	}
	t, e := p.find(q.identifier, q.sequence)
	if t == nil || m.address.Addr() != t.To || (q.tagged && !p.owns(t, q.sequence, q.tag)) || e.state == echoAnswered {
		return
	}
	t.failure = m.failure.explain()
	if m.byOwnKernel() {
		t.failure = m.explainOwn()
	}
	p.lose(e)
}

func (p *pinger) response() api.PingResponse {
	response := api.PingResponse{Results: make([]api.PingResult, len(p.targets))}
	for i := range p.targets {
		t := &p.targets[i]
		result := api.PingResult{Sent: t.sent, ReplyTTL: t.replyTTL, Failure: t.failure}
		for _, e := range t.echoes {
			if e.state == echoAnswered {
				result.Received++
				result.RTTs = append(result.RTTs, e.rtt)
			}
		}
		response.Results[i] = result
	}
	return response
}
