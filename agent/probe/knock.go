//go:build linux

package probe

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"golang.org/x/sys/unix"
)

// Knock works on all targets at once, within a bound of 64 open sockets. What
// becomes of each is in its result, also where the pod is not on this node; the
// error is an [*api.Error] for a request that makes no sense, or the context's.
func (p *Prober) Knock(ctx context.Context, request api.KnockRequest) (api.KnockResponse, error) {
	var pods []string
	for _, t := range request.Targets {
		if err := checkKnock(t); err != nil {
			return api.KnockResponse{}, err
		}
		pods = append(pods, t.Pod)
	}
	if len(request.Targets) > maxTargets {
		return api.KnockResponse{}, invalid("knock: %d targets: at most %d go in one request", len(request.Targets), maxTargets)
	}
	rooms := p.enter(pods)
	defer rooms.leave()
	response := api.KnockResponse{Results: make([]api.KnockResult, len(request.Targets))}
	places := make(chan struct{}, maxSockets)
	var all sync.WaitGroup
	for i, t := range request.Targets {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			if err := rooms.errs[t.Pod]; err != nil {
				response.Results[i] = api.KnockResult{Outcome: api.KnockFailed, Failure: localError(err)}
				return
			}
			response.Results[i] = rooms.byPod[t.Pod].knock(ctx, t)
		})
	}
	all.Wait()
	return response, ctx.Err()
}

func checkKnock(t api.KnockTarget) error {
	switch {
	case t.Protocol != api.KnockTCP && t.Protocol != api.KnockUDP:
		return invalid("knock %s: protocol %q: tcp or udp", t.To, t.Protocol)
	case !isTarget(t.To):
		return invalid("knock %s: not an IPv4 address", t.To)
	case t.From.IsValid() && !isTarget(t.From):
		return invalid("knock %s: source %s: not an IPv4 address", t.To, t.From)
	case t.Port == 0:
		return invalid("knock %s: no port", t.To)
	case t.Timeout <= 0:
		return invalid("knock %s: timeout %s: must be positive", t.To, t.Timeout)
	}
	return nil
}

// knock does one target.
func (r *room) knock(ctx context.Context, t api.KnockTarget) api.KnockResult {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	kind := unix.SOCK_STREAM
	if t.Protocol == api.KnockUDP {
		kind = unix.SOCK_DGRAM
	}
	c, err := r.begin(ctx, kind, netip.AddrPortFrom(t.To, t.Port), func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1); err != nil || !t.From.IsValid() {
			return os.NewSyscallError("set IP_RECVERR", err)
		}
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Addr: t.From.Unmap().As4()}))
	})
	if err != nil {
		return refused(err, nil)
	}
	defer c.close()
	var result api.KnockResult
	local, _ := c.ends()
	if err = c.established(); err == nil && kind == unix.SOCK_DGRAM {
		err = c.exchange(tag{session: t.Session, probe: t.Probe, sequence: 1})
	}
	if err != nil {
		result = refused(err, c.queuedError())
	} else {
		result.Outcome = api.KnockAnswered
		_, result.Peer = c.ends()
	}
	result.Local, result.Took = local, time.Since(began)
	return result
}

// exchange sends a tagged datagram and waits for whatever comes back.
func (c *connection) exchange(t tag) error {
	var b [maxIPv4Header]byte
	t.put(b[:])
	if _, err := c.Write(b[:tagSize]); err != nil {
		return err
	}
	_, err := c.Read(b[:])
	return err
}

// queuedError is the ICMP error that the socket was told; nil where there was none.
func (c *connection) queuedError() *api.ProbeError {
	var packet [maxIPv4Header]byte
	var oob [controlSpace]byte
	_, n, _, _, err := unix.Recvmsg(c.fd, packet[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return nil
	}
	told := parseControl(oob[:n])
	if !told.failed {
		return nil
	}
	return told.failure.explain()
}

// refused is the result of an error; told is what an ICMP error said, where
// there was one.
func refused(err error, told *api.ProbeError) api.KnockResult {
	switch class := classify(err); {
	case class == classTimeout && told == nil:
		return api.KnockResult{Outcome: api.KnockSilent}
	case class == classRefused:
		return api.KnockResult{Outcome: api.KnockRefused, Failure: told}
	case told != nil:
		return api.KnockResult{Outcome: api.KnockFailed, Failure: told}
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return api.KnockResult{Outcome: api.KnockFailed, Failure: localFailure(errno, 0)}
	}
	return api.KnockResult{Outcome: api.KnockFailed, Failure: localError(err)}
}
