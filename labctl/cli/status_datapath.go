package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lab"
)

// writeDatapath says in a few lines how pods and services are served, nodes that
// agree on one line together.
func writeDatapath(w io.Writer, nodes []lab.NodeStatus) {
	lines := said{}
	for _, n := range nodes {
		if n.Agent == nil || n.Agent.Datapath == nil {
			continue
		}
		d := n.Agent.Datapath
		sockets := "sockets balanced at connect"
		if !d.SocketLB {
			sockets = "sockets not balanced"
		}
		lines.add(n.Name, "datapath", fmt.Sprintf("%s on %s, %s", d.Attach, strings.Join(d.Devices, " "), sockets))
		for _, missing := range d.Missing {
			lines.add(n.Name, "note", missing)
		}
		for _, o := range n.Agent.Objects {
			if o.Kind == "service" && o.Condition == api.InPlace {
				lines.add(n.Name, "service", o.Name+": "+o.Reason)
			}
		}
	}
	if len(lines) > 0 {
		fmt.Fprintln(w)
	}
	for _, l := range lines {
		fmt.Fprintf(w, "%-9s %s (%s)\n", l.subject, l.text, strings.Join(l.nodes, ", "))
	}
}

// said are lines, each with the nodes that it is true of.
type said []struct {
	subject, text string
	nodes         []string
}

func (s *said) add(node, subject, text string) {
	for i := range *s {
		if l := &(*s)[i]; l.subject == subject && l.text == text {
			if !slices.Contains(l.nodes, node) {
				l.nodes = append(l.nodes, node)
			}
			return
		}
	}
	*s = append(*s, struct {
		subject, text string
		nodes         []string
	}{subject, text, []string{node}})
}
