//go:build linux

package probe

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"golang.org/x/sys/unix"
)

const (
	// maxSockets are open at once in one request of [Prober.Fetch].
	maxSockets = 64
	// maxAttempts bounds one request: all targets' counts together.
	maxAttempts = 100_000
	// maxAnswer is how much of an answer's body is looked at, in bytes.
	maxAnswer = 64 << 10
)

// The protocols of an [api.FetchTarget].
const (
	protocolHTTP = "http"
	protocolTCP  = "tcp"
	protocolDNS  = "dns"
)

// The classes of [api.FetchAttempt]'s Error.
const (
	classTimeout     = "timeout"
	classRefused     = "refused"
	classUnreachable = "unreachable"
	classResolve     = "resolve"
	classProtocol    = "protocol"
	classOther       = "other"
)

// failure is an error with its class.
type failure struct{ class, text string }

func (f *failure) Error() string { return f.text }

// Fetch works on all targets at once, within a bound of 64 open sockets, and
// returns when every request has been answered or has failed. Each request is a
// connection of its own, opened by the node or in the pod's network namespace,
// so that the datapath sees it as the pod's. A name is resolved once for each
// target; its Timeout covers that too, anew. What becomes of a request is in its
// attempt, also where the pod is not on this node; the error is an [*api.Error]
// for a request that makes no sense, or the context's.
func (p *Prober) Fetch(ctx context.Context, request api.FetchRequest) (api.FetchResponse, error) {
	total := 0
	var pods []string
	for _, t := range request.Targets {
		if err := checkFetch(t); err != nil {
			return api.FetchResponse{}, err
		}
		total += t.Count
		pods = append(pods, t.Pod)
	}
	if len(request.Targets) > maxTargets || total > maxAttempts {
		return api.FetchResponse{}, invalid("fetch: %d requests to %d targets: at most %d to %d go at once", total, len(request.Targets), maxAttempts, maxTargets)
	}
	rooms := p.enter(pods)
	defer rooms.leave()
	f := fetcher{resolver: p.resolver(), rooms: rooms, sockets: make(chan struct{}, maxSockets)}
	response := api.FetchResponse{Results: make([]api.FetchResult, len(request.Targets))}
	var all sync.WaitGroup
	for i, t := range request.Targets {
		all.Go(func() { response.Results[i] = f.target(ctx, t) })
	}
	all.Wait()
	return response, ctx.Err()
}

func checkFetch(t api.FetchTarget) error {
	to := t.Name
	if to == "" {
		to = t.To.String()
		if !isTarget(t.To) {
			return invalid("fetch %s: not an IPv4 address", to)
		}
	}
	switch {
	case t.Port == 0:
		return invalid("fetch %s: no port", to)
	case t.Protocol != protocolHTTP && t.Protocol != protocolTCP && t.Protocol != protocolDNS:
		return invalid("fetch %s: protocol %q: http, tcp or dns", to, t.Protocol)
	case t.Protocol == protocolDNS && t.Path == "":
		return invalid("fetch %s: dns without a name to ask for in path", to)
	case t.Count < 1 || t.Parallel < 0:
		return invalid("fetch %s: count %d, parallel %d: must be positive", to, t.Count, t.Parallel)
	case t.Timeout <= 0:
		return invalid("fetch %s: timeout %s: must be positive", to, t.Timeout)
	}
	return nil
}

// fetcher is one request.
type fetcher struct {
	resolver Resolver
	rooms    rooms
	sockets  chan struct{}
}

// target makes all requests to one target.
func (f *fetcher) target(ctx context.Context, t api.FetchTarget) api.FetchResult {
	result := api.FetchResult{Resolved: t.To.Unmap(), Attempts: make([]api.FetchAttempt, t.Count)}
	err := f.rooms.errs[t.Pod]
	room := f.rooms.byPod[t.Pod]
	if err == nil && t.Name != "" {
		result.Resolved = netip.Addr{}
		err = f.within(ctx, t.Timeout, func(ctx context.Context) error {
			addresses, err := room.resolve(ctx, f.resolver, t.Name)
			if err == nil {
				result.Resolved = addresses[0]
			}
			return err
		})
	}
	if err != nil {
		for i := range result.Attempts {
			fail(&result.Attempts[i], err)
		}
		return result
	}
	to := netip.AddrPortFrom(result.Resolved, t.Port)
	todo := make(chan int)
	var workers sync.WaitGroup
	for range min(max(t.Parallel, 1), t.Count, maxSockets) {
		workers.Go(func() {
			for i := range todo {
				err := f.within(ctx, t.Timeout+api.AnswerTime, func(ctx context.Context) error {
					result.Attempts[i] = f.attempt(ctx, room, t, to)
					return nil
				})
				if err != nil {
					fail(&result.Attempts[i], err)
				}
			}
		})
	}
	for i := range result.Attempts {
		todo <- i
	}
	close(todo)
	workers.Wait()
	return result
}

