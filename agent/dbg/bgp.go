//go:build linux

package dbg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/api"
)

func (p *program) bgpPeers() *cobra.Command {
	return &cobra.Command{
		Use: "peers", Short: "The sessions with the neighbours", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := p.askBGP(cmd.Context())
			if err != nil {
				return err
			}
			return p.show(status.Peers, func(w io.Writer) { writePeers(w, status, time.Now()) })
		},
	}
}

func (p *program) bgpRoutes() *cobra.Command {
	return &cobra.Command{
		Use: "routes", Short: "What the speaker knows, the best path of each prefix marked >", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := p.askBGP(cmd.Context())
			if err != nil {
				return err
			}
			return p.show(status.Routes, func(w io.Writer) { writeRoutes(w, status, time.Now()) })
		},
	}
}

func (p *program) askBGP(ctx context.Context) (*api.BGPStatus, error) {
	status, err := p.askStatus(ctx)
	if err == nil && status.BGP == nil {
		err = errors.New("this node speaks no BGP (labctl stage bgp lets it)")
	}
	return status.BGP, err
}

// writePeers has the columns of cilium-dbg bgp peers.
func writePeers(w io.Writer, status *api.BGPStatus, now time.Time) {
	t := tabwriter.NewWriter(w, 5, 0, 3, ' ', 0)
	fmt.Fprintln(t, "Local AS\tPeer AS\tPeer Address\tSession\tUptime\tFamily\tReceived\tAdvertised")
	for _, peer := range status.Peers {
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\t%s\t%d\t%d\n", status.ASN, peer.ASN, peer.Address, peer.State,
			age(peer.Since, now), "ipv4/unicast", peer.Received, peer.Advertised)
	}
	t.Flush()
}

// writeRoutes has the columns of cilium-dbg bgp routes, and which path is best.
func writeRoutes(w io.Writer, status *api.BGPStatus, now time.Time) {
	t := tabwriter.NewWriter(w, 5, 0, 3, ' ', 0)
	fmt.Fprintln(t, "Best\tPrefix\tNextHop\tAS path\tAge")
	for _, r := range status.Routes {
		best, hop := "", "0.0.0.0"
		if r.Best {
			best = ">"
		}
		if r.NextHop.IsValid() {
			hop = r.NextHop.String()
		}
		path := make([]string, len(r.Path))
		for i, asn := range r.Path {
			path[i] = strconv.FormatUint(uint64(asn), 10)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", best, r.Prefix, hop, strings.Join(path, " "), age(r.Since, now))
	}
	t.Flush()
}

func age(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return now.Sub(since).Truncate(time.Second).String()
}
