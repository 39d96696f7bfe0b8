package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/capture"
	"github.com/native-routing/labctl/labctl/capture/filter"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ladder"
)

// captureFlags are what capture is asked for.
type captureFlags struct {
	devices    []string
	count      int
	snapLength int
	file       string
	timeless   bool
}

// lineLength is what lines need of a packet, in bytes: its headers and a DNS message.
const lineLength = 2048

func newCapture(a *app) *cobra.Command {
	var flags captureFlags
	cmd := &cobra.Command{
		Use:   "capture [NODE|POD...] [--] [FILTER]",
		Short: "Packets as they pass, on one, several or all nodes at once",
		Long: `Shows packets of all devices of the nodes, or inside of pods, in tcpdump's words
and in the order of time. The first arguments that are names of nodes or pods say
where; what comes after them, or after --, is a filter in tcpdump's language, in
which nodes and pods are hosts by their names. Without a name it is all nodes.

A packet that the datapath puts into a pod passes no device of the node: capture
in the pod to see it arrive. On machines that labctl reaches by SSH the connection
itself (TCP port 22 of the uplink's address) is left out.

With -w it writes pcapng, with an interface for each device: labctl capture -w - |
wireshark -k -i -. Ctrl-C ends it.`,
		Example: "  labctl capture router icmp\n  labctl capture -i eth1 k8s-ctr k8s-w1 tcp port 80\n  labctl capture host curl-pod and not arp\n  labctl capture -w lost.pcapng",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.capture(cmd.Context(), flags, args, cmd.ArgsLenAtDash())
		},
		ValidArgsFunction: a.completePlaces,
	}
	f := cmd.Flags()
	f.StringSliceVarP(&flags.devices, "interface", "i", nil, "only these devices, also those that appear later")
	f.IntVarP(&flags.count, "count", "c", 0, "end after so many packets")
	f.IntVarP(&flags.snapLength, "snaplen", "s", 0, fmt.Sprintf("bytes to keep of each packet (%d for lines, %d with -w)", lineLength, api.MaxSnapLength))
	f.StringVarP(&flags.file, "write", "w", "", "write pcapng to a file; - is the standard output")
	f.BoolVarP(&flags.timeless, "no-time", "t", false, "no time in front of the lines")
	return cmd
}

func (a *app) capture(ctx context.Context, flags captureFlags, args []string, dash int) error {
	if flags.count < 0 || flags.snapLength < 0 || flags.snapLength > api.MaxSnapLength {
		return usageError{fmt.Errorf("capture: --count is not negative, and --snaplen at most %d", api.MaxSnapLength)}
	}
	l, err := a.current(ctx, a.story())
	if err != nil {
		return err
	}
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return err
	}
	places, words, err := places(l.Name, saved, args, dash)
	if err != nil {
		return err
	}
	// A reader that has gone is told by the next write, which ends the capture.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	request := lab.Capture{
		Places: places, Devices: flags.devices, SnapLength: flags.snapLength, Filter: strings.Join(words, " "), Count: flags.count,
		Say: func(text string) { fmt.Fprintln(a.Err, "labctl: "+text) },
	}
	end, err := a.captureTo(&request, flags)
	if err != nil {
		return err
	}
	result, err := l.Capture(ctx, request)
	if ended := end(); err == nil {
		err = ended
	}
	return a.captured(result, noPlaceAtFirst(l.Name, saved, err))
}

// captureTo prepares where packets go, and returns what is to be done in the end.
func (a *app) captureTo(request *lab.Capture, flags captureFlags) (end func() error, err error) {
	tell := func(places []string) {
		if !a.quiet {
			fmt.Fprintf(a.Err, "capturing on %s%s (Ctrl-C ends it)\n", strings.Join(places, ", "), colon(request.Filter))
		}
	}
	if flags.file == "" {
		if request.SnapLength == 0 {
			request.SnapLength = lineLength
		}
		lines := &capture.Lines{Out: a.Out, Timeless: flags.timeless}
		request.Sink, request.Ready = lines, func(places []string) {
			for _, p := range places {
				lines.Width = max(lines.Width, len(p))
			}
			tell(places)
		}
		return lines.Flush, nil
	}
	if request.SnapLength == 0 {
		request.SnapLength = api.MaxSnapLength
	}
	out, closed := a.Out, func() error { return nil }
	if flags.file == "-" {
		if terminal(a.Out) {
			return nil, usageError{errors.New("capture: pcapng is not for a terminal (labctl capture -w - | wireshark -k -i -)")}
		}
	} else {
		file, err := os.Create(flags.file)
		if err != nil {
			return nil, err
		}
		out, closed = io.Writer(file), file.Close
	}
	file := &capture.File{Out: out, Version: a.Version, Filter: request.Filter}
	request.Sink, request.Ready = file, tell
	return func() error { return errors.Join(file.End(), closed()) }, nil
}

func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// captured tells how a capture went, as tcpdump does.
func (a *app) captured(result capture.Result, err error) error {
	var wrong *filter.Error
	switch {
	case errors.As(err, &wrong):
		return usageError{err}
	case err != nil && !errors.Is(err, syscall.EPIPE):
		return err
	}
	if !a.quiet || result.Dropped > 0 {
		fmt.Fprintf(a.Err, "%d packets captured\n%d packets received by filter\n%d packets dropped by kernel\n",
			result.Captured, result.Received, result.Dropped)
	}
	if len(result.Lost) > 0 {
		return fmt.Errorf("not all was captured: %s", strings.Join(lost(result), ", "))
	}
	return nil
}

func lost(result capture.Result) []string {
	var names []string
	for name := range result.Lost {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// places splits the arguments into names and the words of a filter.
func places(labName string, saved lab.Saved, args []string, dash int) (found []ladder.Place, words []string, err error) {
	for i, arg := range args {
		place, ok := saved.Place(arg)
		switch {
		case i == dash, dash < 0 && !ok:
			return found, args[i:], nil
		case !ok:
			return nil, nil, usageError{noPlace(labName, arg, saved, true)}
		case !slices.Contains(found, place):
			found = append(found, place)
		}
	}
	return found, nil, nil
}

// noPlaceAtFirst says of a filter whose first word makes no sense what the nodes
// are called: it may have been meant as one.
func noPlaceAtFirst(labName string, saved lab.Saved, err error) error {
	var wrong *filter.Error
	if errors.As(err, &wrong) && wrong.Offset == 0 && wrong.Length > 0 {
		word := wrong.Expression[:wrong.Length]
		return fmt.Errorf("%w\n%w", err, noPlace(labName, word, saved, true))
	}
	return err
}
