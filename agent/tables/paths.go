//go:build linux

package tables

import (
	"errors"
	"fmt"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

// Paths asks the FIB where packets would go, and by which route. The FIB's own
// refusals are decisions; the error is one of the socket.
func (r *Reader) Paths(queries []api.PathQuery) ([]api.PathDecision, error) {
	found, err := rtnl.List(r.Handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names, indexes := make(map[int]string, len(found)), make(map[string]int, len(found))
	for _, l := range found {
		names[l.Attrs().Index], indexes[l.Attrs().Name] = l.Attrs().Name, l.Attrs().Index
	}
	asked := make([]rtnl.Query, 0, 2*len(queries))
	for _, q := range queries {
		one := rtnl.Query{
			To: q.To, From: q.From, Mark: q.Mark, Protocol: q.Protocol, SourcePort: q.SourcePort, DestinationPort: q.DestinationPort,
		}
		for _, d := range []struct {
			name  string
			index *int
		}{{q.In, &one.In}, {q.Out, &one.Out}} {
			if *d.index = indexes[d.name]; d.name != "" && *d.index == 0 {
				return nil, fmt.Errorf("there is no interface %s", d.name)
			}
		}
		matched := one
		matched.Match = true
		asked = append(asked, one, matched)
	}
	answers, err := r.Conn.Lookup(asked)
	if err != nil {
		return nil, fmt.Errorf("look up routes: %w", err)
	}
	decisions := make([]api.PathDecision, len(queries))
	for i := range queries {
		answer, matched := answers[2*i], answers[2*i+1]
		decisions[i] = api.PathDecision{Decision: decision(answer, names)}
		var refusal *rtnl.Error
		if errors.As(answer.Err, &refusal) {
			decisions[i].Errno = int(refusal.Errno)
		}
		if answer.Err == nil && matched.Err == nil {
			decisions[i].To, decisions[i].Table = matched.To, matched.Table
		}
	}
	return decisions, nil
}
