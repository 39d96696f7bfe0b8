package lab

import (
	"context"

	"github.com/native-routing/labctl/agent/api"
)

// Knock opens a connection or sends a datagram to each target.
func (p prober) Knock(ctx context.Context, node string, targets []api.KnockTarget) ([]api.KnockResult, error) {
	r, err := probe(ctx, p.agents, node, api.Knock, api.KnockRequest{Targets: targets})
	return answers(node, r.Results, len(targets), err)
}

// Capture begins a capture on a node, which ends with ctx.
func (p prober) Capture(ctx context.Context, node string, request api.CaptureRequest) (*api.CaptureStream, error) {
	c, err := p.agents.connect(ctx, node)
	if err != nil {
		return nil, err
	}
	stream, err := api.OpenCapture(ctx, c.client, request)
	return stream, said(ctx, node, err)
}
