//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/daemon"
)

// statusTimeout bounds the whole of `agent status`.
const statusTimeout = 10 * time.Second

// status asks the agent of a run directory, and prints what it answers.
func status(args []string, stdout, stderr io.Writer) error {
	set := flags("agent status", stderr)
	dir := set.String("run", "", "the agent's run directory")
	output := set.String("o", "table", "table or json")
	if err := parse(set, args); err != nil {
		return err
	}
	if *dir == "" || (*output != "table" && *output != "json") {
		return errUsage
	}
	client := api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(*dir, daemon.SocketName))
	})
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	answer, err := api.GetStatus.Call(ctx, client, api.None{})
	if err != nil {
		return err
	}
	if *output == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(answer)
	}
	return table(stdout, answer)
}

func table(w io.Writer, s api.Status) error {
	settled := "settled"
	if !s.Settled {
		settled = "not settled"
	}
	if s.Generation == "" {
		settled = "no state yet"
	}
	fmt.Fprintf(w, "node %s, generation %s, %s, agent %s (pid %d)\n", s.Node, s.Generation, settled, s.Version.Version, s.Version.PID)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "OWNER\tKIND\tNAME\tCONDITION\tMENDED\tREASON")
	for _, o := range s.Objects {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n", o.Owner, o.Kind, o.Name, o.Condition, o.Mended, o.Reason)
	}
	return t.Flush()
}
