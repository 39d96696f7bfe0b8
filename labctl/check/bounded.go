package check

import (
	"context"
	"errors"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// lookLimit is how long a node may take to read what it holds. What it may take
// to send follows from what it is asked to.
const lookLimit = 5 * time.Second

// errHung is what becomes of a call that a node does not answer.
var errHung = errors.New("the agent hangs: it takes calls and does not answer them (labctl status shows it, labctl up starts it anew)")

// bounded gives up on an agent that hangs, so that the rest can still be told.
type bounded struct {
	ServiceProber
	look time.Duration
	// patient is how long to wait for what takes so long at most on a namespace.
	patient func(time.Duration) time.Duration
}

// within returns what call answers, or the context's error once the limit is
// over, also where call takes no notice of its context.
func within[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errHung)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		value, err := call(ctx)
		answered <- answer{value, err}
	}()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

func (b bounded) Tables(ctx context.Context, node string) (api.Tables, error) {
	return within(ctx, b.look, func(ctx context.Context) (api.Tables, error) { return b.ServiceProber.Tables(ctx, node) })
}

func (b bounded) Lookup(ctx context.Context, node string, queries []api.Lookup) ([]api.Decision, error) {
	return within(ctx, b.look, func(ctx context.Context) ([]api.Decision, error) {
		return b.ServiceProber.Lookup(ctx, node, queries)
	})
}

func (b bounded) Pods(ctx context.Context, node string) (api.PodList, error) {
	return within(ctx, b.look, func(ctx context.Context) (api.PodList, error) { return b.ServiceProber.Pods(ctx, node) })
}

func (b bounded) Services(ctx context.Context, node string) (api.ServiceTable, error) {
	return within(ctx, b.look, func(ctx context.Context) (api.ServiceTable, error) { return b.ServiceProber.Services(ctx, node) })
}

func (b bounded) Drops(ctx context.Context, node string) (map[string]uint64, error) {
	return within(ctx, b.look, func(ctx context.Context) (map[string]uint64, error) { return b.ServiceProber.Drops(ctx, node) })
}

func (b bounded) Ping(ctx context.Context, node string, targets []api.PingTarget) ([]api.PingResult, error) {
	return within(ctx, b.patient(pingLimit(targets)), func(ctx context.Context) ([]api.PingResult, error) {
		return b.ServiceProber.Ping(ctx, node, targets)
	})
}

func (b bounded) Fetch(ctx context.Context, node string, targets []api.FetchTarget) ([]api.FetchResult, error) {
	return within(ctx, b.patient(fetchLimit(targets)), func(ctx context.Context) ([]api.FetchResult, error) {
		return b.ServiceProber.Fetch(ctx, node, targets)
	})
}

func (b bounded) Status(ctx context.Context, node string) (api.Status, error) {
	return within(ctx, b.look, func(ctx context.Context) (api.Status, error) { return b.ServiceProber.Status(ctx, node) })
}

func (b bounded) StartWitness(ctx context.Context, node string, session uint32) error {
	_, err := within(ctx, b.look, func(ctx context.Context) (api.None, error) {
		return api.None{}, b.ServiceProber.StartWitness(ctx, node, session)
	})
	return err
}

func (b bounded) StopWitness(ctx context.Context, node string, session uint32) (api.WitnessResponse, error) {
	return within(ctx, b.look, func(ctx context.Context) (api.WitnessResponse, error) {
		return b.ServiceProber.StopWitness(ctx, node, session)
	})
}
