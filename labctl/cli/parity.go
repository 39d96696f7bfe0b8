package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/check"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/parity"
	"github.com/native-routing/labctl/labctl/ui"
)

func newParity(a *app) *cobra.Command {
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "parity LEFT RIGHT",
		Short: "Hold two verifications against each other, such as namespaces and VMs",
		Long: `LEFT and RIGHT are each a lab that is up, which is verified now, or a file that
labctl verify -o json wrote: on another machine, or of the same lab on another provider.

It lists the checks that are not the same on both sides, and why, where that is
known. It exits with 3 where there is a difference that nothing explains.`,
		Example: "  labctl verify -o json > spaces.json    # on namespaces\n  labctl parity spaces.json native-routing   # against the VMs that are up now",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			left, err := a.side(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			right, err := a.side(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			report := parity.Compare(left, right)
			if err := ui.Write(a.Out, output.Format, report, func(w io.Writer) error { return a.writeParity(w, report) }); err != nil {
				return err
			}
			if report.Unexplained() > 0 {
				return errFailed
			}
			return nil
		},
	}
	addOutput(cmd, output)
	return cmd
}

// side reads a report, or makes one.
func (a *app) side(ctx context.Context, name string) (parity.Side, error) {
	side := parity.Side{Name: name}
	data, err := os.ReadFile(name)
	if err == nil {
		if err := json.Unmarshal(data, &side.Report); err != nil || len(side.Report.Results) == 0 {
			return side, usageError{fmt.Errorf("%s: it is no report (labctl verify -o json writes one)", name)}
		}
		return side, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return side, err
	}
	story := a.story()
	defer story.Close()
	l, err := a.openCurrent(ctx, name, story)
	if err != nil {
		return side, err
	}
	step := story.Start("verify " + name)
	side.Report, err = l.Verify(ctx, check.Selection{})
	if errors.Is(err, lab.ErrNoLab) {
		err = usageError{fmt.Errorf("%s: there is no such file, and no such lab is up", name)}
	}
	step.Fail(err)
	return side, err
}

func (a *app) writeParity(w io.Writer, r parity.Report) error {
	s := ui.NewStyle(w, a.Getenv)
	for _, d := range r.Differences {
		fmt.Fprintf(w, "%s  %s\n", s.Bold(string(d.Group)), d.Name)
		a.writeSeen(w, s, r.Left, d.Left)
		a.writeSeen(w, s, r.Right, d.Right)
		if d.Explained != "" {
			fmt.Fprintf(w, "  %s\n", s.Dim("because "+d.Explained))
		}
	}
	_, err := fmt.Fprintf(w, "%s the same on both, %s, %d of them unexplained\n",
		ui.Plural(r.Same, "check"), ui.Plural(len(r.Differences), "difference"), r.Unexplained())
	return err
}

func (a *app) writeSeen(w io.Writer, s ui.Style, side string, seen parity.Seen) {
	if seen.Outcome == "" {
		fmt.Fprintf(w, "  %s: has no such check\n", side)
		return
	}
	fmt.Fprintf(w, "  %s: %s: %s\n", side, a.outcomeWord(s, seen.Outcome), seen.Seen)
	if seen.Seen != seen.Expected {
		fmt.Fprintf(w, "    expected: %s\n", seen.Expected)
	}
}
