//go:build linux

package dbg

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/bpf"
)

func (p *program) natList() *cobra.Command {
	return p.list(`Sources that were translated: OUT on the way out, IN for the replies
Sorted by protocol and client. NeedsCT=1 is a connection of the node itself,
whose port is kept from being given to another.`,
		func(context.Context) error {
			dump, err := p.read(bpf.NATs)
			if err != nil {
				return err
			}
			entries := dump.NATList()
			return p.show(entries, func(w io.Writer) {
				for _, nat := range entries {
					translate, needed := "XLATE_SRC", 0
					if nat.Direction == inspect.In {
						translate = "XLATE_DST"
					}
					if nat.Host {
						needed = 1
					}
					fmt.Fprintf(w, "%s %s %s -> %s %s %s Created=%dsec ago NeedsCT=%d\n", nat.Protocol, nat.Direction,
						nat.Source, nat.Destination, translate, nat.Translated, int64(nat.Age.Seconds()), needed)
				}
				fmt.Fprintln(w)
			})
		})
}

func (p *program) ctList() *cobra.Command {
	var remaining bool
	cmd := &cobra.Command{
		Use: "list [global]", Aliases: []string{"ls"}, Short: "Connections that the datapath follows",
		Long: `Connections that the datapath follows
It has one entry for a connection, which is shown as Cilium's two or three: SVC
for the choice of a backend, OUT at the client and IN at the server, as far as
they are on this node. Sorted by protocol, client and server. Times are seconds
since boot. Packets and Bytes are not counted. Of UDP and ICMP replies are not
told from requests: LastRxReport is 0.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1 && args[0] != "global") {
				return usageError{fmt.Errorf("there is only one table: %s global", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			dump, err := p.read(bpf.Flows)
			if err != nil {
				return err
			}
			entries := dump.ConnectionList()
			if entries == nil {
				entries = []inspect.Connection{}
			}
			return p.show(entries, func(w io.Writer) {
				for _, c := range entries {
					connectionLine(w, c, remaining)
				}
			})
		},
	}
	cmd.Flags().BoolVarP(&remaining, "time-diff", "d", false, "say how many seconds are left")
	return cmd
}

func connectionLine(w io.Writer, c inspect.Connection, remaining bool) {
	left := ""
	if remaining {
		left = fmt.Sprintf(" (remaining: %d sec(s))", c.Remaining)
	}
	words := ""
	if len(c.Words) > 0 {
		words = strings.Join(c.Words, " ") + " "
	}
	fmt.Fprintf(w, "%s %s %s -> %s expires=%d%s Packets=0 Bytes=0 RxFlagsSeen=%#02x LastRxReport=%d TxFlagsSeen=%#02x LastTxReport=%d Flags=%#04x [ %s] RevNAT=%d SourceSecurityID=%d BackendID=%d \n",
		c.Protocol, c.Direction, c.Source, c.Destination, c.Expires, left,
		c.RxFlags, c.LastRx, c.TxFlags, c.LastTx, c.Flags, words, c.RevNAT, c.SourceIdentity, c.BackendID)
}

func (p *program) ipcacheList() *cobra.Command {
	return p.list("Prefixes with their identity and node\nSorted by prefix.",
		func(context.Context) error {
			dump, err := p.read(bpf.IPCache)
			if err != nil {
				return err
			}
			addresses := dump.AddressList()
			if len(addresses) == 0 {
				return p.empty()
			}
			return p.show(addresses, func(w io.Writer) {
				pairs(w, "IP PREFIX/ADDRESS", "IDENTITY", addressRows(addresses))
			})
		})
}

func addressRows(addresses []inspect.Address) []pair {
	var rows []pair
	for _, a := range addresses {
		flags := strings.Join(a.Flags, ",")
		if flags == "" {
			flags = "<none>"
		}
		rows = append(rows, pair{a.Prefix.String(), fmt.Sprintf("identity=%d encryptkey=0 tunnelendpoint=%s flags=%s",
			a.Identity, a.Node, flags)})
	}
	return rows
}

func (p *program) bpfMetricsList() *cobra.Command {
	return p.list("Packets and bytes, forwarded and dropped, by reason and direction\nSorted by reason and direction. LINE and FILE are not kept.",
		func(context.Context) error {
			dump, err := p.read(bpf.Metrics)
			if err != nil {
				return err
			}
			metrics := dump.MetricList()
			if len(metrics) == 0 {
				return p.empty()
			}
			return p.show(metrics, func(w io.Writer) {
				table(w, func(w io.Writer) {
					fmt.Fprint(w, "REASON\tDIRECTION\tPACKETS\tBYTES\tLINE\tFILE\n")
					for _, m := range metrics {
						fmt.Fprintf(w, "%s\t%s\t%d\t%d\t0\t%s\n", m.Reason, m.Direction, m.Packets, m.Bytes, noFile)
					}
				})
			})
		})
}

// noFile is how Cilium writes the source file of number 0.
const noFile = "unknown(0)"
