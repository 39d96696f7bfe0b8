//go:build linux

package peer

import (
	"context"
	"net/netip"

	"github.com/native-routing/labctl/agent/listen"
)

// buffer is asked for what has come and was not read yet, in bytes: the lists
// of many nodes may come at once.
const buffer = 1 << 20

func listenUDP(ctx context.Context, at netip.AddrPort) (conn, error) {
	c, err := listen.UDP(ctx, at)
	if err != nil {
		return nil, err
	}
	_ = c.SetReadBuffer(buffer) // less will do, with repeats
	return c, nil
}
