//go:build linux

// Command bench measures labctl against floors that it makes in the same run:
// the least that the kernel, or a known tool, needs for the same work. A round
// measures the floor, then labctl, so that both meet the same machine. It prints
// one table of medians and ratios. A goal that is missed is said, and is no
// failure: the exit code is 0 unless something could not be measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/labctl/ui"
)

// The exit codes.
const (
	exitOK      = 0
	exitTrouble = 1
	exitUsage   = 2
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == trafficCommand {
		os.Exit(trafficMain(os.Args[2:], os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == vmsCommand {
		os.Exit(vmsMain(os.Args[2:], os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

var errInterrupted = errors.New("interrupted")

// measure is one part of the table.
type measure struct {
	name string
	run  func(context.Context, *rig) ([]Row, error)
}

func measures() []measure {
	return []measure{
		{"life", measureLife},
		{"agent", measureAgent},
		{"verify", measureVerify},
		{"routes", measureRoutes},
		{"workloads", measureWorkloads},
		{"datapath", measureDatapath},
		{"traffic", measureTraffic},
		{"services", measureServices},
		{"scale", measureScale},
		{"vms", measureVMs},
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	output := ui.NewFormat(ui.Table, ui.JSON)
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rounds := flags.Int("n", 10, "rounds of each measurement; long ones make fewer")
	only := flags.String("only", "", "parts to measure, with commas between: "+strings.Join(names(), ", ")+" (default all)")
	flags.Var(output, "o", output.Usage())
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if *rounds < 1 || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "bench: want -n 1 or more, and no arguments")
		return exitUsage
	}
	chosen, err := choose(*only)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
	report, err := measureAll(ctx, chosen, *rounds, ui.Auto(stderr, false))
	if len(report.Rows) > 0 {
		err = errors.Join(ui.Write(stdout, output.Format, report, report.write), err)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitTrouble
	}
	return exitOK
}

func names() []string {
	var all []string
	for _, m := range measures() {
		all = append(all, m.name)
	}
	return all
}

// choose returns the measures that a list names; all for an empty one.
func choose(list string) ([]measure, error) {
	if list == "" {
		return measures(), nil
	}
	var chosen []measure
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(measures(), func(m measure) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %s: there are %s", name, strings.Join(names(), ", "))
		}
		chosen = append(chosen, measures()[i])
	}
	return chosen, nil
}

// measureAll leaves nothing behind, whatever becomes of it. A part that fails is
// in the report, and the others go on.
func measureAll(ctx context.Context, chosen []measure, rounds int, story *ui.Progress) (report Report, err error) {
	defer story.Close()
	rig, err := newRig(rounds)
	if err != nil {
		return report, err
	}
	defer func() {
		if left := rig.close(); left != nil {
			err = errors.Join(err, fmt.Errorf("tidy up: %w", left))
		}
	}()
	report.Machine = lookAtMachine()
	for _, m := range chosen {
		report.Machine.before(m.name)
		step := story.Start(m.name)
		rows, failure := m.run(ctx, rig)
		report.Rows = append(report.Rows, rows...)
		if ctx.Err() != nil {
			step.Fail(errInterrupted) // whatever it looked like from within
			return report, errInterrupted
		}
		if failure == nil {
			step.Done(ui.Plural(len(rows), "row"))
			continue
		}
		step.Fail(failure)
		first, _, _ := strings.Cut(failure.Error(), "\n")
		report.Rows = append(report.Rows, absent(m.name, first))
		err = errors.Join(err, fmt.Errorf("measure %s: %w", m.name, failure))
		if left := rig.clear(); left != nil {
			return report, errors.Join(err, left)
		}
	}
	report.Machine.finish()
	return report, err
}
