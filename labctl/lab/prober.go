package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// witnessLifetime ends a witness whose labctl was killed; an agent allows no more.
const witnessLifetime = time.Minute

// prober is the verifier's eyes and hands: the agents of a lab.
type prober struct{ agents *agents }

func (p prober) Tables(ctx context.Context, node string) (api.Tables, error) {
	return call(ctx, p.agents, node, api.GetTables, api.None{})
}

func (p prober) Lookup(ctx context.Context, node string, queries []api.Lookup) ([]api.Decision, error) {
	r, err := call(ctx, p.agents, node, api.LookupRoutes, api.LookupRequest{Queries: queries})
	return answers(node, r.Decisions, len(queries), err)
}

func (p prober) Ping(ctx context.Context, node string, targets []api.PingTarget) ([]api.PingResult, error) {
	r, err := probe(ctx, p.agents, node, api.Ping, api.PingRequest{Targets: targets})
	return answers(node, r.Results, len(targets), err)
}

func (p prober) Trace(ctx context.Context, node string, targets []api.TraceTarget) ([]api.TraceResult, error) {
	r, err := probe(ctx, p.agents, node, api.Trace, api.TraceRequest{Targets: targets})
	return answers(node, r.Results, len(targets), err)
}

func (p prober) StartWitness(ctx context.Context, node string, session uint32) error {
	_, err := call(ctx, p.agents, node, api.StartWitness, api.WitnessRequest{Session: session, Lifetime: witnessLifetime})
	return err
}

func (p prober) StopWitness(ctx context.Context, node string, session uint32) (api.WitnessResponse, error) {
	return call(ctx, p.agents, node, api.StopWitness, api.WitnessRequest{Session: session})
}

func (p prober) Services(ctx context.Context, node string) (api.ServiceTable, error) {
	return call(ctx, p.agents, node, api.GetServices, api.None{})
}

func (p prober) Pods(ctx context.Context, node string) (api.PodList, error) {
	return call(ctx, p.agents, node, api.GetPods, api.None{})
}

func (p prober) Fetch(ctx context.Context, node string, targets []api.FetchTarget) ([]api.FetchResult, error) {
	r, err := probe(ctx, p.agents, node, api.Fetch, api.FetchRequest{Targets: targets})
	return answers(node, r.Results, len(targets), err)
}

func (p prober) Drops(ctx context.Context, node string) (map[string]uint64, error) {
	r, err := call(ctx, p.agents, node, api.GetDrops, api.None{})
	return r.Packets, err
}

func (p prober) Status(ctx context.Context, node string) (api.Status, error) {
	return call(ctx, p.agents, node, api.GetStatus, api.None{})
}

// answers refuses a list that does not have one answer for each question.
func answers[T any](node string, got []T, asked int, err error) ([]T, error) {
	if err == nil && len(got) != asked {
		return nil, fmt.Errorf("agent of %s: %d answers to %d questions", node, len(got), asked)
	}
	return got, err
}
