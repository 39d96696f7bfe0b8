package cli

import (
	"fmt"
	"io"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
)

// writeBGP prints the sessions of all nodes that speak BGP, each from both ends.
func writeBGP(w io.Writer, nodes []lab.NodeStatus) error {
	g := ui.NewGrid("BGP", "AS", "NEIGHBOUR", "AS", "SESSION", "RECEIVED", "ADVERTISED")
	for _, n := range nodes {
		if n.Agent == nil || n.Agent.BGP == nil {
			continue
		}
		for _, p := range n.Agent.BGP.Peers {
			g.Row(n.Name, fmt.Sprint(n.Agent.BGP.ASN), p.Name+" "+p.Address.String(), fmt.Sprint(p.ASN), p.State,
				fmt.Sprint(p.Received), fmt.Sprint(p.Advertised))
		}
	}
	if g.Len() == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return g.Write(w)
}
