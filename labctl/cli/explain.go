package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/explain"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/labctl/ui"
)

func newExplain(a *app) *cobra.Command {
	var request lab.ExplainRequest
	var noProbe bool
	var markdown string
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "explain FROM TO",
		Short: "Follow one packet hop by hop, out and back: where it is lost, why, and what mends it",
		Long: `Follows one packet from a node or a pod to a node, a pod, a service or an address,
and its reply back. Every node's own kernel is asked which route it takes: what
is shown is what its tables say, the longest match and what it wins over, what is
translated, and where the packet leaves. Then the packet is sent, and captures on
all nodes at once show where it came by; where that is not what was predicted,
the report begins with it.

FROM and TO are names as kubectl has them (k8s-ctr, curl-pod, svc/webpod,
deploy/webpod, webpod.default.svc.cluster.local) or addresses; TO may end in
:PORT. Of a service, the way to each of its backends is followed.

It exits with 3 where the packet or its reply is lost.`,
		Example: "  labctl explain curl-pod webpod\n  labctl explain k8s-ctr 192.168.20.100\n  labctl explain curl-pod deploy/webpod --size 1500",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.From, request.To = args[0], args[1]
			request.Probe = !noProbe
			protocols := protocols()
			if p := request.Protocol; p != "" && !slices.Contains(protocols, p) {
				return usageError{fmt.Errorf("--proto %s: there are %s", p, strings.Join(protocols, ", "))}
			}
			return a.explain(cmd.Context(), request, output.Format, markdown)
		},
		ValidArgsFunction: a.completePlaces,
	}
	f := cmd.Flags()
	f.StringVar(&request.Protocol, "proto", "", "icmp, tcp or udp; tcp for a service or a port, icmp otherwise")
	f.Uint16Var(&request.Port, "port", 0, "the destination's port")
	f.Uint16Var(&request.SourcePort, "source-port", 0, "the sender's port: to follow a connection that is there already")
	f.IntVar(&request.Size, "size", 0, "the IP packet's size in bytes, which must not be fragmented then")
	f.DurationVar(&request.Timeout, "timeout", time.Second, "how long an answer is waited for")
	f.BoolVar(&noProbe, "no-probe", false, "predict alone, and send nothing")
	f.StringVar(&markdown, "markdown", "", "write it up in this file, with the packets beside it")
	addOutput(cmd, output)
	_ = cmd.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions(protocols(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func protocols() []string { return []string{explain.ICMP, explain.TCP, explain.UDP} }

func (a *app) explain(ctx context.Context, request lab.ExplainRequest, format ui.Format, markdown string) error {
	l, err := a.current(ctx, a.story())
	if err != nil {
		return err
	}
	if request.Size != 0 && request.Size < smallestSize {
		return usageError{fmt.Errorf("--size %d: a packet has at least %d bytes", request.Size, smallestSize)}
	}
	request.Printer = a.say
	report, err := l.Explain(ctx, request)
	switch {
	case errors.Is(err, explain.ErrNoName), errors.Is(err, explain.ErrNoPort):
		return usageError{err}
	case err != nil:
		return err
	}
	if markdown != "" {
		if err := a.handIn(markdown, &report, request.Printer); err != nil {
			return err
		}
	}
	text := func(w io.Writer) error {
		_, err := io.WriteString(w, report.Text(request.Printer))
		return err
	}
	if err := ui.Write(a.Out, format, report, text); err != nil {
		return err
	}
	if !report.Arrives() {
		return errFailed
	}
	return nil
}

// handIn writes the report as Markdown, and what was captured beside it.
func (a *app) handIn(file string, report *explain.Report, p lang.Printer) error {
	capture := ""
	if seen, ok := report.Seen(); ok {
		var packets bytes.Buffer
		if err := seen.Write(&packets, a.Version); err != nil {
			return fmt.Errorf("write the packets: %w", err)
		}
		capture = strings.TrimSuffix(file, filepath.Ext(file)) + ".pcapng"
		if err := os.WriteFile(capture, packets.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", capture, err)
		}
		capture = filepath.Base(capture)
	}
	if err := os.WriteFile(file, []byte(report.Markdown(p, capture)), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// smallestSize holds the headers of IPv4 and of an echo, and the tag of a probe.
const smallestSize = 44