// within does one request when there is a socket for it, and returns what came
// of it. Where ctx ends before, do is not called and the error says so; one that
// panics has failed, and takes nobody else with it.
func (f *fetcher) within(ctx context.Context, timeout time.Duration, do func(context.Context) error) (err error) {
	select {
	case f.sockets <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("no socket was free: %w", ctx.Err())
	}
	defer func() { <-f.sockets }()
	defer func() {
		if p := recover(); p != nil {
			err = &failure{classOther, fmt.Sprintf("the request broke off: %v", p)}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return do(ctx)
}

func (f *fetcher) attempt(ctx context.Context, room *room, t api.FetchTarget, to netip.AddrPort) (a api.FetchAttempt) {
	start := time.Now()
	defer func() { a.Took = time.Since(start) }()
	kind := unix.SOCK_STREAM
	if t.Protocol == protocolDNS {
		kind = unix.SOCK_DGRAM
	}
	connecting, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	c, err := room.connect(connecting, kind, to)
	if err != nil {
		fail(&a, err)
		return a
	}
	defer c.close()
	a.Local, a.Peer = c.ends()
	switch t.Protocol {
	case protocolDNS:
		asked := f.resolver
		asked.Server = to
		a.Addresses, err = c.resolve(connecting, asked, t.Path)
	case protocolHTTP:
		if err = c.rebound(ctx); err == nil {
			err = answered(c.get(&a, t, to))
		}
	}
	if err != nil {
		fail(&a, err)
	}
	return a
}

// answered tells a server that does not answer from one that was not reached.
func answered(err error) error {
	if err != nil && classify(err) == classTimeout {
		return &failure{classTimeout, "connected, but no answer in time"}
	}
	return err
}

// get asks for a page, and takes from the answer who served it and whom it was
// served to.
func (c *connection) get(a *api.FetchAttempt, t api.FetchTarget, to netip.AddrPort) error {
	host := to.String()
	if t.Name != "" {
		host = t.Name
	}
	path := t.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return &failure{classProtocol, err.Error()}
	}
	request.Close = true
	if err := request.Write(c); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), request)
	if err != nil {
		return badAnswer(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return badAnswer(err)
	}
	a.Status = response.StatusCode
	a.RemoteAddr, _ = netip.ParseAddrPort(response.Header.Get("RemoteAddr"))
	readWhoami(a, body)
	return nil
}

// badAnswer is an answer that is not HTTP, where no errno says why.
func badAnswer(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return &failure{classProtocol, "not an HTTP answer: " + err.Error()}
}

// readWhoami reads the lines with which traefik/whoami begins its answer
// (https://github.com/traefik/whoami), up to the request that it repeats.
func readWhoami(a *api.FetchAttempt, body []byte) {
	hostname, ok := bytes.CutPrefix(body, []byte("Hostname: "))
	if !ok {
		return
	}
	lines := strings.Split(string(hostname), "\n")
	a.Hostname = strings.TrimSpace(lines[0])
	for _, line := range lines[1:] {
		if client, ok := strings.CutPrefix(line, "RemoteAddr: "); ok {
			a.RemoteAddr, _ = netip.ParseAddrPort(strings.TrimSpace(client))
			return
		}
		if strings.HasPrefix(line, "GET ") {
			return
		}
	}
}

// fail puts an error into an attempt, with its class.
func fail(a *api.FetchAttempt, err error) { a.Error, a.Message = classify(err), describe(err) }

func classify(err error) string {
	var known *failure
	switch {
	case errors.As(err, &known):
		return known.class
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return classTimeout
	case errors.Is(err, unix.ECONNREFUSED):
		return classRefused
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return classUnreachable
	}
	return classOther
}

// describe is an error in the kernel's words, without the file that it happened to.
func describe(err error) string {
	var errno unix.Errno
	var known *failure
	switch {
	case errors.As(err, &known):
		return known.text
	case errors.As(err, &errno):
		return errno.Error()
	case classify(err) == classTimeout:
		return "no answer in time"
	}
	return fmt.Sprint(err)
}
