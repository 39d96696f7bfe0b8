//go:build linux

package pod

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

const (
	// Kubernetes' own, for what is 0 in a check.
	defaultPeriod   = 10 * time.Second
	defaultTimeout  = time.Second
	defaultFailures = 3
	// eagerFirst is between the first looks at a container that never was ready,
	// doubling up to the check's period. The kubelet waits a whole period, so a
	// server that takes 50 ms to start is not ready for 10 s.
	eagerFirst = 50 * time.Millisecond
	endPoll    = 20 * time.Millisecond
)

func withDefaults(c api.Check) api.Check {
	if c.Period <= 0 {
		c.Period = defaultPeriod
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Failures <= 0 {
		c.Failures = defaultFailures
	}
	c.Successes = max(1, c.Successes)
	return c
}

// tally makes a verdict of a check's results: it changes when enough of them in
// a row say the contrary.
type tally struct {
	failures, successes int // how many make a verdict
	passing             bool
	row                 int // results in a row against the verdict
}

// note takes a result and says whether the verdict changed.
func (t *tally) note(ok bool) bool {
	if ok == t.passing {
		t.row = 0
		return false
	}
	t.row++
	limit := t.failures
	if ok {
		limit = t.successes
	}
	if t.row < limit {
		return false
	}
	t.passing, t.row = ok, 0
	return true
}

// prober looks at containers from the node, or from within them for commands.
type prober struct {
	namespace  netns.NsHandle
	executable string
	dataDir    string
}

// subject is a container that is looked at.
type subject struct {
	key       string
	address   netip.Addr
	container string
	pid       int
	started   time.Time
}

// follow looks at the container by the check's rules, from passing on, until
// ctx ends. It tells each change of the verdict.
func (p prober) follow(ctx context.Context, c api.Check, s subject, passing, readiness bool, told func(passing bool)) {
	c = withDefaults(c)
	t := tally{failures: c.Failures, successes: c.Successes, passing: passing}
	eager := readiness && !passing && c.Successes == 1
	between := eagerFirst
	if !eager {
		between = c.Period
	}
	for wait := time.Until(s.started.Add(c.InitialDelay)); ; wait = between {
		if !sleep(ctx, wait) {
			return
		}
		ok := p.passes(ctx, c, s)
		if ctx.Err() != nil {
			return
		}
		if t.note(ok) {
			told(t.passing)
		}
		eager = eager && !t.passing
		between = min(2*between, c.Period)
		if !eager {
			between = c.Period
		}
	}
}

// sleep says whether ctx still holds.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (p prober) passes(ctx context.Context, c api.Check, s subject) bool {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	switch {
	case c.HTTP != nil:
		return p.get(ctx, netip.AddrPortFrom(s.address, uint16(c.HTTP.Port)), c.HTTP.Path) == nil
	case c.TCP != 0:
		conn, err := p.dial(ctx, "tcp4", netip.AddrPortFrom(s.address, uint16(c.TCP)).String())
		if err == nil {
			conn.Close()
		}
		return err == nil
	default:
		return p.run(ctx, s, c.Exec) == nil
	}
}

func (p prober) get(ctx context.Context, at netip.AddrPort, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+"/"+strings.TrimPrefix(path, "/"), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/labctl")
	transport := &http.Transport{DialContext: p.dial, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("answered %s", response.Status)
	}
	return nil
}

func (p prober) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	if !p.namespace.IsOpen() {
		return d.DialContext(ctx, network, address)
	}
	err = onThread(func() error {
		if err := netns.Set(p.namespace); err != nil {
			return err
		}
		// With a numeric address the dialer makes its socket on this very thread.
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// run runs a command in the container, as `agent exec` does.
func (p prober) run(ctx context.Context, s subject, argv []string) error {
	args := append([]string{"exec", "--data", p.dataDir, "-c", s.container, s.key, "--"}, argv...)
	cmd := exec.CommandContext(ctx, p.executable, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd.Run()
}

// endContainer ends a container's program with SIGTERM, and after the grace with
// SIGKILL. Its sandbox does the rest.
func endContainer(ctx context.Context, s subject, uid string, grace time.Duration) {
	lives := func() bool {
		marks := marksOf(s.pid)
		return marks[markPod] == uid && marks[markContainer] == s.container
	}
	if !lives() {
		return
	}
	_ = unix.Kill(s.pid, unix.SIGTERM)
	for end := time.Now().Add(grace); time.Now().Before(end); {
		if !sleep(ctx, endPoll) || !lives() {
			return
		}
	}
	_ = unix.Kill(s.pid, unix.SIGKILL)
}
