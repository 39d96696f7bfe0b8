package check

import (
	"context"

	"github.com/native-routing/labctl/agent/api"
)

// Prober looks into the nodes of a running lab and sends packets from them.
// Its methods are safe for concurrent use. An error means that nothing can be
// told of the node; it names the node's trouble and the cure.
type Prober interface {
	// Tables are the kernel's own.
	Tables(ctx context.Context, node string) (api.Tables, error)
	// Lookup has one decision for each query, in order.
	Lookup(ctx context.Context, node string, queries []api.Lookup) ([]api.Decision, error)
	// Ping and Trace have one result for each target, in order.
	Ping(ctx context.Context, node string, targets []api.PingTarget) ([]api.PingResult, error)
	Trace(ctx context.Context, node string, targets []api.TraceTarget) ([]api.TraceResult, error)
	// StartWitness looks out for tagged echoes on every interface of the node;
	// StopWitness ends it and returns what passed.
	StartWitness(ctx context.Context, node string, session uint32) error
	StopWitness(ctx context.Context, node string, session uint32) (api.WitnessResponse, error)
}
